"""What the ranks of the tests of ranks run."""

import torch
import torch.distributed as dist

from raysparse.config import check
from raysparse.data.schema import ITEM_TABLE, sequence_schema
from raysparse.job import OptimizerConfig
from raysparse.models import build_model
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.sharding import item_ranks
from raysparse.sharding.item_ranks import Queries, rank_targets
from raysparse.sharding.plan import ShardingConfig, agree_topology, build_sharder, make_plan
from raysparse.sharding.sequence_model import ShardedSequenceModel

NUM_ITEMS, WIDTH, COUNT = 57, 8, 20
CPU = torch.device("cpu")


def build(sharding: str) -> ShardedSequenceModel:
    """A model whose rows are whole numbers, so that scores are exact and some are the same."""
    optimizers = check(OptimizerConfig, {"sparse": {"kind": "sgd"}}, "test")
    model = build_model(SASRecConfig(embedding_dim=WIDTH), sequence_schema(NUM_ITEMS), 1)
    sharder = build_sharder(model, optimizers.sparse)
    config = ShardingConfig.model_validate({"default": sharding})
    plan = make_plan(model, sharder, config, agree_topology(dist.get_world_size(), CPU, config))
    sharded = ShardedSequenceModel(model, plan, sharder, CPU, (optimizers.sparse, optimizers.dense))
    rows = rows_of_table()
    for shard in sharded.tables.shards:
        assert shard.table == ITEM_TABLE
        last_row, last_column = shard.first_row + len(shard.weight), shard.first_column + shard.weight.shape[1]
        shard.weight.copy_(rows[shard.first_row : last_row, shard.first_column : last_column])
    return sharded


def rows_of_table() -> torch.Tensor:
    return torch.randint(-2, 3, (NUM_ITEMS + 1, WIDTH), generator=torch.Generator().manual_seed(1)).float()


def queries() -> Queries:
    generator = torch.Generator().manual_seed(2)
    encoded = torch.randint(-2, 3, (COUNT, WIDTH), generator=generator).float()
    targets = torch.randint(1, NUM_ITEMS + 1, (COUNT,), generator=generator)
    seen_by = torch.arange(COUNT).repeat_interleave(5)
    seen = torch.randint(1, NUM_ITEMS + 1, (5 * COUNT,), generator=generator)
    kept = seen != targets[seen_by]
    samples = torch.randint(0, NUM_ITEMS + 1, (COUNT, 12), generator=generator)
    samples[samples == targets.unsqueeze(1)] = 0
    return Queries(encoded, targets, seen[kept], seen_by[kept], {"some": samples})


def expected() -> tuple[list[float], list[float]]:
    """Ranks among all and among the sample, one comparison after the other."""
    rows, asked = rows_of_table(), queries()
    among_all: list[float] = []
    among_some: list[float] = []
    for number in range(COUNT):
        scores = rows @ asked.encoded[number]
        own = float(scores[asked.targets[number]])
        seen = set(asked.seen[asked.seen_by == number].tolist())
        others = [item for item in range(1, NUM_ITEMS + 1) if item not in seen and item != int(asked.targets[number])]
        among_all.append(_standing([float(scores[item]) for item in others], own))
        some = [int(item) for item in asked.samples["some"][number] if item > 0]
        among_some.append(_standing([float(scores[item]) for item in some], own))
    return among_all, among_some


def _standing(others: list[float], own: float) -> float:
    return sum(score > own for score in others) + 0.5 * sum(score == own for score in others)


def check_ranks(shardings: tuple[str, ...], targets_at_a_time: int, rows_at_a_time: int) -> None:
    """Compare what the ranks find together with one comparison after the other, on each of them."""
    item_ranks._TARGETS_AT_A_TIME, item_ranks._ROWS_AT_A_TIME = targets_at_a_time, rows_at_a_time
    for sharding in shardings:
        ranks, sampled = rank_targets(build(sharding).tables, queries())
        assert (ranks.tolist(), sampled["some"].tolist()) == expected(), sharding
