import pytest
import torch
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_inference import IntNBitTableBatchedEmbeddingBagsCodegen
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import embedding_bag

from raysparse.sparsity.rows import (
    RowBudget,
    RowPart,
    RowUtility,
    array_bytes,
    choose_rows,
    compact,
    hash_bytes,
    index_remapping,
)

CPU = torch.device("cpu")


def choose(
    utilities: list[list[float]], budget: RowBudget, kept: list[Tensor] | None = None, bytes_per_row: int = 1
) -> list[list[bool]]:
    parts: list[RowPart] = []
    first = 0
    for table, values in enumerate(utilities):
        last = torch.ones(len(values), dtype=torch.bool) if kept is None else kept[table]
        parts.append(RowPart(table, first, torch.tensor(values), last, bytes_per_row))
        first += len(values)
    return [chosen.tolist() for chosen in choose_rows(parts, len(utilities), budget)]


def test_utility_is_accesses_times_gradient_norm_and_decays():
    utility = RowUtility.zeros(3, CPU)
    # Row 0: 4 accesses with gradients of norm 3; row 1: one of norm 3; row 2: none.
    utility.update(torch.tensor([4, 1, 0]), torch.tensor([36.0, 9.0, 0.0]), decay=0.5)
    torch.testing.assert_close(utility.value(), torch.tensor([12.0, 3.0, 0.0]))
    utility.update(torch.tensor([0, 1, 2]), torch.tensor([0.0, 9.0, 2.0]), decay=0.5)
    torch.testing.assert_close(utility.value(), torch.tensor([6.0, 1.5 * 3.0, 2.0]))


def test_one_budget_for_all_tables_keeps_the_best_rows_of_any():
    assert choose([[5.0, 1.0, 4.0], [0.5, 6.0]], RowBudget(3, floor_rows=0)) == [[True, False, True], [False, True]]


def test_each_table_keeps_its_floor_even_beyond_the_budget():
    assert choose([[5.0, 4.0], [0.1, 0.2]], RowBudget(2)) == [[True, False], [False, True]]
    assert choose([[5.0, 4.0], [0.1, 0.2]], RowBudget(0)) == [[True, False], [False, True]]


def test_what_counts_is_the_utility_per_byte():
    rows = torch.ones(1, dtype=torch.bool)
    wide = RowPart(0, 0, torch.tensor([3.0]), rows, bytes_per_row=4)
    narrow = RowPart(1, 1, torch.tensor([2.0]), rows, bytes_per_row=1)
    assert [bool(kept) for kept in choose_rows([wide, narrow], 2, RowBudget(4, floor_rows=0))] == [False, True]


def test_a_full_budget_keeps_everything_and_rows_of_no_utility_fill_what_is_left():
    assert choose([[0.0, 2.0], [0.0, 0.0]], RowBudget(4)) == [[True, True], [True, True]]
    assert choose([[0.0, 2.0], [0.0, 0.0]], RowBudget(3)) == [[True, True], [True, False]]


def test_rows_do_not_flap_within_the_hysteresis():
    kept = [torch.tensor([True, False])]
    assert choose([[1.0, 1.05]], RowBudget(1, hysteresis=0.1), kept) == [[True, False]]
    assert choose([[1.0, 1.15]], RowBudget(1, hysteresis=0.1), kept) == [[False, True]]
    # Among equals the kept one stays.
    assert choose([[1.0, 1.0]], RowBudget(1), [torch.tensor([False, True])]) == [[False, True]]


@given(st.lists(st.sampled_from([0.0, 1e-30, 0.3, 0.30000001, 1.0, 7.5, 1e30]), min_size=1, max_size=40), st.data())
def test_the_choice_is_that_of_a_sort_however_rows_are_cut(values: list[float], data: st.DataObject):
    kept = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    num_kept = data.draw(st.integers(0, len(values)))
    cut = data.draw(st.integers(0, len(values)))
    utility, last = torch.tensor(values), torch.tensor(kept)
    order = sorted(range(len(values)), key=lambda row: (-utility[row].item(), not kept[row], row))
    expected = torch.zeros(len(values), dtype=torch.bool)
    expected[order[:num_kept]] = True
    budget = RowBudget(8 * num_kept + 7, floor_rows=0)
    whole = choose_rows([RowPart(0, 0, utility, last, 8)], 1, budget)[0]
    parts = [RowPart(0, cut, utility[cut:], last[cut:], 8), RowPart(0, 0, utility[:cut], last[:cut], 8)]
    second, first = choose_rows(parts, 1, budget)
    assert torch.equal(whole, expected)
    assert torch.equal(torch.cat([first, second]), expected)


def test_rows_that_others_count_follow_the_same_threshold():
    utility, rows = torch.tensor([3.0, 1.0, 2.0]), torch.ones(3, dtype=torch.bool)
    counted, copy = RowPart(0, 0, utility, rows, 4), RowPart(0, 0, utility, rows, 4, counted=False)
    for kept in choose_rows([copy, counted], 1, RowBudget(8)):
        assert kept.tolist() == [True, False, True]


def test_remapping_numbers_the_kept_rows():
    remapping = index_remapping(torch.tensor([False, True, True, False, True]))
    assert remapping.dtype == torch.int32
    assert remapping.tolist() == [-1, 0, 1, -1, 2]


@pytest.mark.parametrize("as_array", [True, False])
def test_fbgemm_reads_from_the_compact_table_what_the_zeroed_one_holds(as_array: bool):
    generator = torch.Generator().manual_seed(3)
    dim, bags = 8, 16
    weights = [torch.randn(rows, dim, generator=generator) for rows in (40, 25)]
    kept = [torch.rand(len(weight), generator=generator) < 0.3 for weight in weights]
    lengths = torch.randint(0, 4, (2 * bags,), generator=generator)
    ids = [
        torch.randint(0, len(weight), (int(part.sum()),), generator=generator)
        for weight, part in zip(weights, lengths.split(bags), strict=True)
    ]
    compacted = [compact(weight, rows) for weight, rows in zip(weights, kept, strict=True)]
    served = IntNBitTableBatchedEmbeddingBagsCodegen(
        [
            (str(number), len(table), dim, SparseType.FP32, EmbeddingLocation.HOST)
            for number, (table, _) in enumerate(compacted)
        ],
        index_remapping=[remapping for _, remapping in compacted],
        use_array_for_index_remapping=as_array,
        device="cpu",
        output_dtype=SparseType.FP32,
    )
    served.initialize_weights()
    for (target, _), (table, _) in zip(served.split_embedding_weights(), compacted, strict=True):
        target.view(torch.float32)[:, :dim].copy_(table)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    found = served(torch.cat(ids).int(), offsets.int())
    expected = [
        embedding_bag(rows, weight * mask.unsqueeze(1), part.cumsum(0) - part, mode="sum")
        for rows, weight, mask, part in zip(ids, weights, kept, lengths.split(bags), strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(expected, dim=1))
    # The remapping did something: the whole table gives something else.
    assert not torch.allclose(
        found[:, :dim], embedding_bag(ids[0], weights[0], lengths[:bags].cumsum(0) - lengths[:bags], mode="sum")
    )


def test_the_hash_is_smaller_than_the_array_below_a_quarter():
    assert array_bytes(1_000_000) == 4_000_000
    assert hash_bytes(100_000) == pytest.approx(1_600_000, rel=1e-3)
    assert hash_bytes(1) == 256
    assert hash_bytes(249_000) < array_bytes(1_000_000) < hash_bytes(251_000)
