"""What a model costs to serve."""
