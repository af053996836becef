"""What the ranks of the callbacks' tests run."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raysparse.callbacks import CheckpointConfig, Checkpointing, History
from raysparse.callbacks.row_pruning import RowPruning, RowPruningConfig
from raysparse.data.dataset import Dataset
from raysparse.data.stream import DayStream
from raysparse.job import TrainJob
from raysparse.launch.arms import ArmBuilder
from raysparse.sharding.model import ShardedModel
from raysparse.train.arm import TRAINED
from raysparse.train.callback import Callback
from raysparse.train.checkpoint import CheckpointFolder, restore
from raysparse.train.click import ClickTask
from raysparse.train.loop import fit
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import TrainState
from tests.train.ranks import SaveAt, StopAfter, StopError, job_of


def model_of(state: TrainState) -> ShardedModel:
    model = state.arms[0].model
    assert isinstance(model, ShardedModel)
    return model


def pieces(state: TrainState, name: str) -> dict[str, list[tuple[int, Tensor]]]:
    """This rank's parts of a tensor of rows, by table, with their first rows."""
    tensors = model_of(state).tables.extras
    return {
        key.removesuffix(f"/{name}"): [(piece.offsets[0], piece.tensor.clone()) for piece in tensor.pieces]
        for key, tensor in tensors.items()
        if key.endswith(f"/{name}")
    }


class Watch(Callback):
    """Comes after the pruning: pruned rows are zero wherever someone could read them, and kept ones learn."""

    def __init__(self) -> None:
        self.kept: list[dict[str, list[tuple[int, Tensor]]]] = []
        self.steps_with_pruned_rows = 0

    def _look(self, state: TrainState) -> None:
        kept = pieces(state, "kept")
        for shard in model_of(state).tables.shards:
            for first, rows in kept[shard.table]:
                if first == shard.first_row:
                    assert not shard.weight[~rows].any(), f"{shard.table} has pruned rows that are not zero"
                    self.steps_with_pruned_rows += bool((~rows).any())

    def day_start(self, state: TrainState) -> None:
        self._look(state)

    def step_end(self, state: TrainState) -> None:
        self._look(state)

    def day_end(self, state: TrainState) -> None:
        self._look(state)
        self.kept.append(pieces(state, "kept"))


def row_job(data: str, folder: str, changes: dict[str, Any]) -> TrainJob:
    model = {"kind": "dlrm", "embedding_dim": 8, "bottom": [8], "top": [8]}  # of two column shards
    return job_of(data, folder, callbacks=[], model=model, **changes)


def state_of(job: TrainJob) -> TrainState:
    """This rank's, before the first day."""
    dataset = Dataset.open(job.data.path)
    builder = ArmBuilder(job, dataset, torch.device("cpu"), dist.get_world_size())
    return TrainState(
        days=dataset.days,
        stream=DayStream(dataset, job.data, job.seed, dist.get_rank(), dist.get_world_size()),
        arms=[builder(TRAINED, trains=True)],
        make_arm=builder,
        task=ClickTask(torch.device("cpu")),
        seed=job.seed,
        device=torch.device("cpu"),
    )


def run_pruned(data: str, folder: str, changes: dict[str, Any], save_at: int = 0, stop_at: int = 0) -> None:
    """Run, or go on with, a job that prunes rows, and write what was kept on each day, and what is learned."""
    job = row_job(data, folder, changes)
    state = state_of(job)
    run_folder = RunFolder(folder)
    checkpoints = CheckpointFolder(run_folder)
    watch = Watch()
    callbacks: list[Callback] = [RowPruning(RowPruningConfig(budget=0.2, decay=0.5)), watch, History(run_folder)]
    config = CheckpointConfig(every_minutes=1000.0)
    saving = Checkpointing(checkpoints, config, callbacks, lambda url, state: None)
    name = checkpoints.latest(lambda text: None)
    if name is not None:
        restore(checkpoints, name, state, callbacks)
    try:
        fit(state, [*callbacks, saving, SaveAt(save_at), StopAfter(stop_at)], job.optimizer.schedule, job.warm_up_days)
    except StopError:
        return
    holds = any(model_of(state).tables.shards)
    assert watch.steps_with_pruned_rows > 0 or not holds
    accesses = pieces(state, "utility_accesses")
    path = Path(folder) / f"rows-{dist.get_rank()}.pt"
    torch.save({"kept": watch.kept, "accesses": accesses}, path)


def run_all(data: str, folder: str, kinds: list[str]) -> None:
    for kind in kinds:
        run_pruned(data, f"{folder}/{kind}", {"sharding": {"default": kind}})


def join(parts: list[dict[str, list[tuple[int, Tensor]]]]) -> dict[str, Tensor]:
    """Put the ranks' parts of tensors together; parts that several ranks hold have to be equal."""
    joined: dict[str, dict[int, Tensor]] = {}
    for rank in parts:
        for table, ranges in rank.items():
            for first, rows in ranges:
                assert torch.equal(joined.setdefault(table, {}).setdefault(first, rows), rows)
    return {table: torch.cat([ranges[first] for first in sorted(ranges)]) for table, ranges in joined.items()}


def read_rows(folder: Path) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Per day which rows of which table were kept, and the decayed accesses at the end."""
    ranks = [torch.load(path) for path in sorted(folder.glob("rows-*.pt"))]
    days = [join(list(day)) for day in zip(*(rank["kept"] for rank in ranks), strict=True)]
    return days, join([rank["accesses"] for rank in ranks])
