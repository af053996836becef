"""Which concepts are active on a day, and how strongly: the whole of the drift, as a function of the day alone.

There are `num_concepts` places. Concept n * num_concepts + p is the n-th one to hold place p; places are taken
in turn. A concept's number fixes its function for ever, so a number that comes back is the same concept.
"""

import math
from enum import Enum

from raysparse.data.drift.config import DriftConfig, RecurringDrift, SlowDrift, SuddenDrift


class ConceptKind(Enum):
    """What a concept reads."""

    PAIR = "two ids"
    GATE = "an id and a dense value"
    FIRST_ORDER = "an id"


_PLACES = (
    ConceptKind.PAIR,
    ConceptKind.FIRST_ORDER,
    ConceptKind.PAIR,
    ConceptKind.GATE,
    ConceptKind.PAIR,
    ConceptKind.FIRST_ORDER,
    ConceptKind.PAIR,
    ConceptKind.GATE,
)


def concept_kind(config: DriftConfig, number: int) -> ConceptKind:
    """Return what a concept reads; it has the kind of its predecessor in the same place."""
    return _PLACES[number % config.num_concepts % len(_PLACES)]


def active_concepts(config: DriftConfig, day_index: int) -> dict[int, float]:
    """Return the numbers of the concepts of a day, each with its strength in (0, 1].

    The squares of the strengths in one place add up to 1: a fade changes what counts, not how much there is.
    """
    drift, places = config.drift, config.num_concepts
    if isinstance(drift, SlowDrift):
        return _fading(places, drift.concepts_per_day, drift.fade_days, day_index)
    if isinstance(drift, SuddenDrift):
        exchanged = day_index // drift.every_days * max(1, round(drift.share * places))
        return {_generation(exchanged, place, places) * places + place: 1.0 for place in range(places)}
    if isinstance(drift, RecurringDrift):
        current = day_index % drift.period_days * drift.num_sets // drift.period_days
        moving = max(1, round(drift.share * places))
        return {(current if place < moving else 0) * places + place: 1.0 for place in range(places)}
    return dict.fromkeys(range(places), 1.0)


def _generation(exchanged: int, place: int, places: int) -> int:
    """Return how often a place was exchanged when `exchanged` exchanges have gone round all places in turn."""
    return (exchanged - place + places - 1) // places


def _fading(places: int, per_day: float, fade_days: float, day_index: int) -> dict[int, float]:
    """Return concepts and strengths when exchange number n begins on day (n + 1) / per_day."""
    started = math.floor(day_index * per_day)
    active: dict[int, float] = {}
    for place in range(places):
        generation = _generation(started, place, places)
        number = generation * places + place
        begun = (number - places + 1) / per_day
        progress = (day_index - begun) / fade_days if generation and fade_days else 1.0
        if progress < 1.0:
            active[number - places] = math.sqrt(1.0 - progress)
        if progress > 0.0:
            active[number] = math.sqrt(min(1.0, progress))
    return active
