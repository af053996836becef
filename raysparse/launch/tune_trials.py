"""Runs train jobs as Ray Tune trials, from the driver: those of a tune run, or the finalists of a search."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from raysparse.config import Tree
from raysparse.errors import CheckpointError, ConfigError
from raysparse.job import ASHAConfig, TrainJob, TuneJob
from raysparse.launch.train_trial import MEAN, NEWS, NUM_DAYS, TrainTrial
from raysparse.launch.trainer import with_absolute_paths
from raysparse.launch.tune_log import TrialLog, TrialRecord, ended
from raysparse.launch.tune_relay import Relay, run_tune
from raysparse.launch.tune_values import Drawn, Proposer, Values, train_job
from raysparse.train.run_folder import RunFolder

_NEXT_TO_NOTHING: dict[str, float] = {"memory": 1.0}
"""What a trial reserves: its Train run reserves cores itself, and Tune knows no trial that takes nothing."""


class TuneDisplay(Protocol):
    """Shows a tune run to a person."""

    def trial_started(self, number: int, values: Values) -> None:
        """Show a trial that begins."""
        ...

    def trial_ended(self, record: Tree, done: int, total: int) -> None:
        """Show what a trial came to, as in the log, and how many are done."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...


class TrialSource(Protocol):
    """The train jobs that are run as trials, by number, and the memory of what they came to."""

    @property
    def total(self) -> int:
        """Trials that there will be."""
        ...

    def done(self) -> list[TrialRecord]:
        """Return those that have ended, in the order of their end."""
        ...

    def left(self) -> list[int]:
        """Return the numbers of those that have not ended."""
        ...

    def start(self, number: int) -> TrainJob | None:
        """Return a trial's job; None where none can be made, which ends the trial."""
        ...

    def end(self, number: int, outcome: Tree | None, means: Sequence[float]) -> None:
        """Take what a trial came to; no outcome: it was behind and is stopped."""
        ...

    def message(self, number: int, text: str) -> None:
        """Show what a trial says."""
        ...


@dataclass(frozen=True)
class TrialSettings:
    """How trials are run."""

    metric: str
    """A loss of the arm `trained`, by which trials are stopped and compared: log_loss, ne, or 1-ndcg@10."""
    last_days: int
    """Days at the end over which the metric is taken."""
    num_days: int
    """Days past warm-up by whose means a whole trial may be stopped; those after them choose nothing."""
    num_parallel: int
    """Train jobs at the same time."""
    max_restarts: int
    """Times that a trial whose process or workers died is started again."""
    asha: ASHAConfig | None
    """Stops trials early."""


class Trials:
    """The trials of a tune run: which are left, what each tries, and what they came to. Driver."""

    def __init__(self, job: TuneJob, folder: RunFolder, proposer: Proposer, display: TuneDisplay) -> None:
        """Read the log; CheckpointError where its trials tried other values than this job's."""
        self._job = job
        self._folder = folder
        self._proposer = proposer
        self._display = display
        self._log = TrialLog(folder)
        _require_same_values(folder, self._log, proposer)

    @property
    def total(self) -> int:
        """Trials that there will be."""
        return self._proposer.num_trials

    def done(self) -> list[TrialRecord]:
        """Return those that have ended, in the order of their end."""
        # The run may have been moved since they were written down.
        return [
            record.model_copy(update={"run_folder": self._run_folder(record.number)}) for record in self._log.done()
        ]

    def left(self) -> list[int]:
        """Return the numbers of those that have not ended."""
        done = {record.number for record in self.done()}
        return [number for number in range(self.total) if number not in done]

    def start(self, number: int) -> TrainJob | None:
        """Write down what a trial tries, and return its job; None where no train job can be made of it."""
        values = self._log.values().get(number)
        if values is None:
            values = self._proposer.propose(number, _scores(self.done()))
            self._log.add(
                TrialRecord(number=number, values=values, run_folder=self._run_folder(number), status="started")
            )
        try:
            job = train_job(self._job, number, self._run_folder(number), values, f"trial {number}")
        except ConfigError as error:
            self.end(number, {"error": str(error)}, [])
            return None
        self._display.trial_started(number, values)
        # Tune runs a trial in a folder of its own.
        return with_absolute_paths(job)

    def end(self, number: int, outcome: Tree | None, means: Sequence[float]) -> None:
        """Write down what a trial came to; no outcome: it was behind and is stopped."""
        record = ended(number, self._log.values()[number], self._run_folder(number), outcome, means)
        self._log.add(record)
        self._display.trial_ended(record.model_dump(mode="json"), len(self.done()), self.total)

    def message(self, number: int, text: str) -> None:
        """Show what a trial says."""
        self._display.message(f"trial {number}: {text}")

    def _run_folder(self, number: int) -> str:
        return self._folder.url("trials", f"{number:03d}")


