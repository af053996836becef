import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest

from raysparse.config import check
from raysparse.data.drift import (
    ConceptKind,
    DriftConfig,
    NoDrift,
    RecurringDrift,
    SlowDrift,
    SuddenDrift,
    active_concepts,
    concept_kind,
    day_name,
    generate_part,
    parts,
    schema,
)
from raysparse.data.drift import generate as generate_module
from raysparse.data.drift.ids import HEAD_RANKS, NUM_CODES, IdDistribution, strengths
from raysparse.data.drift.teacher import (
    DENSE_FLOOR,
    PART_STREAM,
    _day_teacher,
    _world,
    day_teacher,
    probabilities,
    random_generator,
    world,
)
from raysparse.errors import ConfigError

SMALL = DriftConfig(seed=3, num_days=6, rows_per_day=20_000, rows_per_table=5_000, zipf_exponent=1.1, num_concepts=16)


def digest(table: pa.Table) -> str:
    hashed = hashlib.sha256(str(table.schema).encode())
    for column in table.columns:
        hashed.update(column.to_numpy().tobytes())
    return hashed.hexdigest()


def forget() -> None:
    _world.cache_clear()
    _day_teacher.cache_clear()


def entropy(rate: float) -> float:
    return -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


def column(config: DriftConfig, day_index: int, name: str) -> np.ndarray:
    return generate_part(config, day_index, 0).table[name].to_numpy()


def test_columns_are_those_of_the_schema() -> None:
    table = generate_part(SMALL, 0, 0).table
    assert table.schema.equals(schema(SMALL).arrow())
    assert table.num_rows == 20_000
    assert table.column_names[:2] == ["label", "dense_00"]
    assert table.column_names[-1] == "id_25"
    assert len(table.column_names) == 1 + 13 + 26
    assert all(field.rows == 5_000 and not field.multi_valued for field in schema(SMALL).ids)


def test_parts_cut_a_day_and_keep_all_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_module, "ROWS_PER_PART", 900)
    config = SMALL.model_copy(update={"rows_per_day": 2_000, "num_days": 2})
    assert parts(config) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    made = [generate_part(config, 0, part).table for part in range(3)]
    assert [table.num_rows for table in made] == [900, 900, 200]
    assert len({digest(table.slice(0, 200)) for table in made}) == 3


def test_parts_stay_small_however_long_the_day() -> None:
    config = DriftConfig(num_days=1, rows_per_day=10**9)
    assert parts(config) == [(0, part) for part in range(1908)]  # 10^9 / 2^19, rounded up


def test_day_names_are_dates() -> None:
    assert day_name(SMALL, 0) == "2030-01-01"
    assert day_name(DriftConfig(first_day="2031-12-30"), 3) == "2032-01-02"


@pytest.mark.parametrize("drift", [NoDrift(), SlowDrift(concepts_per_day=1.5), SuddenDrift(every_days=2)])
def test_any_day_alone_equals_the_days_in_order(drift: NoDrift | SlowDrift | SuddenDrift) -> None:
    config = SMALL.model_copy(update={"drift": drift, "id_churn": 0.1, "rows_per_day": 2_000})
    forget()
    in_order = [generate_part(config, day_index, 0) for day_index in range(6)]
    forget()
    longer = config.model_copy(update={"num_days": 50})
    alone = generate_part(longer, 4, 0)
    assert digest(alone.table) == digest(in_order[4].table)
    assert alone.teacher_log_loss_sum == in_order[4].teacher_log_loss_sum
    assert len({digest(part.table) for part in in_order}) == 6
    other_seed = generate_part(config.model_copy(update={"seed": 4}), 4, 0)
    assert digest(other_seed.table) != digest(alone.table)


@pytest.mark.parametrize(("base_rate", "day_index"), [(0.25, 0), (0.25, 40), (0.03, 5), (0.6, 5)])
def test_base_rate_is_the_configured_one(base_rate: float, day_index: int) -> None:
    config = SMALL.model_copy(
        update={"base_rate": base_rate, "drift": SlowDrift(), "id_churn": 0.05, "rows_per_day": 50_000}
    )
    labels = column(config, day_index, "label")
    assert set(np.unique(labels)) == {0, 1}
    assert labels.mean() == pytest.approx(base_rate, rel=0.06)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("day_index", [0, 25])
