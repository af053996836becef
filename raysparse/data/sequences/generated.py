"""Generated sequences: the sequence of a user is a closed form of (seed, user), so that parts are made on their own.

Items have ranks of popularity, 0 the most popular, and a rank is a row of the table by a permutation. Ranks lie on
rings of `ring_size` neighbours. With probability `signal_share` the next item stands a few steps further on the ring
of the last one, and how many steps is told by where on its ring the item before that stands; else the next item is
drawn by popularity. So an item has `num_successors` likely successors, and the last two items tell which.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysparse.data.drift.ids import IdDistribution
from raysparse.data.hashing import mix_64
from raysparse.data.sequences.by_day import MICROSECONDS_PER_DAY, by_day
from raysparse.data.sequences.config import SHORTEST_GENERATED, GeneratedSequencesConfig
from raysparse.data.sequences.histories import Histories, Rows
from raysparse.data.sequences.leave_one_out import in_training, leave_one_out

EVENTS_PER_PART = 2**23
"""Mean events of a part, made within some 500 MB."""
USERS_PER_PART = 2**20
_MAX_COUNTED_ITEMS = 10_000_000
"""Items up to which their counts are gathered and written."""

_FIRST_DAY = "2030-01-01"
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Step of SplitMix64's counter (Steele, Lea and Flood 2014)."""
_DRAWS_PER_EVENT = 3
_JUMP, _RANK, _TIME = range(_DRAWS_PER_EVENT)

Bits = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GeneratedPart:
    """The rows of a range of users."""

    histories: Histories
    rows: dict[str, Rows]
    """Rows of each part of the data set, a day or another."""
    items: Places
    """Items that are trained on, each once; none where there are too many to count."""
    counts: Places
    """How often each of them is."""


@dataclass(frozen=True)
class _Keys:
    """Start values of what is drawn, all from the seed."""

    length: np.uint64
    events: np.uint64
    steps: np.uint64


def parts(config: GeneratedSequencesConfig) -> list[tuple[int, int]]:
    """Cut the users into ranges, first and end, each a part."""
    per_part = min(USERS_PER_PART, max(1, int(EVENTS_PER_PART / config.mean_length)))
    return [(first, min(first + per_part, config.num_users)) for first in range(0, config.num_users, per_part)]


def generate_users(config: GeneratedSequencesConfig, first: int, end: int) -> GeneratedPart:
    """Make the rows of a range of users (any process), independent of every other range."""
    histories = generate_histories(config, first, end)
    if config.num_days is None:
        rows, trained = leave_one_out(histories), histories.offsets[1:] - 2
    else:
        (rows, _), trained = by_day(histories, config.max_history), histories.offsets[1:]
    if not has_counts(config):
        nothing = np.zeros(0, np.int64)
        return GeneratedPart(histories, rows, nothing, nothing)
    items, counts = np.unique(histories.items[in_training(histories, trained)], return_counts=True)
    return GeneratedPart(histories, rows, items.astype(np.int64), counts)


def has_counts(config: GeneratedSequencesConfig) -> bool:
    """Tell whether the items are few enough for a count of each."""
    return config.num_items <= _MAX_COUNTED_ITEMS


def generate_histories(config: GeneratedSequencesConfig, first: int, end: int) -> Histories:
    """Make the sequences of the users from `first` to `end` (any process)."""
    keys = _keys(config)
    users = np.arange(first, end, dtype=np.uint64)
    lengths = _lengths(config, mix_64(users + keys.length))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    states = mix_64(users * _GOLDEN + keys.events)
    ranks = _walk(config, keys, states, lengths, offsets)
    items = _distribution(config).ids(ranks, 0).astype(np.int32)
    return Histories(items, _times(config, states, lengths, offsets), offsets, config.num_items)


def item_names(config: GeneratedSequencesConfig) -> pa.Array:
    """Return the names of the items, `[items]`, in the order of their rows: their numbers."""
    return pa.array(np.arange(1, config.num_items + 1)).cast(pa.string())


