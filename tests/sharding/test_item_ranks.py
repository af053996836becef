import math
from collections.abc import Iterator

import pytest
import torch

from raysparse.sharding import item_ranks
from raysparse.sharding.item_ranks import Queries, RankedTables, rank_targets
from tests.gloo import run_ranks
from tests.sharding.item_ranking import COUNT, NUM_ITEMS, WIDTH, build, check_ranks, expected, queries

SHARDINGS = ("table_wise", "row_wise", "column_wise")


def test_ranks_are_those_of_comparing_one_by_one(one_rank: None):
    among_all, _ = expected()
    assert len(set(among_all)) > COUNT // 2
    assert any(rank % 1 for rank in among_all)
    check_ranks(SHARDINGS, 1024, 16_384)


@pytest.mark.multi
@pytest.mark.parametrize("world_size", [2, 3])
def test_every_rank_finds_the_same_under_every_plan(world_size: int):
    run_ranks(world_size, check_ranks, SHARDINGS, 6, 7)


def test_a_model_that_scores_all_alike_gains_nothing(one_rank: None):
    none = torch.zeros(0, dtype=torch.int64)
    ranks, _ = rank_targets(
        build("table_wise").tables, Queries(torch.zeros(1, WIDTH), torch.tensor([7]), none, none, {})
    )
    assert ranks.tolist() == [(NUM_ITEMS - 1) / 2]


def test_scores_that_differ_by_rounding_alone_are_the_same(one_rank: None):
    model = build("table_wise")
    row = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))
    model.tables.shards[0].weight.copy_(row.expand(NUM_ITEMS + 1, WIDTH))  # what a model comes to that has collapsed
    none = torch.zeros(0, dtype=torch.int64)
    encoded = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(4))
    ranks, _ = rank_targets(model.tables, Queries(encoded, torch.arange(1, 6), none, none, {}))
    assert ranks.tolist() == [(NUM_ITEMS - 1) / 2] * 5


def test_products_have_all_their_digits_whatever_the_job_says(one_rank: None, monkeypatch: pytest.MonkeyPatch):
    taken: list[str] = []
    blocks = item_ranks._blocks

    def noted(tables: RankedTables, encoded: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        taken.append(torch.get_float32_matmul_precision())
        return blocks(tables, encoded)

    monkeypatch.setattr(item_ranks, "_blocks", noted)
    torch.set_float32_matmul_precision("medium")
    try:
        rank_targets(build("table_wise").tables, queries())
        assert (taken[0], torch.get_float32_matmul_precision()) == ("highest", "medium")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_score_that_is_no_number_has_no_rank(one_rank: None):
    none = torch.zeros(0, dtype=torch.int64)
    encoded = torch.full((1, WIDTH), torch.nan)
    ranks, _ = rank_targets(build("table_wise").tables, Queries(encoded, torch.tensor([7]), none, none, {}))
    assert math.isnan(ranks[0])
