"""The way onto a Ray cluster: the only room that imports ray."""
