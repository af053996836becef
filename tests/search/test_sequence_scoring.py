import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysparse.data.batch import Batch
from raysparse.data.epoch_stream import EpochStream
from raysparse.data.schema import sequence_schema
from raysparse.data.selection import select_days
from raysparse.data.stream import StreamConfig
from raysparse.errors import CheckpointError
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.search.sasrec_space import SASRecSpace
from raysparse.search.sequence_cache import SequenceCache, SequenceCacheWriter
from raysparse.search.sequence_scoring import SequenceScorer
from raysparse.sharding.tables import TableShard
from raysparse.train.item_draws import ItemDraws
from raysparse.train.ranking import RankingConfig
from tests.data.sequence_sets import NUM_ITEMS, sequences, write_parts
from tests.models.sasrec.test_supernet import supernet_of

SPACE: dict[str, Any] = {"attentions": ["softmax"]}
DRAWS = ItemDraws(NUM_ITEMS, None, seed=1)


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    dataset = write_parts(tmp_path_factory.mktemp("data") / "set", sequences(50))
    stream = EpochStream(dataset, StreamConfig(batch_size=20), 1, 0, 1, None)
    return list(stream.scored_batches(select_days(dataset, None, None, 1)[0]))


def write_cache(folder: Path, boxes: int = 1) -> tuple[SequenceCache, torch.Tensor]:
    supernet = supernet_of(**SPACE)
    table = torch.randn(NUM_ITEMS + 1, 8, generator=torch.Generator().manual_seed(1))
    writers = [SequenceCacheWriter(str(folder), rank) for rank in range(boxes)]
    writers[0].clear()
    first = 0
    for writer, part in zip(writers, table.tensor_split(boxes), strict=True):
        writer.write_shard(TableShard("item", first, 0, part, {}))
        first += len(part)
    writers[0].finish(supernet.network, supernet.config.space, (NUM_ITEMS + 1, 8))
    return SequenceCache.open(str(folder)), table


def space_of(cache: SequenceCache, **changes: Any) -> SASRecSpace:
    return SASRecSpace(cache.manifest.space.model_copy(update=changes), sequence_schema(NUM_ITEMS))


def ndcg_by_hand(cache: SequenceCache, table: torch.Tensor, choice: SASRecConfig, histories: list[Batch]) -> float:
    """Encode one history after the other, and rank all items by their product with the last encoding."""
    supernet = cache.supernet(torch.device("cpu"))
    gains: list[float] = []
    rows = table[:, : choice.embedding_dim]
    for batch in histories:
        past, targets = batch.ids["history"].to_dense(), batch.ids["targets"].to_dense()
        for items, of_row, weight in zip(past, targets, batch.weights.tolist(), strict=True):
            if not weight:
                continue
            read = items.long()[-choice.max_length :]
            encoded = supernet.encode(choice, table[read], torch.tensor([0, len(read)]))[-1]
            scores = rows @ encoded
            target = int(of_row[0])
            scores[torch.tensor([item for item in {0, *items.long().tolist()} if item != target])] = -torch.inf
            rank = int((scores > scores[target]).sum())
            gains.append(1 / math.log2(rank + 2) if rank < 10 else 0.0)
    assert len(gains) == 50
    return float(np.mean(gains))


def test_a_score_is_the_ndcg_of_the_choice_alone(tmp_path: Path, histories: list[Batch]):
    cache, table = write_cache(tmp_path / "cache")
    space = space_of(cache)
    scorer = SequenceScorer(cache, space, RankingConfig(), DRAWS, histories)
    config = space.config
    for choice in (config.smallest, config.largest, config.network(8, 12, [1], [1], ["softmax"])):
        scores = scorer.score(choice)
        expected = ndcg_by_hand(cache, table, choice, histories)
        assert 1.0 - scores["1-ndcg@10"] == pytest.approx(expected, abs=1e-6)
        assert 0 < expected < 1
        assert scores["hr@10"] >= expected
        assert scores["macs"] == space.cost(choice).macs
        assert "latency_us" not in scores
    measured = scorer.score(config.smallest, ("latency_us", "energy_uj"))
    assert min(measured["latency_us"], measured["energy_uj"]) > 0
    assert measured["energy_is_proxy"] in (0.0, 1.0)


def test_how_ranks_cut_the_table_changes_nothing(tmp_path: Path):
    one, table = write_cache(tmp_path / "one")
    three, _ = write_cache(tmp_path / "three", boxes=3)
    assert one.items().equal(table)
    assert three.items().equal(table)
    assert one.manifest == three.manifest


def test_a_cache_that_is_not_whole_or_of_another_space_is_refused(tmp_path: Path, histories: list[Batch]):
    cache, _ = write_cache(tmp_path / "cache", boxes=2)
    other = space_of(cache, ffn_ratios=(1,))
    with pytest.raises(CheckpointError, match="belongs to another space than the job's"):
        SequenceScorer(cache, other, RankingConfig(), DRAWS, histories)
    # A budget chooses among the networks; the weights are the same.
    SequenceScorer(cache, space_of(cache, max_macs=10**6), RankingConfig(), DRAWS, histories)
    box = sorted((tmp_path / "cache" / "items").iterdir())[1]
    whole = box.read_bytes()
    box.write_bytes(whole[:40])
    with pytest.raises(CheckpointError, match=f"{box.name} is damaged"):
        cache.items()
    box.unlink()
    with pytest.raises(CheckpointError, match="holds a part of the table only"):
        cache.items()
    manifest = tmp_path / "cache" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "supernet": "0"}))
    with pytest.raises(CheckpointError, match="the cache belongs to another checkpoint"):
        SequenceCache.open(str(tmp_path / "cache"))


def test_the_space_keeps_its_kinds(tmp_path: Path):
    cache, _ = write_cache(tmp_path / "cache")
    assert isinstance(cache.manifest.space, SASRecSpaceConfig)
    assert cache.manifest.space == supernet_of(**SPACE).config.space
