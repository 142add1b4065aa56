"""One model of the user's own: from its answers, or from the model itself, to a decision."""