def _walk(config: GeneratedSequencesConfig, keys: _Keys, states: Bits, lengths: Places, offsets: Places) -> Places:
    """Draw the ranks of all items, place after place over all users at once; longest first, those left are a prefix."""
    order = np.argsort(-lengths, kind="stable")
    lengths, starts, states = lengths[order], offsets[:-1][order], states[order]
    longer_than = len(lengths) - np.searchsorted(lengths[::-1], np.arange(lengths[0]), side="right")
    distribution, steps = _distribution(config), _steps(config, keys)
    ranks = np.zeros(offsets[-1], np.int64)
    last = before = np.zeros(0, np.int64)
    for place, num_users in enumerate(longer_than.tolist()):
        drawn = distribution.ranks(_bits(states[:num_users], place, _RANK))
        if place:
            last, before = last[:num_users], before[:num_users]
            follows = _uniform(_bits(states[:num_users], place, _JUMP)) < config.signal_share
            drawn = np.where(follows, _successors(config, last, before, steps), drawn)
        ranks[starts[:num_users] + place] = drawn
        before, last = (last if place else drawn), drawn
    return ranks


def _successors(config: GeneratedSequencesConfig, last: Places, before: Places, steps: Places) -> Places:
    """Go on from the last item on its ring, as many steps as the item before it tells; the last ring may be short."""
    place = last % config.ring_size
    ring = last - place
    size = np.minimum(config.ring_size, config.num_items - ring)
    return ring + (place + steps[before % config.ring_size]) % size


def _steps(config: GeneratedSequencesConfig, keys: _Keys) -> Places:
    hashes = mix_64(np.arange(config.ring_size, dtype=np.uint64) + keys.steps)
    return (hashes % np.uint64(config.num_successors)).astype(np.int64) + 1


def _lengths(config: GeneratedSequencesConfig, hashes: Bits) -> Places:
    """Draw log-normal lengths by Box and Muller."""
    radius = np.sqrt(-2.0 * np.log1p(-_uniform(hashes)))
    normal = radius * np.cos(2.0 * math.pi * _uniform(mix_64(hashes + _GOLDEN)))
    centre = math.log(config.mean_length) - config.length_skew**2 / 2.0
    lengths = np.exp(centre + config.length_skew * normal)
    return np.clip(np.rint(lengths), SHORTEST_GENERATED, config.max_length).astype(np.int64)


def _times(config: GeneratedSequencesConfig, states: Bits, lengths: Places, offsets: Places) -> Places:
    """Spread the events of each user over the days: event number k of n lies in the k-th of n equal pieces of time."""
    if config.num_days is None:
        return np.arange(offsets[-1])
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    within = _uniform(_bits(np.repeat(states, lengths), places.astype(np.uint64), _TIME))
    span = config.num_days * MICROSECONDS_PER_DAY
    first = int(np.datetime64(_FIRST_DAY, "us").astype(np.int64))
    return first + np.minimum(((places + within) / np.repeat(lengths, lengths) * span).astype(np.int64), span - 1)


def _bits(states: Bits, place: int | Bits, draw: int) -> Bits:
    """Return 64 random bits of each user for one draw at one place of the sequence."""
    number = np.asarray(place, np.uint64) * np.uint64(_DRAWS_PER_EVENT) + np.uint64(draw + 1)
    return mix_64(states + np.atleast_1d(number) * _GOLDEN)


def _uniform(bits: Bits) -> npt.NDArray[np.float64]:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _distribution(config: GeneratedSequencesConfig) -> IdDistribution:
    return IdDistribution(config.seed, 0, config.num_items + 1, config.zipf_exponent, 0.0)


def _keys(config: GeneratedSequencesConfig) -> _Keys:
    drawn = np.random.SeedSequence(config.seed, spawn_key=(1,)).generate_state(3, np.uint64)
    return _Keys(drawn[0], drawn[1], drawn[2])
