"""The job: one YAML file, checked as a whole before anything starts."""

from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import Field

from raysparse.config import Tree, check, load_tree
from raysparse.errors import ConfigError
from raysparse.job.search import SearchJob
from raysparse.job.train import DataConfig, OptimizerConfig, ScalingConfig, StartFromConfig, TrainJob
from raysparse.job.tune import ASHAConfig, TuneJob

Job = Annotated[TrainJob | SearchJob | TuneJob, Field(discriminator="kind")]
"""A union over the kinds of job."""

J = TypeVar("J", TrainJob, SearchJob, TuneJob)

JOB_KINDS: dict[str, type[TrainJob | SearchJob | TuneJob]] = {"train": TrainJob, "search": SearchJob, "tune": TuneJob}

RESUMABLE_CHANGES = (
    *(f"scaling.{key}" for key in ("num_workers", "threads_per_worker", "use_gpu", "max_restarts")),
    *("sharding", "checkpoint", "data.path", "data.prepare", "data.last_day", "run_folder"),
)
"""Keys that may differ between a run and its resumption; all others decide what the numbers are."""

RESUMABLE_OVER_THE_SAME_DAYS = tuple(key for key in RESUMABLE_CHANGES if key != "data.last_day")
"""The same where all are compared over the same days, and for a decay that ends with them."""

RESUMABLE_SEARCH_CHANGES = (
    *RESUMABLE_OVER_THE_SAME_DAYS,
    "trials",
    "finalists.count",
    "finalists.rank_by",
    "finalists.budgets",
    "finalists.learning_rates",
    "finalists.num_parallel",
    "baselines",
)
"""The same for a search: who is trained alone may differ, since a run's numbers do not depend on the others; `trials`
may not where their scores are times or energy."""

_MEASURED_WHERE_TRIALS_RUN = {"latency_us", "energy_uj"}

RESUMABLE_TUNE_CHANGES = (
    "num_trials",
    "num_parallel",
    *(f"job.{key}" for key in RESUMABLE_OVER_THE_SAME_DAYS if key != "run_folder"),
    "run_folder",
)
"""The same for the job of a tune run, whose trials are all compared over the same days."""


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


def refuse_changes(old: J, new: J) -> None:
    """Raise ConfigError where `new` differs from the run's own job in a key that may not change on resuming."""
    resumable = _resumable(new)
    before, after = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    changed = [
        f"  {key}: {before.get(key)!r} in the run, {after.get(key)!r} in the job"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not any(key == allowed or key.startswith(allowed + ".") for allowed in resumable)
    ]
    if changed:
        raise ConfigError(
            "the job differs from the run that is to be resumed:\n" + "\n".join(changed) + "\n"
            f"Only {', '.join(resumable)} may change; undo the changes, or start anew with --fresh"
        )


def _resumable(job: TrainJob | SearchJob | TuneJob) -> tuple[str, ...]:
    if isinstance(job, TuneJob):
        return RESUMABLE_TUNE_CHANGES
    if isinstance(job, SearchJob):
        measured = not _MEASURED_WHERE_TRIALS_RUN.isdisjoint(job.objectives)
        return tuple(key for key in RESUMABLE_SEARCH_CHANGES if key != "trials" or not measured)
    if job.optimizer.schedule.decay_steps is None:
        return RESUMABLE_OVER_THE_SAME_DAYS
    return RESUMABLE_CHANGES


def _flatten(tree: Tree, prefix: str = "") -> Tree:
    flat: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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
