"""A click stream of any size whose concepts move in a known way, made part by part from a seed."""

from raysparse.data.drift.concepts import ConceptKind, active_concepts, concept_kind
from raysparse.data.drift.config import (
    DriftConfig,
    NoDrift,
    RecurringDrift,
    SlowDrift,
    SuddenDrift,
    schema,
)
from raysparse.data.drift.generate import DriftPart, day_name, generate_part, parts

__all__ = [
    "ConceptKind",
    "DriftConfig",
    "DriftPart",
    "NoDrift",
    "RecurringDrift",
    "SlowDrift",
    "SuddenDrift",
    "active_concepts",
    "concept_kind",
    "day_name",
    "generate_part",
    "parts",
    "schema",
]
