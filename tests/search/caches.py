"""Caches of drawn rows and weights, without a training run."""

from pathlib import Path

import torch

from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.shape import supernet_shape
from raysparse.models.nasrec.supernet import shape_of
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.feature_cache import PARTS, CacheWriter, FeatureCache, Rows

SPACE = CTRSpaceConfig(menu="wide", num_blocks=3, dense_widths=(4, 8), token_counts=(4, 8), embedding_dim=8)
SCHEMA = Schema(
    dense=(DenseFeature(name="x"), DenseFeature(name="y")),
    ids=tuple(IdFeature(name=name, rows=10) for name in ("a", "b", "c")),
)
ROWS = {"tuning": 120, "validation": 90}


def space_of(config: CTRSpaceConfig = SPACE) -> CTRSpace:
    return CTRSpace(config, SCHEMA)


def draw_network(config: CTRSpaceConfig = SPACE) -> NASRecNetwork:
    torch.manual_seed(1)
    network = NASRecNetwork(supernet_shape(shape_of(config, 2, 3)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


def draw_rows(count: int, seed: int) -> Rows:
    """Rows whose labels follow their dense features."""
    generator = torch.Generator().manual_seed(seed)
    dense, pooled = torch.randn(count, 2, generator=generator), torch.randn(count, 3, 8, generator=generator)
    labels = (dense[:, 0] + 0.3 * torch.randn(count, generator=generator) > 0).float()
    return Rows(dense, pooled, labels, torch.arange(count))


def part_of(rows: Rows, kept: torch.Tensor) -> Rows:
    return Rows(rows.dense[kept], rows.pooled[kept], rows.labels[kept], rows.numbers[kept])


def write_cache(
    folder: Path | str, num_ranks: int = 1, same_rows: bool = False, config: CTRSpaceConfig = SPACE
) -> FeatureCache:
    """Write a cache as so many ranks would: 10 rows of a batch fall to them in turn; with `same_rows` in both parts."""
    writers = [CacheWriter(str(folder), rank) for rank in range(num_ranks)]
    writers[0].clear()
    for seed, part in enumerate(PARTS):
        rows = draw_rows(ROWS["tuning" if same_rows else part], 0 if same_rows else seed)
        for writer in writers:
            batches = rows.numbers.split(10)
            mine = [part_of(rows, batch.tensor_split(num_ranks)[writer._rank]) for batch in batches]
            writer.write_rows(part, iter(mine))
    days = {"tuning": ("001",), "validation": ("002",)}
    writers[0].finish(dict(draw_network(config).state_dict()), config, (2, 3), days)
    return FeatureCache.open(str(folder))
