"""The job: one YAML file, checked as a whole before anything starts."""

from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import Field

from raysparse.config import Tree, check, load_tree
from raysparse.errors import ConfigError
from raysparse.job.resumption import refuse_changes
from raysparse.job.search import SearchJob
from raysparse.job.train import DataConfig, OptimizerConfig, ScalingConfig, StartFromConfig, TrainJob
from raysparse.job.tune import ASHAConfig, TuneJob

Job = Annotated[TrainJob | SearchJob | TuneJob, Field(discriminator="kind")]
"""A union over the kinds of job."""

J = TypeVar("J", TrainJob, SearchJob, TuneJob)

JOB_KINDS: dict[str, type[TrainJob | SearchJob | TuneJob]] = {"train": TrainJob, "search": SearchJob, "tune": TuneJob}


def load_job(path: str | Path, overrides: tuple[str, ...] = ()) -> TrainJob | SearchJob | TuneJob:
    """Read and check a job file; ConfigError lists all its faults."""
    return check_job(load_tree(path, overrides, tuple(JOB_KINDS.values())), str(path))


def check_job(tree: Tree, origin: str) -> TrainJob | SearchJob | TuneJob:
    """Check a job that was read already."""
    kind = tree.get("kind")
    if kind not in JOB_KINDS:
        raise ConfigError(f"{origin}: kind: found {kind!r}; allowed: {', '.join(JOB_KINDS)}")
    return check(JOB_KINDS[kind], tree, origin)


def load_train_job(path: str | Path, overrides: tuple[str, ...] = ()) -> TrainJob:
    """Read and check the file of a train job."""
    return require_kind(TrainJob, load_job(path, overrides), str(path))


def check_train_job(tree: Tree, origin: str) -> TrainJob:
    """Check a train job that was read already."""
    return require_kind(TrainJob, check_job(tree, origin), origin)


def require_kind(kind: type[J], job: TrainJob | SearchJob | TuneJob, origin: str) -> J:
    """Return the job; ConfigError where it is one of another kind."""
    if not isinstance(job, kind):
        wanted = next(name for name, known in JOB_KINDS.items() if known is kind)
        raise ConfigError(
            f"{origin}: kind: found {job.kind!r}; allowed: {wanted}. `raysparse {job.kind}` runs a job of that kind"
        )
    return job


def dump_job(job: TrainJob | SearchJob | TuneJob) -> str:
    """The resolved job as YAML, every key given."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)


__all__ = [
    "JOB_KINDS",
    "ASHAConfig",
    "DataConfig",
    "Job",
    "OptimizerConfig",
    "ScalingConfig",
    "SearchJob",
    "StartFromConfig",
    "TrainJob",
    "TuneJob",
    "check_job",
    "check_train_job",
    "dump_job",
    "load_job",
    "load_train_job",
    "refuse_changes",
    "require_kind",
]
