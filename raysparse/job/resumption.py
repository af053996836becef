"""What of a job may change between a run and its resumption."""

import posixpath
from typing import TypeVar

from raysparse.callbacks import FeatureCacheConfig, SequenceCacheConfig
from raysparse.config import Tree, differences
from raysparse.errors import ConfigError
from raysparse.job.search import SearchJob
from raysparse.job.train import TrainJob
from raysparse.job.tune import TuneJob

_Caching = FeatureCacheConfig | SequenceCacheConfig

J = TypeVar("J", TrainJob, SearchJob, TuneJob)

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


def refuse_changes(old: J, new: J) -> None:
    """Raise ConfigError where `new` differs from the run's own job in a key that may not change on resuming."""
    resumable = _resumable(new)
    if isinstance(old, TrainJob) and isinstance(new, TrainJob):
        old = _moved_along(old, new)
    changed = [
        f"  {key}: {before} in the run, {after} in the job"
        for key, before, after in differences(old.model_dump(mode="json"), new.model_dump(mode="json"))
        if not any(key == allowed or key.startswith(allowed + ".") for allowed in resumable)
    ]
    if changed:
        raise ConfigError(
            "the job differs from the run that is to be resumed:\n" + "\n".join(changed) + "\n"
            f"Only {', '.join(resumable)} may change; undo the changes, or start anew with --fresh"
        )


def _moved_along(old: TrainJob, new: TrainJob) -> TrainJob:
    """Return the old job with the places of the new one where both lie the same way from their run folders.

    A search's runs name its other folders: caches that they write, and where weights come from.
    """

    def is_same(place: str, other: str) -> bool:
        return posixpath.relpath(place, old.run_folder) == posixpath.relpath(other, new.run_folder)

    callbacks = list(old.callbacks)
    for number, (one, other) in enumerate(zip(old.callbacks, new.callbacks, strict=False)):
        if isinstance(one, _Caching) and isinstance(other, _Caching) and is_same(one.folder, other.folder):
            callbacks[number] = one.model_copy(update={"folder": other.folder})
    moved: Tree = {"callbacks": tuple(callbacks)}
    source, wanted = old.start_from, new.start_from
    if source is not None and wanted is not None and is_same(source.run_folder, wanted.run_folder):
        moved["start_from"] = source.model_copy(update={"run_folder": wanted.run_folder})
    return old.model_copy(update=moved)


def _resumable(job: TrainJob | SearchJob | TuneJob) -> tuple[str, ...]:
    if isinstance(job, TuneJob):
        return RESUMABLE_TUNE_CHANGES
    if isinstance(job, SearchJob):
        measured = not _MEASURED_WHERE_TRIALS_RUN.isdisjoint(job.objectives)
        return tuple(key for key in RESUMABLE_SEARCH_CHANGES if key != "trials" or not measured)
    if job.optimizer.schedule.decay_steps is None:
        return RESUMABLE_OVER_THE_SAME_DAYS
    return RESUMABLE_CHANGES