def _require_same_values(folder: RunFolder, log: TrialLog, proposer: Proposer) -> None:
    if not isinstance(proposer, Drawn):
        return
    for number, values in log.values().items():
        if number < proposer.num_trials and values != proposer.all[number]:
            raise CheckpointError(
                f"{folder.url('trials.jsonl')}: trial {number} tried {json.dumps(values)}, where this job tries "
                f"{json.dumps(proposer.all[number])}; another version wrote it: start anew with --fresh"
            )


def _scores(done: Sequence[TrialRecord]) -> list[tuple[Values, float]]:
    """What searchers learn from: of a trial that was stopped, its mean so far."""
    scores = [(record.values, record.means[-1] if record.status == "stopped" else record.metric) for record in done]
    return [(values, score) for values, score in scores if score is not None]


def run_trials(trials: TrialSource, settings: TrialSettings) -> None:
    """Run the trials that are left until all have ended; driver, connected to Ray.

    WorkerError where Tune ended before its trials.
    """
    if not trials.left():
        return
    arguments = {
        "metric": settings.metric,
        "last_days": settings.last_days,
        "environment": {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_")},
    }
    run_tune(
        tune.with_parameters(TrainTrial, arguments=arguments),
        _Relay(trials),
        resources=_NEXT_TO_NOTHING,
        num_samples=len(trials.left()),
        num_parallel=settings.num_parallel,
        max_failures=settings.max_restarts,
        scheduler=build_scheduler(settings.asha, trials.done(), settings.num_days),
    )


def build_scheduler(
    asha: ASHAConfig | None, done: Sequence[TrialRecord], num_days: int, key: str = "asha"
) -> TrialScheduler:
    """Build what stops trials, told of those that an earlier process has run.

    ConfigError, naming the job's key, where a trial is over before anything could stop it.
    """
    if asha is None:
        return FIFOScheduler()
    if asha.grace_days >= num_days:
        raise ConfigError(
            f"{key}.grace_days: found {asha.grace_days}; allowed: less than the {num_days} days past warm-up by which "
            "a trial may be stopped"
        )
    # The last day is no time to stop any more.
    scheduler = ASHAScheduler(
        time_attr=NUM_DAYS,
        metric=MEAN,
        mode="min",
        max_t=num_days - 1,
        grace_period=asha.grace_days,
        reduction_factor=asha.reduction_factor,
        stop_last_trials=False,
    )
    for record in done:
        trial: Any = SimpleNamespace(trial_id=f"earlier-{record.number}")
        controller: Any = None
        scheduler.on_trial_add(controller, trial)
        for days, mean in enumerate(record.means[: num_days - 1], start=1):
            scheduler.on_trial_result(controller, trial, {NUM_DAYS: days, MEAN: mean})
    return scheduler


class _Relay(Relay):
    """Hands trials to Tune and takes what they come to; driver."""

    def __init__(self, trials: TrialSource) -> None:
        super().__init__(MEAN)
        self._trials = trials
        self._left = trials.left()
        self._numbers: dict[str, int] = {}
        self._failures: dict[str, list[str]] = {}

    def suggest(self, trial_id: str) -> Any:
        """Hand out the next trial."""
        return self.guarded(lambda: self._next(trial_id)) or Relay.FINISHED

    def _next(self, trial_id: str) -> Tree | None:
        while self._left:
            number = self._left.pop(0)
            job = self._trials.start(number)
            if job is not None:
                self._numbers[trial_id] = number
                return {"job": job.model_dump_json()}
        return None

    def on_trial_result(self, trial_id: str, result: Tree) -> None:
        """Show what a trial says, and keep why it failed: it may be started again."""
        self.guarded(lambda: self._hear(trial_id, json.loads(result[NEWS])))

    def _hear(self, trial_id: str, news: Tree) -> None:
        number = self._numbers[trial_id]
        if "failure" in news:
            self._failures.setdefault(trial_id, []).append(news["failure"])
            self._trials.message(number, f"failed: {news['failure']}")
        if "message" in news:
            self._trials.message(number, news["message"])

    def on_trial_complete(self, trial_id: str, result: Tree | None = None, error: bool = False) -> None:
        """Write down what a trial came to."""
        self.guarded(lambda: self._end(trial_id, json.loads(result[NEWS]) if result and not error else None))

    def _end(self, trial_id: str, news: Tree | None) -> None:
        number = self._numbers.pop(trial_id)
        if news is None:
            failures = self._failures.get(trial_id, ["its process died"])
            times = f"failed {len(failures)} times, the last time" if len(failures) > 1 else "failed"
            self._trials.end(number, {"error": f"the run {times}: {failures[-1]}"}, [])
        else:
            self._trials.end(number, news.get("outcome"), news["means"])

    def missing(self) -> str | None:
        """Say how far the trials are where some are left."""
        return f"{len(self._trials.done())} of {self._trials.total} trials" if self._trials.left() else None
