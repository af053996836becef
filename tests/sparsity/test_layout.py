import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysparse.cost.record import cost_of
from raysparse.errors import ConfigError
from raysparse.sparsity.compaction import compact
from raysparse.sparsity.layout import Layout, Matrix, Side, open_masks, widths_of
from tests.sparsity.heads import CASES, head_layout, model_of, random_masks

# 5 inputs, of which 2 stay -> a (4) -> b (3 blocks of 2) -> 1, and 7 multiply-adds besides.
SMALL = Layout(
    sizes={"inputs": 3, "a": 4, "b": 3},
    floors={"inputs": 1, "a": 1, "b": 1},
    matrices=(
        Matrix(Side(0, "a", 1), Side(2, "inputs", 1)),
        Matrix(Side(0, "b", 2), Side(0, "a", 1)),
        Matrix(Side(1), Side(0, "b", 2)),
    ),
    other_macs=7,
)


def test_multiply_adds_follow_the_widths():
    assert SMALL.dense_macs == 7 + 4 * 5 + 6 * 4 + 6
    assert SMALL.macs({"inputs": 1, "a": 2, "b": 1}) == 7 + 2 * 3 + 2 * 2 + 2
    assert SMALL.least_macs == 7 + 3 + 2 + 2


def test_what_a_group_saves_follows_its_neighbours():
    assert SMALL.macs_per_group(SMALL.sizes) == {"inputs": 4, "a": 5 + 6, "b": 2 * 4 + 2}
    assert SMALL.macs_per_group({"inputs": 1, "a": 2, "b": 1}) == {"inputs": 2, "a": 3 + 2, "b": 2 * 2 + 2}


@pytest.mark.parametrize("case", CASES)
def test_what_a_group_saves_is_the_difference_of_two_heads(case: str):
    _, layout = head_layout(case)
    widths = widths_of(random_masks(layout, 1))
    for place, saved in layout.macs_per_group(widths).items():
        fewer = {**widths, place: widths[place] - 1}
        assert layout.macs(widths) - layout.macs(fewer) == saved


@pytest.mark.parametrize("case", CASES)
def test_a_dense_head_takes_what_is_counted(case: str):
    model, schema = model_of(case)
    _, layout = head_layout(case)
    assert layout.dense_macs == cost_of(model, schema).macs
    assert layout.other_macs >= 0
    assert widths_of(open_masks(layout)) == dict(layout.sizes)


@settings(max_examples=40)
@given(case=st.sampled_from(sorted(CASES)), seed=st.integers(0, 10_000))
def test_a_compacted_head_takes_what_the_layout_says(case: str, seed: int):
    model, schema = model_of(case)
    _, layout = head_layout(case)
    masks = random_masks(layout, seed)
    model.head = compact(model.head, masks)
    assert cost_of(model, schema).macs == layout.macs(widths_of(masks))


def test_only_what_no_group_changes_counts_as_other():
    # The products of 5 vectors of 4, both triangles, as they are computed.
    assert head_layout("dlrm")[1].other_macs == 5 * 5 * 4
    assert head_layout("deepfm")[1].other_macs == 0
    assert head_layout("dcn, full rank")[1].other_macs == 0


def test_floors_are_the_larger_of_number_and_share_and_never_above_the_size():
    _, layout = head_layout("dlrm", least_groups=3, least_share=0.5)
    assert layout.sizes == {"bottom.2": 6, "pairs": 10, "top.0.2": 8, "top.0.5": 5}
    assert layout.floors == {"bottom.2": 3, "pairs": 5, "top.0.2": 4, "top.0.5": 3}
    _, layout = head_layout("dlrm", least_groups=9)
    assert layout.floors == {"bottom.2": 6, "pairs": 9, "top.0.2": 8, "top.0.5": 5}


def test_a_budget_that_the_floors_exceed_is_refused_with_what_is_possible():
    assert SMALL.dense_macs == 57
    assert SMALL.budget_macs(0.5) == 28
    assert SMALL.budget_macs(14 / 57 + 1e-9) == 14
    with pytest.raises(ConfigError) as error:
        SMALL.budget_macs(0.2, "callbacks.0.budget")
    assert str(error.value) == (
        "callbacks.0.budget: found 0.2, which is 11 of the dense head's 57 multiply-adds; with every layer at its "
        "floor the model takes 14, so that at least 0.2456 is possible. Raise the budget or lower the floor"
    )


def test_masks_count_their_groups():
    assert widths_of({"a": torch.tensor([True, False, True]), "b": torch.tensor([False])}) == {"a": 2, "b": 0}


def test_wide_places_keep_whole_multiples_of_columns_or_all():
    _, layout = head_layout("dlrm", least_groups=3, multiple_of=2)
    # Of 6 and 5 groups a multiple of 2 would be too coarse.
    assert layout.multiples == {"bottom.2": 1, "pairs": 2, "top.0.2": 2, "top.0.5": 1}
    assert layout.floors == {"bottom.2": 3, "pairs": 4, "top.0.2": 4, "top.0.5": 3}
    assert [layout.at_most("top.0.2", width) for width in (8, 7.9, 5, 1)] == [8, 6, 4, 4]
    assert [layout.above("top.0.2", width) for width in (4, 5, 8)] == [6, 6, 8]
    # A field of the deep network's input is a block of 4 columns, a multiple of its own.
    assert set(head_layout("deepfm", multiple_of=4)[1].multiples.values()) == {1}
    assert head_layout("deepfm", multiple_of=2)[1].multiples["deep.0.2"] == 2
