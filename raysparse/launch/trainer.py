"""Runs a train job on a Ray cluster, from the driver."""

import contextlib
import json
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import ray

from raysparse.config import parse_yaml
from raysparse.data.dataset import Dataset
from raysparse.data.selection import select_days
from raysparse.errors import RaySparseError, WorkerError
from raysparse.job import TrainJob, check_train_job, dump_job, refuse_changes
from raysparse.launch.cluster import connect, free_reservations, shortage
from raysparse.launch.data import ensure_data
from raysparse.launch.entry import enter_worker
from raysparse.launch.job_fit import check_fit
from raysparse.launch.relay import EventRelay
from raysparse.launch.run_facts import run_facts
from raysparse.train.run_folder import CHECKPOINTS, HISTORY, SUMMARY, RunFolder, RunMode
from raysparse.train.summary import summarize

WORKER_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""Has glibc keep the memory of freed batches and gradients instead of fetching fresh pages at every step, which it
does in one arena only: Ray calls the training from a thread that would have another (8 % of a step's time)."""


class Display(Protocol):
    """Shows a run to a person."""

    def plan(self, rows: list[dict[str, Any]]) -> None:
        """Show the sharding table."""
        ...

    def progress(self, event: dict[str, Any]) -> None:
        """Show how far the day is."""
        ...

    def day(self, records: list[dict[str, Any]]) -> None:
        """Show a finished day."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...


class Quiet:
    """Shows nothing of a run but its messages."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show

    def message(self, text: str) -> None:
        """Pass it on."""
        self._show(text)

    def plan(self, rows: list[dict[str, Any]]) -> None:
        """Show nothing."""

    def progress(self, event: dict[str, Any]) -> None:
        """Show nothing."""

    def day(self, records: list[dict[str, Any]]) -> None:
        """Show nothing."""


def open_run(job: TrainJob, mode: RunMode) -> tuple[TrainJob, RunFolder]:
    """Claim the job's run folder and write its resolved job there; driver.

    Returns the job with absolute paths. Raises ConfigError where the folder exists and `mode` is `new`, where it
    is no run folder, or where a resumed run was made by another job.
    """
    job = with_absolute_paths(job)
    folder = RunFolder(job.run_folder)
    folder.open(dump_job(job), mode, lambda text, origin: _refuse_changes(text, origin, job))
    return job, folder


def with_absolute_paths(job: TrainJob) -> TrainJob:
    """Return a job whose folders are the same wherever a worker runs."""
    start_from = job.start_from
    if start_from is not None:
        start_from = start_from.model_copy(update={"run_folder": absolute(start_from.run_folder)})
    return job.model_copy(
        update={
            "run_folder": absolute(job.run_folder),
            "data": job.data.model_copy(update={"path": absolute(job.data.path)}),
            "start_from": start_from,
            "callbacks": tuple(
                callback.model_copy(update={"folder": absolute(callback.folder)})
                if callback.kind == "feature_cache" or callback.kind == "sequence_cache"
                else callback
                for callback in job.callbacks
            ),
        }
    )


def _refuse_changes(text: str, origin: str, job: TrainJob) -> None:
    refuse_changes(check_train_job(parse_yaml(text, origin), origin), job)


def train(job: TrainJob, folder: RunFolder, display: Display) -> dict[str, Any]:
    """Run a job that `open_run` has given a folder, and return its summary; driver.

    Workers that die are started again from the last checkpoint, `scaling.max_restarts` times. Of a run that has done
    all days nothing is started. Raises what a worker raised where it is of raysparse's own errors, WorkerError
    otherwise.
    """
    whole = _summary_of_all_days(job, folder)
    if whole is not None:
        display.message("all days are done already")
        return whole
    started, resumed = time.time(), folder.exists(HISTORY)
    scaling = job.scaling
    # Ray starts its processes while this one imports torch.
    importing = threading.Thread(target=_import_trainer)
    importing.start()
    connect(scaling.num_workers * scaling.threads_per_worker)
    importing.join()
    dataset = ensure_data(job.data, display)
    check_fit(job, dataset, display)
    gpus = scaling.num_workers if scaling.use_gpu else 0
    lack = shortage(scaling.num_workers * scaling.threads_per_worker, gpus)
    if lack is not None:
        display.message(lack)
    facts: dict[str, Any] = {}
    relay = EventRelay(lambda event: facts.update(event["facts"]) if "facts" in event else _show(display, event))
    try:
        _run_with_restarts(job, folder, relay, display)
    finally:
        relay.close()
    summary = json.dumps({**_summary(job, folder, started), "resumed": resumed, **facts}, indent=1)
    folder.write(SUMMARY, summary + "\n")
    return json.loads(summary)


def finish_run(job: TrainJob, display: Quiet) -> dict[str, Any]:
    """Run a train job to its end, or take the summary of one that has ended; driver."""
    job, folder = open_run(job, "resume")
    return train(job, folder, display)


def _summary_of_all_days(job: TrainJob, folder: RunFolder) -> dict[str, Any] | None:
    if folder.exists(SUMMARY):
        summary = json.loads(folder.read(SUMMARY))
        with contextlib.suppress(RaySparseError):  # a data set that is gone is for the usual way to tell of
            data = job.data
            days = select_days(Dataset.open(data.path), data.first_day, data.last_day, data.epochs)
            return summary if summary.get("last_day") == days[-1].day else None
    return None


def _run_with_restarts(job: TrainJob, folder: RunFolder, relay: EventRelay, display: Display) -> None:
    from ray.train.v2.api.exceptions import TrainingFailedError

    for restart in range(job.scaling.max_restarts + 1):
        try:
            _fit(job, folder, relay)
            return
        except TrainingFailedError as error:
            # The frames that it came through hold Ray's controller, a process that would live as long as the error.
            traceback.clear_frames(error.__traceback__)
            cause = _own_error(error)
            if cause is not None:
                raise cause from None
            reason = first_line(error)
            if restart == job.scaling.max_restarts:
                raise WorkerError(
                    f"the workers failed {restart + 1} times, scaling.max_restarts allows {restart} restarts; the last "
                    f"time: {reason}. The run can be resumed with --resume; the workers' logs lie in "
                    f"{ray.get_runtime_context().get_session_name() or 'the Ray session'}'s log folder\n{error}"
                ) from error
            display.message(f"workers failed ({reason}); restart {restart + 1} of {job.scaling.max_restarts}")
            free_reservations()


def _fit(job: TrainJob, folder: RunFolder, relay: EventRelay) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray would take up its own list of checkpoints; which of them are whole is for the manifests to say.
    snapshot = f"{folder.root}/{CHECKPOINTS}/checkpoint_manager_snapshot.json"
    if folder.filesystem.exists(snapshot):
        folder.filesystem.rm(snapshot)
    scaling = job.scaling
    trainer = TorchTrainer(
        enter_worker,
        train_loop_config={"job": job.model_dump(mode="json"), "relay": relay.actor, "owner": folder.claim()},
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=scaling.num_workers,
            use_gpu=scaling.use_gpu,
            resources_per_worker={"CPU": scaling.threads_per_worker, **({"GPU": 1} if scaling.use_gpu else {})},
        ),
        run_config=RunConfig(
            name=CHECKPOINTS, storage_path=job.run_folder, worker_runtime_env={"env_vars": WORKER_MEMORY}
        ),
    )
    with _own_interrupts():
        trainer.fit()


