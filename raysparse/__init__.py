"""raysparse: recommenders that are small, fast and fresh."""
