"""Keeps looked-up features of some rows when a supernet's training ends, so that trials need no tables."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, cast

import torch
import torch.distributed as dist
from pydantic import Field

from raysparse.config import Config
from raysparse.data.dataset import Day
from raysparse.errors import ConfigError
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.supernet import NASRecSupernet
from raysparse.search.feature_cache import PARTS, CacheWriter, Part, Rows
from raysparse.sharding.model import ShardedModel
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class FeatureCacheConfig(Config):
    """What the trials of a search read."""

    kind: Literal["feature_cache"] = "feature_cache"
    folder: str = Field(min_length=1)
    """Where the cache is written, a folder that all machines reach."""
    tuning_rows: int = Field(default=65_536, ge=0)
    """Rows of the run's last days on which a trial tunes the head."""
    validation_days: int = Field(default=1, ge=1)
    """Days after the run's last one on which a trial is scored."""
    validation_rows: int | None = Field(default=None, ge=1)
    """Rows of them, at most; null: all."""


class FeatureCaching(Callback):
    """Writes the cache of a supernet after its last day. Every rank."""

    def __init__(self, config: FeatureCacheConfig, space: CTRSpaceConfig) -> None:
        self._config = config
        self._space = space

    def fit_start(self, state: TrainState) -> None:
        """Refuse a run that leaves no days to be scored on."""
        self._validation_days(state)

    def fit_end(self, state: TrainState) -> None:
        """Look up and write; all ranks together."""
        writer = CacheWriter(self._config.folder, state.stream.rank)
        if state.is_rank_0:
            writer.clear()
        dist.barrier()
        limits: dict[Part, int | None] = {
            "tuning": self._config.tuning_rows,
            "validation": self._config.validation_rows,
        }
        read: dict[Part, list[Day]] = {
            "tuning": _first_days(reversed(state.days), limits["tuning"]),
            "validation": _first_days(self._validation_days(state), limits["validation"]),
        }
        for part in PARTS:
            writer.write_rows(part, _look_up(state, read[part], limits[part]))
        dist.barrier()
        if state.is_rank_0:
            days = {part: tuple(day.day for day in read[part]) for part in PARTS}
            network = _supernet(state).network
            sizes = (network.shape.num_dense, network.shape.num_features)
            writer.finish(dict(network.state_dict()), self._space, sizes, days)

    def _validation_days(self, state: TrainState) -> Sequence[Day]:
        days = state.stream.dataset.days
        first = days.index(state.days[-1]) + 1
        found = days[first : first + self._config.validation_days]
        if len(found) < self._config.validation_days:
            raise ConfigError(
                f"validation_days of the callback feature_cache: found {self._config.validation_days}; after the "
                f"run's last day, {state.days[-1].day}, the data set has {len(found)} more"
            )
        return found


def _first_days(days: Iterable[Day], num_rows: int | None) -> list[Day]:
    """The first days that hold so many rows together, or all."""
    taken: list[Day] = []
    for day in days:
        if num_rows is not None and sum(before.rows for before in taken) >= num_rows:
            break
        taken.append(day)
    return taken


@torch.no_grad()
def _look_up(state: TrainState, days: Sequence[Day], limit: int | None) -> Iterator[Rows]:
    """Yield this rank's rows of the days in order, until all ranks together have `limit`."""
    model = cast(ShardedModel, state.trained.model)
    done = 0
    for day in days:
        for batch in state.stream.batches(day):
            if limit is not None and done >= limit:
                return
            batch = batch.to(state.device)
            pooled = model.look_up(batch)
            num_rows = int(batch.weights.sum())
            first = done + _rows_before(num_rows, state)
            if limit is not None:
                num_rows = max(0, min(num_rows, limit - first))
            # Padding comes last.
            dense, pooled, labels = (column[:num_rows].cpu() for column in (batch.dense, pooled, batch.labels))
            yield Rows(dense, pooled, labels, torch.arange(first, first + num_rows))
            done += batch.num_rows


def _rows_before(num_rows: int, state: TrainState) -> int:
    """Rows of a batch on the ranks before this one; all ranks together."""
    stream = state.stream
    counts = [torch.zeros(1, dtype=torch.int64, device=state.device) for _ in range(stream.world_size)]
    dist.all_gather(counts, torch.tensor([num_rows], device=state.device))
    return sum(int(count) for count in counts[: stream.rank])


def _supernet(state: TrainState) -> NASRecSupernet:
    return cast(NASRecSupernet, state.trained.model.head)
