"""The training loop, its events, its state and its checkpoints."""
