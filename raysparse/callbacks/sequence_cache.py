"""Keeps the table of items and the shared weights when an elastic encoder's training ends."""

from typing import Literal, cast

import torch.distributed as dist
from pydantic import Field

from raysparse.callbacks.early_stop import BEST
from raysparse.config import Config
from raysparse.data.schema import ITEM_TABLE
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.supernet import SASRecSupernet
from raysparse.search.sequence_cache import SequenceCacheWriter
from raysparse.sharding.sequence_model import ShardedSequenceModel
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class SequenceCacheConfig(Config):
    """What the trials of a search read."""

    kind: Literal["sequence_cache"] = "sequence_cache"
    folder: str = Field(min_length=1)
    """Where the cache is written, a folder that all machines reach."""


class SequenceCaching(Callback):
    """Writes the cache after the last day, of the weights that early stopping has kept where it has. Every rank."""

    def __init__(self, config: SequenceCacheConfig, space: SASRecSpaceConfig) -> None:
        self._config = config
        self._space = space

    def fit_end(self, state: TrainState) -> None:
        """Write; all ranks together."""
        arm = state.arm(BEST) or state.trained
        model = cast(ShardedSequenceModel, arm.model)
        writer = SequenceCacheWriter(self._config.folder, state.stream.rank)
        if state.is_rank_0:
            writer.clear()
        dist.barrier()
        for shard in model.tables.shards:
            writer.write_shard(shard)
        dist.barrier()
        if state.is_rank_0:
            network = cast(SASRecSupernet, model.head).network
            writer.finish(network, self._space, model.tables.shapes[ITEM_TABLE])
