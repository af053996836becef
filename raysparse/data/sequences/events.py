"""Events, each a user, an item and a time, as columns of numbers; their order, and those that are left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MICROSECONDS = 1_000_000
"""In a second: what events are told apart by."""

Codes = npt.NDArray[np.int32]
Times = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_CODED_TEXT = pa.dictionary(pa.int32(), pa.large_string())


@dataclass(frozen=True)
class EventBlock:
    """The good events of a piece of the input, in its order."""

    users: pa.DictionaryArray
    """Name of each event's user, `[events]`; made by `coded`."""
    items: pa.DictionaryArray
    """Name of each event's item, `[events]`."""
    times: Times | None
    """Microseconds since 1970, `[events]`; None where the input has no times but its order."""
    num_low_rated: int = 0
    """Events that were left out for their rating."""


@dataclass(frozen=True)
class Events:
    """Events as numbers; all columns are `[events]`."""

    users: Codes
    """Users, in the order in which they first appear in the input."""
    items: Codes
    """Places in `item_names`."""
    times: Times
    """Microseconds since 1970, or the place in the input where there are no times."""
    item_names: pa.Array
    """Distinct names of items, some of which may have lost their events; large_string."""

    def __len__(self) -> int:
        return len(self.users)

    def take(self, chosen: npt.NDArray[np.bool_ | np.integer]) -> "Events":
        """Return the events of a mask or of places."""
        return Events(self.users[chosen], self.items[chosen], self.times[chosen], self.item_names)


def coded(names: pa.Array) -> pa.DictionaryArray:
    """Give names a number each, `[names]`; names that repeat are kept once."""
    return names.cast(pa.large_string()).dictionary_encode()


def collect(blocks: list[EventBlock]) -> Events:
    """Join blocks, in their order, to one set of events with common numbers (driver)."""
    users, _ = _join([block.users for block in blocks])
    items, names = _join([block.items for block in blocks])
    dated = [block.times for block in blocks if block.times is not None]
    times = np.concatenate(dated) if dated else np.arange(len(users), dtype=np.int64)
    return Events(users, items, times, names)


def in_order(events: Events) -> Events:
    """Sort by user and time (driver); events of one user at one time stay in the order of the input."""
    ordered = events.users[1:] > events.users[:-1]
    ordered |= (events.users[1:] == events.users[:-1]) & (events.times[1:] >= events.times[:-1])
    if ordered.all():
        return events
    return events.take(np.lexsort((events.times, events.users)))


def without_repeats(events: Events) -> Events:
    """Leave out of events in order (driver) all but the first with the same user, item and time."""
    tied = _as_the_one_before(events)
    if not tied.any():
        return events
    in_tie = tied.copy()
    in_tie[:-1] |= tied[1:]
    places = np.flatnonzero(in_tie)
    ties, items = np.cumsum(~tied)[places], events.items[places]
    order = np.lexsort((items, ties))
    ties, items = ties[order], items[order]
    repeated = np.flatnonzero((ties[1:] == ties[:-1]) & (items[1:] == items[:-1])) + 1
    keep = np.ones(len(events), bool)
    keep[places[order[repeated]]] = False
    return events.take(keep)


def count_ties(events: Events) -> int:
    """Count events (in order) at the same time as the one of their user before them: no time tells their order."""
    return int(np.count_nonzero(_as_the_one_before(events)))


def core(events: Events, min_user_events: int, min_item_events: int) -> Events:
    """Leave out users and items with too few events, until all that are left have enough (driver)."""
    while len(events):
        keep = _frequent(events.users, min_user_events) & _frequent(events.items, min_item_events)
        if keep.all():
            break
        events = events.take(keep)
    return events


def of_long_users(events: Events, min_user_events: int) -> tuple[Events, int]:
    """Leave out users with too few events, and count them (driver)."""
    counts = np.bincount(events.users)
    num_short = int(np.count_nonzero((counts > 0) & (counts < min_user_events)))
    return (events.take(_frequent(events.users, min_user_events)) if num_short else events), num_short


def _join(columns: list[pa.DictionaryArray]) -> tuple[Codes, pa.Array]:
    chunks = list(pa.chunked_array(columns, _CODED_TEXT).unify_dictionaries().iterchunks())
    if not chunks:
        return np.zeros(0, np.int32), pa.array([], pa.large_string())
    codes: Iterator[Codes] = (chunk.indices.to_numpy() for chunk in chunks)
    return np.concatenate(list(codes)), chunks[0].dictionary


def _as_the_one_before(events: Events) -> Mask:
    same = np.zeros(len(events), bool)
    same[1:] = (events.users[1:] == events.users[:-1]) & (events.times[1:] == events.times[:-1])
    return same


def _frequent(codes: Codes, least: int) -> Mask:
    return (np.bincount(codes) >= least)[codes]
