"""The hidden teacher: a sum of concepts, each a function of one or two features, that gives a row its probability.

Every id has a code, and every code a hidden vector z. With s the strength of an id (it falls with rarity):

    PAIR          s_i s_j tanh(z_i' A z_j), less its first-order part
    GATE          s_i tanh(z_i' a) x dense value
    FIRST_ORDER   s_i tanh(z_i' a)

Each is scaled to unit variance. The logit is their weighted sum, brought on each day to the standard deviation
`signal` and, by its bias, to `base_rate`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from raysparse.data.drift.concepts import ConceptKind, active_concepts, concept_kind
from raysparse.data.drift.config import DriftConfig
from raysparse.data.drift.ids import NUM_CODES, IdDistribution, strengths

NUM_LATENT = 2
"""Length of the hidden vector of an id."""
DENSE_CORRELATION = 0.6
"""Correlation of a dense value with a hidden property of the id in the feature it is linked to."""
DENSE_FLOOR = -1.5
"""Where a dense value is cut off, in standard deviations: the share of zeros of a count."""
_PROBE_ROWS = 16_384
_CODEBOOK_STREAM, _CONCEPT_STREAM, _PROBE_STREAM, PART_STREAM = range(1_000_000, 1_000_004)


@dataclass(frozen=True)
class Rows:
    """N rows before they have a label; `codes` and `strengths` are those of the features the teacher reads."""

    ids: list[NDArray[np.int32]]
    codes: list[NDArray[np.intp]]
    strengths: list[NDArray[np.float32]]
    dense: list[NDArray[np.float32]]
    """In standard deviations from the mean, not below DENSE_FLOOR."""


@dataclass(frozen=True)
class Concept:
    """A hidden function: a look-up by code (`[C]`, or `[C * C]` for a pair), times strengths, times a dense value."""

    kind: ConceptKind
    features: tuple[int, ...]
    """Positions among the features that the teacher reads."""
    dense: int
    values: NDArray[np.float32]

    def evaluate(self, rows: Rows) -> NDArray[np.float32]:
        """Return the value for each row, `[N]`."""
        first = self.features[0]
        index = rows.codes[first]
        if self.kind is ConceptKind.PAIR:
            index = index * NUM_CODES + rows.codes[self.features[1]]
        value = self.values.take(index)
        value *= rows.strengths[first]
        if self.kind is ConceptKind.PAIR:
            value *= rows.strengths[self.features[1]]
        elif self.kind is ConceptKind.GATE:
            value *= rows.dense[self.dense]
        return value


@dataclass(frozen=True)
class DayTeacher:
    """The teacher as it is on one day."""

    concepts: tuple[Concept, ...]
    weights: tuple[float, ...]
    scale: float
    bias: float

    def logits(self, rows: Rows) -> NDArray[np.float64]:
        """Return the logit of each row, `[N]`."""
        return self.scale * weighted_sum(self.concepts, self.weights, rows).astype(np.float64) + self.bias


def weighted_sum(concepts: tuple[Concept, ...], weights: tuple[float, ...], rows: Rows) -> NDArray[np.float32]:
    """Add up concepts row by row, one after the other: the order, and so the rounding, is the same everywhere."""
    total = np.zeros(len(rows.ids[0]), np.float32)
    for concept, weight in zip(concepts, weights, strict=True):
        value = concept.evaluate(rows)
        value *= np.float32(weight)
        total += value
    return total


class World:
    """What stays the same over all days: the ids' popularity and hidden vectors, and what each concept is."""

    def __init__(self, config: DriftConfig) -> None:
        self._config = config
        self._distributions = [
            IdDistribution(config.seed, feature, rows, config.zipf_exponent, config.id_churn)
            for feature, rows in enumerate(config.table_rows)
        ]
        self._latent = self._rng(_CODEBOOK_STREAM).standard_normal((NUM_CODES, NUM_LATENT))
        # Sums of s and of s squared over the ids of a code, weighted by popularity, on day 0: [S, C] each.
        moments = [self._moments(feature) for feature in config.signal_features]
        self._first = np.stack([first for first, _ in moments])
        self._second = np.stack([second for _, second in moments])
        self._dense_links = [self._dense_link(dense) for dense in range(config.num_dense)]

    def draw(self, rng: np.random.Generator, num_rows: int, day_index: int) -> Rows:
        """Draw rows as they come on a day."""
        ids, codes, strong = [], [], []
        signal_features = set(self._config.signal_features)
        for feature, distribution in enumerate(self._distributions):
            ranks = distribution.ranks(rng.integers(0, 2**64, num_rows, dtype=np.uint64))
            column = distribution.ids(ranks, day_index)
            ids.append(column.astype(np.int32))
            if feature in signal_features:
                codes.append(distribution.codes(column))
                strong.append(strengths(ranks))
        dense = [self._draw_dense(rng, link, codes, strong) for link in self._dense_links]
        return Rows(ids, codes, strong, dense)

    def concept(self, number: int) -> Concept:
        """Return the concept of a number: always the same one."""
        config = self._config
        kind = concept_kind(config, number)
        rng = self._rng(_CONCEPT_STREAM, number)
        first, second = rng.permutation(len(config.signal_features))[:2].tolist()
        dense = int(rng.integers(config.num_dense))
        if kind is ConceptKind.PAIR:
            matrix = rng.standard_normal((NUM_LATENT, NUM_LATENT)) / np.sqrt(NUM_LATENT)
            values = np.tanh(self._latent @ matrix @ self._latent.T)
            values -= self._mean_over(second, values)[:, None]
            values -= self._mean_over(first, values.T)[None, :]
            variance = self._second[first] @ values**2 @ self._second[second]
            return Concept(kind, (first, second), dense, _unit(values.ravel(), float(variance)))
        values = np.tanh(self._latent @ rng.standard_normal(NUM_LATENT))
        values -= self._mean_over(first, values)
        return Concept(kind, (first,), dense, _unit(values, float(self._second[first] @ values**2)))

    def _mean_over(self, feature: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values @ self._first[feature] / self._first[feature].sum()

    def _moments(self, feature: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        grid = (np.arange(1 << 16, dtype=np.uint64) << np.uint64(48)) + np.uint64(1 << 47)
        distribution = self._distributions[feature]
        ranks = distribution.ranks(grid)
        codes, strong = distribution.codes(distribution.ids(ranks, 0)), strengths(ranks).astype(np.float64)
        first = np.bincount(codes, strong, NUM_CODES) / len(grid)
        second = np.bincount(codes, strong**2, NUM_CODES) / len(grid)
        return first, second

    def _dense_link(self, dense: int) -> tuple[int, NDArray[np.float32]]:
        feature = dense % len(self._config.signal_features)
        values = self._latent @ self._rng(_CODEBOOK_STREAM, dense).standard_normal(NUM_LATENT)
        values -= self._mean_over(feature, values)
        return feature, _unit(values, float(self._second[feature] @ values**2))

    def _draw_dense(
        self,
        rng: np.random.Generator,
        link: tuple[int, NDArray[np.float32]],
        codes: list[NDArray[np.intp]],
        strong: list[NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        feature, values = link
        dense = rng.standard_normal(len(codes[feature]), dtype=np.float32)
        dense *= np.float32(np.sqrt(1.0 - DENSE_CORRELATION**2))
        linked = values.take(codes[feature])
        linked *= strong[feature]
        linked *= np.float32(DENSE_CORRELATION)
        dense += linked
        return np.maximum(dense, np.float32(DENSE_FLOOR), out=dense)

    def _rng(self, *key: int) -> np.random.Generator:
        return random_generator(self._config, *key)


def random_generator(config: DriftConfig, *key: int) -> np.random.Generator:
    """Return the random numbers that belong to a key, whatever was drawn before."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(config.seed, spawn_key=key)))


def world(config: DriftConfig) -> World:
    """Return the unchanging side of a stream (any process; kept for the next part)."""
    return _world(config.model_dump_json())


def day_teacher(config: DriftConfig, day_index: int) -> DayTeacher:
    """Return the teacher of a day, calibrated on a probe of 16 384 rows drawn alike on all days (any process)."""
    return _day_teacher(config.model_dump_json(), day_index)


@lru_cache(maxsize=4)
def _world(config_json: str) -> World:
    return World(DriftConfig.model_validate_json(config_json))


@lru_cache(maxsize=8)
def _day_teacher(config_json: str, day_index: int) -> DayTeacher:
    config, same = DriftConfig.model_validate_json(config_json), _world(config_json)
    active = active_concepts(config, day_index)
    concepts = tuple(same.concept(number) for number in active)
    weights = tuple(
        _kind_weight(config, concept.kind) * strength
        for concept, strength in zip(concepts, active.values(), strict=True)
    )
    probe = same.draw(random_generator(config, _PROBE_STREAM), _PROBE_ROWS, day_index)
    values = weighted_sum(concepts, weights, probe).astype(np.float64)
    scale = config.signal / max(float(values.std()), 1e-9)
    return DayTeacher(concepts, weights, scale, _bias(scale * values, config.base_rate))


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logistic function of logits, `[N]`."""
    return 1.0 / (1.0 + np.exp(-logits))


def _kind_weight(config: DriftConfig, kind: ConceptKind) -> float:
    """Return the weight that gives a kind its share of the variance: interactions, or first-order concepts."""
    kinds = [concept_kind(config, place) for place in range(config.num_concepts)]
    num_first = kinds.count(ConceptKind.FIRST_ORDER)
    if kind is ConceptKind.FIRST_ORDER:
        return float(np.sqrt((1.0 - config.interaction_share) / num_first))
    return float(np.sqrt(config.interaction_share / (len(kinds) - num_first)))


def _unit(values: NDArray[np.float64], variance: float) -> NDArray[np.float32]:
    """Scale to unit variance; a feature with a single id has nothing to say and stays zero."""
    return (values / np.sqrt(max(variance, 1e-12))).astype(np.float32)


def _bias(logits: NDArray[np.float64], base_rate: float) -> float:
    """Find by Newton's method the bias with which the mean probability is the base rate."""
    bias = float(np.log(base_rate / (1.0 - base_rate)))
    for _ in range(20):
        predicted = probabilities(logits + bias)
        slope = float(np.mean(predicted * (1.0 - predicted)))
        bias += float(np.clip((base_rate - predicted.mean()) / max(slope, 1e-12), -1.0, 1.0))
    return bias