def test_teacher_ne_leaves_something_to_learn(seed: int, day_index: int) -> None:
    part = generate_part(DriftConfig(seed=seed, rows_per_day=40_000, drift=SlowDrift()), day_index, 0)
    rate = float(part.table["label"].to_numpy().mean())
    assert 0.75 < part.teacher_log_loss_sum / 40_000 / entropy(rate) < 0.85


def test_log_loss_is_that_of_the_probabilities() -> None:
    config = SMALL.model_copy(update={"rows_per_day": 3_000, "drift": SuddenDrift(every_days=1)})
    part = generate_part(config, 2, 0)
    rows = world(config).draw(random_generator(config, PART_STREAM, 2, 0), 3_000, 2)
    assert rows.ids[7].tolist() == part.table["id_07"].to_pylist()
    predicted = probabilities(day_teacher(config, 2).logits(rows))
    labels = part.table["label"].to_numpy()
    losses = [-np.log(p if y else 1 - p) for p, y in zip(predicted, labels, strict=True)]
    assert part.teacher_log_loss_sum == pytest.approx(sum(losses), rel=1e-9)
    ranked = labels[np.argsort(predicted)]
    assert ranked[:1000].mean() + 0.3 < ranked[-1000:].mean()


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.1, 1.5])
@pytest.mark.parametrize("rows", [12, 5_000, 10_000_000])
def test_ranks_follow_the_power_law(exponent: float, rows: int) -> None:
    draws = np.random.default_rng(0).integers(0, 2**64, 200_000, dtype=np.uint64)
    ranks = IdDistribution(0, 0, rows, exponent, 0.0).ranks(draws)
    assert ranks.min() >= 0
    assert ranks.max() < rows - 1
    edges = np.array([1.0, 2.0, 4.0, 8.0, float(rows)])
    mass = np.log(edges) if exponent == 1.0 else (edges ** (1 - exponent) - 1) / (1 - exponent)
    for rank, expected in ((1, mass[1]), (3, mass[2]), (7, mass[3])):
        assert (ranks < rank).mean() == pytest.approx(expected / mass[4], abs=0.005)


def test_rank_of_extreme_bits_is_in_the_table() -> None:
    bits = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    for rows in (2, 3, 100_000, 2**31 - 1):
        distribution = IdDistribution(1, 0, rows, 1.1, 0.5)
        ids = distribution.ids(distribution.ranks(bits), 10**5)
        assert ids.min() >= 1
        assert ids.max() <= rows - 1


def test_ids_are_in_range_and_skewed() -> None:
    rows = tuple(2 + 40 * feature for feature in range(26))
    table = generate_part(SMALL.model_copy(update={"rows_per_table": rows, "id_churn": 0.3}), 5, 0).table
    for feature, size in enumerate(rows):
        ids = table[f"id_{feature:02d}"].to_numpy()
        assert ids.min() >= 1
        assert ids.max() <= size - 1
    top = np.bincount(column(SMALL, 0, "id_11")).max() / 20_000
    assert top == pytest.approx((2**-0.1 - 1) / (5_000**-0.1 - 1), abs=0.01)


def test_without_churn_rows_and_ranks_are_one_to_one() -> None:
    ranks = np.arange(999)
    for feature in range(5):
        distribution = IdDistribution(7, feature, 1_000, 1.1, 0.0)
        ids = distribution.ids(ranks, 0)
        assert sorted(ids.tolist()) == list(range(1, 1_000))
        assert np.array_equal(ids, distribution.ids(ranks, 99))
        assert ids.tolist() != ranks.tolist()


def test_churn_replaces_its_share_of_the_ids_each_day_by_rare_ones() -> None:
    ranks = np.arange(20_000)
    distribution = IdDistribution(7, 0, 1_000_000, 1.1, 0.05)
    days = [distribution.ids(ranks, day_index) for day_index in (0, 1, 10)]
    assert (days[0] != days[1]).mean() == pytest.approx(0.05, abs=0.006)
    assert (days[0] != days[2]).mean() == pytest.approx(0.5, abs=0.015)
    come = set(days[2].tolist()) - set(days[0].tolist())
    assert len(come) == pytest.approx(10_000, abs=300)
    assert np.array_equal(days[0], IdDistribution(7, 0, 1_000_000, 1.1, 0.0).ids(ranks, 0))