@contextlib.contextmanager
def _own_interrupts() -> Iterator[None]:
    """Take Ray Train's handler of interrupts away afterwards: it holds the controller, a process, until another run."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _show(display: Display, event: dict[str, Any]) -> None:
    match event["event"]:
        case "plan":
            display.plan(event["tables"])
        case "progress":
            display.progress(event)
        case "day":
            display.day(event["records"])
        case _:
            display.message(event["text"])


def _own_error(error: BaseException) -> RaySparseError | None:
    """The error of raysparse's own that a worker raised, whatever Ray has wrapped around it."""
    failures = getattr(error, "worker_failures", {})
    for failure in [failures[rank] for rank in sorted(failures)]:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, RaySparseError):
                return seen
            seen = getattr(seen, "_base_exc", None) or seen.__cause__
    return None


def first_line(error: BaseException) -> str:
    """Say in a line why Ray Train gave a run up."""
    failures = getattr(error, "worker_failures", {})
    where = f"rank {min(failures)}: " if failures else ""
    cause = failures[min(failures)] if failures else getattr(error, "controller_failure", error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    # A remote traceback names its error last; Ray's own texts go on after their first sentence.
    return where + (lines[-1] if "Traceback" in lines[0] else lines[0]).split(". ")[0]


def _summary(job: TrainJob, folder: RunFolder, started: float) -> dict[str, Any]:
    return {
        **run_facts(job.name, started),
        "num_workers": job.scaling.num_workers,
        "threads_per_worker": job.scaling.threads_per_worker,
        "model": job.model.kind,
        **summarize(folder.history()),
    }


def absolute(path: str) -> str:
    """The same folder, wherever a worker runs; URLs stay as they are."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _import_trainer() -> None:
    import ray.train.torch

    logging.getLogger(ray.train.torch.__name__).setLevel(logging.ERROR)
