"""Rows: schema, data set, sources, day stream."""