def test_codes_and_strengths() -> None:
    distribution = IdDistribution(7, 2, 100_000, 1.1, 0.0)
    codes = distribution.codes(np.arange(1, 100_000))
    counts = np.bincount(codes, minlength=NUM_CODES)
    assert len(counts) == NUM_CODES
    assert counts.min() > 0.8 * 100_000 / NUM_CODES
    assert np.array_equal(strengths(np.array([0, HEAD_RANKS])), np.array([1.0, 0.5], np.float32))


def test_dense_values_look_like_log_counts_and_tell_of_ids() -> None:
    part = generate_part(SMALL, 0, 0)
    rows = world(SMALL).draw(random_generator(SMALL, PART_STREAM, 0, 0), 20_000, 0)
    for number in range(13):
        values = part.table[f"dense_{number:02d}"].to_numpy()
        assert np.isfinite(values).all()
        assert values.min() == 0.0
        scale = 1.0 + number % 3
        assert values.std() == pytest.approx(0.95 * scale, rel=0.1)
        assert np.allclose(values / scale + DENSE_FLOOR, rows.dense[number], atol=1e-5)
    codes, values = rows.codes[0], rows.dense[0]
    between = np.array([values[codes == code].mean() for code in range(NUM_CODES) if (codes == code).any()])
    assert between.std() > 0.1


def test_interactions_have_no_first_order_part() -> None:
    config = SMALL.model_copy(update={"rows_per_day": 100_000})
    rows = world(config).draw(random_generator(config, PART_STREAM, 0, 0), 100_000, 0)
    for number in range(16):
        concept = world(config).concept(number)
        value = concept.evaluate(rows)
        assert value.std() == pytest.approx(1.0, abs=0.15)
        explained = 0.0
        for feature in concept.features:
            codes = rows.codes[feature]
            counts = np.bincount(codes, minlength=NUM_CODES)
            means = np.bincount(codes, value, NUM_CODES) / np.maximum(counts, 1)
            explained = max(explained, float((counts * means**2).sum() / (value**2).sum()))
        if concept.kind is ConceptKind.PAIR:
            assert explained < 0.02
        if concept.kind is ConceptKind.FIRST_ORDER:
            assert explained > 0.5


def test_no_drift_keeps_teacher_and_concepts() -> None:
    assert active_concepts(SMALL, 0) == active_concepts(SMALL, 500) == dict.fromkeys(range(16), 1.0)
    first, later = day_teacher(SMALL, 0), day_teacher(SMALL, 500)
    assert (first.scale, first.bias) == (later.scale, later.bias)
    pairs = zip(first.concepts, later.concepts, strict=True)
    assert all(np.array_equal(one.values, two.values) for one, two in pairs)


def test_slow_drift_fades_at_its_rate_and_never_returns() -> None:
    config = DriftConfig(num_concepts=16, drift=SlowDrift(concepts_per_day=0.5, fade_days=4))
    days = [active_concepts(config, day_index) for day_index in range(200)]
    assert days[0] == days[2] == dict.fromkeys(range(16), 1.0)
    assert days[3] == {0: pytest.approx(0.75**0.5), 16: pytest.approx(0.25**0.5), **dict.fromkeys(range(1, 16), 1.0)}
    assert 0 not in days[6]
    assert days[6][16] == 1.0
    for day in days:
        for place in range(16):
            assert sum(strength**2 for number, strength in day.items() if number % 16 == place) == pytest.approx(1)
    assert len(set(days[0]) & set(days[20])) == 8  # numbers 0 to 7 began to fade by day 16 and are gone
    assert not set(days[0]) & set(days[40])
    assert {concept_kind(config, number) for number in days[150]} == set(ConceptKind)


