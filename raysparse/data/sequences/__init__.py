"""Data sets of sequences: a user's history and the items that come after it, from files of events or generated."""

from raysparse.data.sequences.config import EventColumns, GeneratedSequencesConfig, SequencesConfig

__all__ = ["EventColumns", "GeneratedSequencesConfig", "SequencesConfig"]
