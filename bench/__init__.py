"""What the stages share: training of all roles."""
