"""What the ranks of the loop's tests run: a job's loop without Ray."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from raysparse.callbacks import CheckpointConfig, Checkpointing, History, build_callback
from raysparse.config import Tree
from raysparse.data.dataset import Dataset
from raysparse.data.selection import select_days
from raysparse.job import TrainJob, check_train_job
from raysparse.launch.arms import ArmBuilder
from raysparse.launch.task import stream_of, task_of
from raysparse.train.arm import TRAINED
from raysparse.train.callback import Callback
from raysparse.train.checkpoint import CheckpointFolder, restore
from raysparse.train.loop import fit
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import TrainState

TIMES = ("samples_per_s", "score_samples_per_s", "train_seconds")


class StopError(Exception):
    """Ends a run in the middle, as a kill would."""


class StopAfter(Callback):
    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps

    def step_end(self, state: TrainState) -> None:
        if state.position.num_steps == self._num_steps:
            raise StopError


class SaveAt(Callback):
    """Asks for a save after the given step, as rank 0's clock would."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps

    def step_end(self, state: TrainState) -> None:
        if state.is_rank_0 and state.position.num_steps == self._num_steps:
            state.save_requested = True


def job_of(data: str, run_folder: str, /, **changes: Any) -> TrainJob:
    tree = {
        "kind": "train",
        "name": "test",
        "run_folder": run_folder,
        "warm_up_days": 1,
        "data": {"path": data, "batch_size": 64},
        "model": {"kind": "dlrm", "embedding_dim": 4, "bottom": [8], "top": [8]},
        "optimizer": {"sparse": {"kind": "rowwise_adagrad", "learning_rate": 0.1}, "dense": {"learning_rate": 0.01}},
        "callbacks": [{"kind": "frozen_arm", "after_days": 2}],
        **changes,
    }
    return check_train_job(tree, "test")


def run_job(job: TrainJob, extra: Sequence[Callback] = (), stop: bool = False) -> TrainState:
    """Run, or go on with, a job on the ranks that are there."""
    dataset = Dataset.open(job.data.path)
    builder = ArmBuilder(job, dataset, torch.device("cpu"), dist.get_world_size())
    state = TrainState(
        days=select_days(dataset, job.data.first_day, job.data.last_day, job.data.epochs),
        stream=stream_of(job, dataset, dist.get_rank(), dist.get_world_size()),
        arms=[builder(TRAINED, trains=True)],
        make_arm=builder,
        task=task_of(job, dataset, torch.device("cpu")),
        seed=job.seed,
        device=torch.device("cpu"),
    )
    folder = RunFolder(job.run_folder)
    checkpoints = CheckpointFolder(folder)
    listed = [build_callback(config, job.seed, job.model, dataset.schema) for config in job.callbacks]
    callbacks: list[Callback] = [*listed, History(folder)]
    config = CheckpointConfig(every_minutes=1000.0, keep=2)
    callbacks = [*callbacks, Checkpointing(checkpoints, config, callbacks, lambda url, state: None), *extra]
    name = checkpoints.latest(lambda text: None)
    if name is not None:
        restore(checkpoints, name, state, callbacks)
    try:
        fit(state, callbacks, job.optimizer.schedule, job.warm_up_days)
    except StopError:
        assert stop
    return state


def run_whole(data: str, run_folder: str, changes: Tree | None = None) -> None:
    run_job(job_of(data, run_folder, **(changes or {})))


def run_until(data: str, run_folder: str, save_at: int, stop_at: int, changes: Tree | None = None) -> None:
    run_job(job_of(data, run_folder, **(changes or {})), [SaveAt(save_at), StopAfter(stop_at)], stop=True)


def history(run_folder: Path) -> list[dict[str, Any]]:
    """The history without what the clock decides."""
    lines = (run_folder / "history.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]
