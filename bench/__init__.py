"""What the stages share: training of all roles, and what a training keeps on disk."""
