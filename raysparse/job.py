"""The job: one YAML file, checked as a whole before anything starts."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from raysparse.callbacks import CallbackConfig, CheckpointConfig, RowPruningConfig
from raysparse.config import Config, Tree, check, load_tree
from raysparse.data.sources import PrepareConfig
from raysparse.data.stream import StreamConfig
from raysparse.errors import ConfigError
from raysparse.models import ModelConfig
from raysparse.models.dlrm import DLRMConfig
from raysparse.sharding.optimizer import DenseOptimizerConfig, RowWiseAdagradConfig, SparseOptimizerConfig
from raysparse.sharding.plan import ShardingConfig
from raysparse.train.schedule import ScheduleConfig


class DataConfig(StreamConfig):
    """The data set and how it is read."""

    path: str = Field(min_length=1)
    """Folder or fsspec URL of a data set made by `raysparse prepare`; relative to where the command runs."""
    prepare: PrepareConfig | None = None
    """How to make the data set where `path` holds none; null: it has to be there."""
    first_day: str | None = None
    """First day of the stream, by name; null: the first there is."""
    last_day: str | None = None
    """Last day of the stream, by name; null: the last there is."""


class OptimizerConfig(Config):
    """How weights are learned."""

    sparse: SparseOptimizerConfig = RowWiseAdagradConfig()
    """Optimizer of the tables."""
    dense: DenseOptimizerConfig = DenseOptimizerConfig()
    """Optimizer of everything else."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Factor on the learning rates of both."""


class ScalingConfig(Config):
    """What the run takes of the cluster."""

    num_workers: int = Field(default=1, ge=1)
    """Ranks. On one machine without GPUs, one worker with all threads is the fastest."""
    threads_per_worker: int = Field(default=1, ge=1)
    """CPU cores that a worker reserves and computes with."""
    use_gpu: bool = False
    """Whether each worker takes a GPU; they then talk over NCCL instead of gloo."""
    max_restarts: int = Field(default=3, ge=0)
    """Restarts from the last checkpoint after a worker or its machine died, before the run fails."""


class TrainJob(Config):
    """A run that trains one model day by day."""

    kind: Literal["train"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, shown in its report."""
    run_folder: str = Field(min_length=1)
    """Folder or fsspec URL that receives everything the run leaves; on a cluster, one that all machines reach."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Draws the first weights and the order of the rows."""
    warm_up_days: int = Field(default=0, ge=0)
    """First days that are marked as warm-up in the history and left out of the means."""
    data: DataConfig
    model: ModelConfig = DLRMConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    sharding: ShardingConfig = ShardingConfig()
    scaling: ScalingConfig = ScalingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    callbacks: tuple[CallbackConfig, ...] = ()
    """Further callbacks, in the order in which they are called."""

    @model_validator(mode="after")
    def _distinct_arms(self) -> Self:
        arms = (callback for callback in self.callbacks if not isinstance(callback, RowPruningConfig))
        names = ["trained", *(callback.name for callback in arms)]
        if sum(isinstance(callback, RowPruningConfig) for callback in self.callbacks) > 1:
            raise ValueError("one callback of kind row_pruning, since all tables share its budget; found several")
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"arms (callbacks.*.name, and 'trained') of different names; {', '.join(double)} is twice")
        return self


Job = Annotated[TrainJob, Field(discriminator="kind")]
"""A union over the kinds of job."""

JOB_KINDS: dict[str, type[TrainJob]] = {"train": TrainJob}

RESUMABLE_CHANGES = ("scaling", "sharding", "checkpoint", "data.path", "data.prepare", "data.last_day", "run_folder")
"""Keys that may differ between a run and its resumption; all others decide what the numbers are."""


def load_job(path: str | Path, overrides: tuple[str, ...] = ()) -> TrainJob:
    """Read and check a job file; ConfigError lists all its faults."""
    return check_job(load_tree(path, overrides), str(path))


def check_job(tree: Tree, origin: str) -> TrainJob:
    """Check a job that was read already."""
    kind = tree.get("kind")
    if kind not in JOB_KINDS:
        raise ConfigError(f"{origin}: kind: found {kind!r}; allowed: {', '.join(JOB_KINDS)}")
    return check(JOB_KINDS[kind], tree, origin)


def dump_job(job: TrainJob) -> str:
    """The resolved job as YAML, every key given."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)


def refuse_changes(old: TrainJob, new: TrainJob) -> None:
    """Raise ConfigError where `new` differs from the run's own job in a key that may not change on resuming."""
    before, after = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    changed = [
        f"  {key}: {before.get(key)!r} in the run, {after.get(key)!r} in the job"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not any(key == allowed or key.startswith(allowed + ".") for allowed in RESUMABLE_CHANGES)
    ]
    if changed:
        raise ConfigError(
            "the job differs from the run that is to be resumed:\n" + "\n".join(changed) + "\n"
            f"Only {', '.join(RESUMABLE_CHANGES)} may change; undo the changes, or start anew with --fresh"
        )


def _flatten(tree: Tree, prefix: str = "") -> Tree:
    flat: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
