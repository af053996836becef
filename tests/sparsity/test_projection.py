import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysparse.sparsity.criteria import Scores
from raysparse.sparsity.layout import Layout, Matrix, Side, open_masks, widths_of
from raysparse.sparsity.projection import (
    drop_worst,
    erk_widths,
    project_both_ways,
    project_greedily,
    project_within_places,
    refill,
    uniform_widths,
    widths_by_hand,
)
from tests.sparsity.heads import CASES, assert_budget_is_used, head_layout, random_masks

# 10 inputs -> a (4) -> 1: a group of a takes 11. 2 inputs -> b (4) -> 1: a group of b takes 3.
TWO = Layout(
    sizes={"a": 4, "b": 4},
    floors={"a": 1, "b": 1},
    matrices=(
        Matrix(Side(0, "a", 1), Side(10)),
        Matrix(Side(1), Side(0, "a", 1)),
        Matrix(Side(0, "b", 1), Side(2)),
        Matrix(Side(1), Side(0, "b", 1)),
    ),
    other_macs=0,
)
TWO_SCORES: Scores = {"a": torch.tensor([4.0, 11.0, 3.0, 12.0]), "b": torch.tensor([2.0, 4.0, 1.0, 0.5])}


def random_scores(layout: Layout, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return {place: torch.rand(size, generator=generator) for place, size in layout.sizes.items()}


def test_the_least_score_per_multiply_add_goes_first():
    assert TWO.dense_macs == 4 * 11 + 4 * 3
    # In order: b3 (0.17), a2 (0.27), b2 (0.33), a0 (0.36): 56 - 28 = 28.
    kept = project_greedily(TWO_SCORES, TWO, open_masks(TWO), 28)
    assert kept["a"].tolist() == [False, True, False, True]
    assert kept["b"].tolist() == [True, True, False, False]


def test_what_the_last_removal_saves_too_much_is_given_back():
    # At 32 the same four go; 4 are left, in which b2 fits, the better of the two of b.
    kept = project_greedily(TWO_SCORES, TWO, open_masks(TWO), 32)
    assert kept["a"].tolist() == [False, True, False, True]
    assert kept["b"].tolist() == [True, True, True, False]


def test_floors_stop_the_removal_of_a_place():
    worthless = {"a": torch.zeros(4), "b": torch.ones(4)}
    kept = project_greedily(worthless, TWO, open_masks(TWO), TWO.least_macs)
    assert widths_of(kept) == {"a": 1, "b": 1}
    everything_goes = drop_worst(worthless, TWO, open_masks(TWO), lambda widths: False)
    assert widths_of(everything_goes) == {"a": 1, "b": 1}


def test_what_is_left_out_stays_out_or_comes_back_as_asked():
    without_b = {"a": torch.ones(4, dtype=torch.bool), "b": torch.tensor([True, False, False, False])}
    assert widths_of(project_greedily(TWO_SCORES, TWO, without_b, TWO.dense_macs)) == {"a": 4, "b": 1}
    assert widths_of(project_both_ways(TWO_SCORES, TWO, without_b, TWO.dense_macs)) == {"a": 4, "b": 4}
    # Room for two of b: the best two.
    filled = refill(TWO_SCORES, TWO, without_b, open_masks(TWO), 4 * 11 + 3 * 3)
    assert filled["b"].tolist() == [True, True, True, False]


@settings(max_examples=40)
@given(
    case=st.sampled_from(sorted(CASES)),
    seed=st.integers(0, 10_000),
    share=st.floats(0.0, 1.0),
    multiple_of=st.sampled_from([1, 2, 8]),
)
def test_the_budget_is_met_within_one_width(case: str, seed: int, share: float, multiple_of: int):
    _, layout = head_layout(case, least_groups=2, multiple_of=multiple_of)
    macs = layout.least_macs + int(share * (layout.dense_macs - layout.least_macs))
    scores = random_scores(layout, seed)
    assert_budget_is_used(layout, project_greedily(scores, layout, open_masks(layout), macs), macs)


@settings(max_examples=40)
@given(case=st.sampled_from(sorted(CASES)), seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0))
def test_masks_that_take_too_little_or_too_much_are_brought_to_the_budget(case: str, seed: int, share: float):
    _, layout = head_layout(case, least_groups=1)
    macs = layout.least_macs + int(share * (layout.dense_macs - layout.least_macs))
    masks = random_masks(layout, seed)
    kept = project_both_ways(random_scores(layout, seed), layout, masks, macs)
    assert_budget_is_used(layout, kept, macs)


def test_within_places_the_best_stay():
    kept = project_within_places(TWO_SCORES, open_masks(TWO), {"a": 2, "b": 1})
    assert kept["a"].tolist() == [False, True, False, True]
    assert kept["b"].tolist() == [False, True, False, False]
    # Fewer are there than may stay: all do.
    assert project_within_places(TWO_SCORES, kept, {"a": 3, "b": 1})["a"].tolist() == kept["a"].tolist()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8, 1.0])
def test_widths_by_a_rule_use_the_budget_and_keep_the_floors(case: str, budget: float):
    _, layout = head_layout(case, least_groups=1, multiple_of=2)
    macs = max(layout.least_macs, int(budget * layout.dense_macs))
    for widths in (uniform_widths(layout, macs), erk_widths(layout, macs)):
        assert layout.macs(widths) <= macs
        assert all(width == layout.at_most(place, width) for place, width in widths.items())
        assert all(layout.floors[place] <= width <= layout.sizes[place] for place, width in widths.items())
        if budget == 1.0:
            assert widths == dict(layout.sizes)


def test_uniform_widths_are_one_ratio():
    # 44 * r + 12 * r at r = 1/2.
    assert uniform_widths(TWO, 28) == {"a": 2, "b": 2}
    _, layout = head_layout("dlrm")
    widths = uniform_widths(layout, layout.dense_macs // 2, prune_inputs=False)
    assert widths["pairs"] == layout.sizes["pairs"]
    assert widths["top.0.2"] < layout.sizes["top.0.2"]


def test_erk_keeps_more_of_a_small_layer():
    # Mean densities: a (14 / 40 + 5 / 4) / 2 = 0.8, b (6 / 8 + 5 / 4) / 2 = 1; a keeps 0.8 ** 0.5 of what b keeps.
    assert erk_widths(TWO, 36) == {"a": 2, "b": 3}
    assert uniform_widths(TWO, 36) == {"a": 2, "b": 2}


def test_widths_by_hand_keep_their_ratio_and_take_the_budget():
    layout = Layout(
        sizes={"a": 100, "b": 100},
        floors={"a": 1, "b": 1},
        matrices=(Matrix(Side(0, "a", 1), Side(10)), Matrix(Side(0, "b", 1), Side(10))),
        other_macs=0,
    )
    assert widths_by_hand(layout, 600, {"a": 2.0}) == {"a": 40, "b": 20}
    assert widths_by_hand(layout, 600, {}) == uniform_widths(layout, 600)
    # A place that is full leaves the rest to the other.
    assert widths_by_hand(layout, 1200, {"a": 10.0}) == {"a": 100, "b": 20}