def test_slow_drift_without_fade_exchanges_at_once() -> None:
    config = DriftConfig(num_concepts=16, drift=SlowDrift(concepts_per_day=3, fade_days=0))
    assert set(active_concepts(config, 1)) == {16, 17, 18, *range(3, 16)}
    assert set(active_concepts(config, 6)) == {32, 33, *range(18, 32)}


def test_sudden_drift_changes_only_at_multiples() -> None:
    config = DriftConfig(num_concepts=16, drift=SuddenDrift(every_days=7, share=0.25))
    days = [set(active_concepts(config, day_index)) for day_index in range(60)]
    for before, (day_index, after) in zip(days, enumerate(days[1:], 1), strict=False):
        assert len(before & after) == (12 if day_index % 7 == 0 else 16)
    assert not days[0] & days[28]


def test_recurring_drift_returns_exactly() -> None:
    config = SMALL.model_copy(update={"drift": RecurringDrift(period_days=9, num_sets=3, share=0.5)})
    for day_index in range(9):
        assert active_concepts(config, day_index) == active_concepts(config, day_index + 9)
    assert len(set(active_concepts(config, 2)) & set(active_concepts(config, 3))) == 8
    assert len({tuple(active_concepts(config, day_index)) for day_index in range(9)}) == 3
    first, again = day_teacher(config, 4), day_teacher(config, 13)
    assert (first.scale, first.bias) == (again.scale, again.bias)


def test_drift_moves_what_matters_and_not_the_inputs() -> None:
    config = SMALL.model_copy(update={"drift": SuddenDrift(every_days=5, share=1.0)})
    rows = world(config).draw(random_generator(config, 0), 20_000, 0)
    before, same, after = (day_teacher(config, day_index).logits(rows) for day_index in (0, 4, 5))
    assert np.array_equal(before, same)
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.3
    assert probabilities(after).mean() == pytest.approx(0.25, abs=0.01)
    still = SMALL.model_copy(update={"drift": NoDrift()})
    assert np.array_equal(column(config, 5, "id_00"), column(still, 5, "id_00"))
    assert np.array_equal(column(config, 5, "dense_00"), column(still, 5, "dense_00"))


def test_interaction_share_is_the_share_of_the_variance() -> None:
    config = SMALL.model_copy(update={"interaction_share": 0.0})
    teacher = day_teacher(config, 0)
    kinds = [concept.kind for concept in teacher.concepts]
    assert {kind for kind, weight in zip(kinds, teacher.weights, strict=True) if weight} == {ConceptKind.FIRST_ORDER}
    weights = day_teacher(SMALL, 0).weights
    shares = [w**2 for kind, w in zip(kinds, weights, strict=True) if kind is not ConceptKind.FIRST_ORDER]
    assert sum(shares) == pytest.approx(SMALL.interaction_share)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"num_dayz": 3}, "num_dayz: unknown key"),
        ({"rows_per_day": 0}, "rows_per_day: found 0"),
        ({"rows_per_table": 1}, "rows_per_table"),
        ({"num_ids": 3, "rows_per_table": [10, 10]}, "one number for each of num_ids = 3"),
        ({"first_day": "2030-02-30"}, "first_day: found"),
        ({"first_day": "9999-12-20"}, "num_days: found 30; allowed: at most 12"),
        ({"base_rate": 1.0}, "base_rate: found 1.0"),
        ({"id_churn": 1.5}, "id_churn: found 1.5"),
        ({"drift": {"kind": "fast"}}, "drift.kind: found 'fast'"),
        ({"drift": {"kind": "slow", "concepts_per_day": 10, "fade_days": 3}}, "at most num_concepts = 12"),
        ({"drift": {"kind": "sudden", "every_days": 0}}, "drift.every_days: found 0"),
        ({"drift": {"kind": "recurring", "period_days": 3, "num_sets": 4}}, "drift.num_sets: found 4"),
    ],
)
def test_bad_config_is_refused_by_key(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(DriftConfig, tree, "the prepare settings")
    assert message in str(caught.value)


def test_config_survives_json() -> None:
    config = DriftConfig(num_ids=3, rows_per_table=(5, 6, 7), drift=RecurringDrift())
    assert check(DriftConfig, json.loads(config.model_dump_json()), "json") == config
    assert [feature.rows for feature in schema(config).ids] == [5, 6, 7]
