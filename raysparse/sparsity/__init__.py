"""Structured pruning: groups and what they cost, criteria, projection onto a budget, compaction."""
