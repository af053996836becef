"""Runs a tune job on a Ray cluster, from the driver."""

import contextlib
import json
import shlex
import time
from collections.abc import Sequence
from importlib import metadata

import ray

from raysparse.config import Tree, parse_yaml
from raysparse.data.dataset import TEST
from raysparse.data.selection import select_days
from raysparse.errors import ConfigError, WorkerError
from raysparse.job import TrainJob, TuneJob, check_job, dump_job, refuse_changes, require_kind
from raysparse.launch.cluster import connect
from raysparse.launch.data import ensure_data
from raysparse.launch.run_facts import run_facts
from raysparse.launch.trainer import absolute
from raysparse.launch.tune_log import TrialRecord
from raysparse.launch.tune_trials import Trials, TrialSettings, TuneDisplay, build_scheduler, run_trials
from raysparse.launch.tune_values import as_overrides, build_proposer, check_values, first_values, with_all_keys
from raysparse.models import SequenceModelConfig
from raysparse.train.run_folder import SUMMARY, RunFolder, RunMode


def open_tune(job: TuneJob, mode: RunMode) -> tuple[TuneJob, RunFolder]:
    """Check all that the job's trials can come to, claim its run folder and write the resolved job there; driver.

    Returns the job with an absolute run folder. ConfigError where a trial's train job is refused, where optuna is
    asked for and not installed, where the folder exists and `mode` is `new` or holds something else, and where a
    resumed run was made by another job.
    """
    job = job.model_copy(update={"run_folder": absolute(job.run_folder)})
    check_values(job, build_proposer(job))
    folder = RunFolder(job.run_folder)
    folder.open(dump_job(job), mode, lambda text, origin: _refuse_changes(text, origin, job))
    return job, folder


def _refuse_changes(text: str, origin: str, job: TuneJob) -> None:
    old = require_kind(TuneJob, check_job(parse_yaml(text, origin), origin), origin)
    if old.space == job.space:
        # A key that one of them leaves out is no change where the other gives its default.
        values = first_values(job)
        old, job = with_all_keys(old, values), with_all_keys(job, values)
    refuse_changes(old, job)


def tune(job: TuneJob, folder: RunFolder, display: TuneDisplay) -> Tree:
    """Run a job that `open_tune` has given a folder, and return its summary; driver.

    What an earlier, killed process has done is taken over: trials that have ended as the log has them, others from
    their runs' last checkpoints. A trial that fails is written down with its error, and the others go on.
    """
    started = time.time()
    proposer = build_proposer(job)
    jobs = check_values(job, proposer)
    per_trial = max(one.scaling.num_workers * one.scaling.threads_per_worker for one in jobs)
    connect(job.num_parallel * per_trial)
    num_days = _prepare(job, jobs, display)
    _say_what_is_short(job, per_trial, display)
    trials = Trials(job, folder, proposer, display)
    build_scheduler(job.asha, trials.done(), num_days)
    if trials.done():
        display.message(f"{len(trials.done())} of {trials.total} trials are done already")
    settings = TrialSettings(
        metric=job.metric,
        last_days=job.last_days,
        num_days=num_days,
        num_parallel=job.num_parallel,
        max_restarts=max(one.scaling.max_restarts for one in jobs),
        asha=job.asha,
    )
    run_trials(trials, settings)
    summary = _summary(job, trials.done(), started)
    folder.write(SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def _prepare(job: TuneJob, jobs: Sequence[TrainJob], display: TuneDisplay) -> int:
    """Make the data sets that are not there, before trials would make them at the same time; most days of a trial."""
    num_days: list[int] = []
    seen: set[str] = set()
    for one in jobs:
        _check_metric(job, one)
        key = one.data.model_dump_json() + str(one.warm_up_days)
        if key in seen:
            continue
        seen.add(key)
        dataset = ensure_data(one.data, display, "job.data")
        days = select_days(dataset, one.data.first_day, one.data.last_day, one.data.epochs)
        num_days.append(len([day for day in days if day.day != TEST]) - one.warm_up_days)
    least = max(0, min(num_days))
    if job.last_days > least:
        raise ConfigError(
            f"last_days: found {job.last_days}; allowed: up to the {least} days past job.warm_up_days that a trial has"
        )
    return max(num_days)


def _check_metric(job: TuneJob, one: TrainJob) -> None:
    of_ranks = isinstance(one.model, SequenceModelConfig)
    if of_ranks != job.metric.startswith("1-"):
        allowed = "1-ndcg@10" if of_ranks else "log_loss, ne"
        raise ConfigError(f"metric: found {job.metric}; allowed with model.kind {one.model.kind}: {allowed}")


def _say_what_is_short(job: TuneJob, per_trial: int, display: TuneDisplay) -> None:
    cores = ray.cluster_resources().get("CPU", 0.0)
    if job.num_parallel * per_trial > cores:
        display.message(
            f"{job.num_parallel} trials at the same time ask for {job.num_parallel * per_trial} cores, the cluster has "
            f"{cores:g}: trials wait for each other (else lower num_parallel)"
        )


def ranked(done: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Sort trials, the best first: finished ones by metric, stopped ones by days and mean so far, failed ones."""

    def rank(record: TrialRecord) -> tuple[float, ...]:
        if record.metric is not None:
            return (0, record.metric, record.number)
        if record.status == "stopped":
            return (1, -len(record.means), record.means[-1], record.number)
        return (2, record.number)

    return sorted(done, key=rank)


def _summary(job: TuneJob, done: Sequence[TrialRecord], started: float) -> Tree:
    table = ranked(done)
    best = table[0] if table and table[0].status == "finished" else None
    facts = run_facts(job.name, started)
    return {
        **facts,
        "versions": {**facts["versions"], **_optuna_version()},
        "metric": job.metric,
        "last_days": job.last_days,
        "num_trials": len(done),
        "num_stopped": sum(record.status == "stopped" for record in done),
        "num_failed": sum(record.status == "failed" for record in done),
        "best": _best(best) if best is not None else None,
        "trials": [record.model_dump(mode="json") for record in table],
    }


def require_best(summary: Tree) -> None:
    """Raise WorkerError where no trial has finished."""
    if summary["best"] is None:
        errors = [trial["error"] for trial in summary["trials"] if trial["error"] is not None]
        raise WorkerError(f"none of {summary['num_trials']} trials has finished; the first error: {errors[0]}")


def _best(record: TrialRecord) -> Tree:
    keys = ("number", "metric", "auc", "values", "run_folder")
    tree = record.model_dump(mode="json")
    return {**{key: tree[key] for key in keys}, "overrides": shlex.join(as_overrides(record.values))}


def _optuna_version() -> dict[str, str]:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return {"optuna": metadata.version("optuna")}
    return {}
