"""Trains finalists and baselines alone, each with several learning rates, and compares what they predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raysparse.config import Tree
from raysparse.cost.record import Cost
from raysparse.data.dataset import Day
from raysparse.data.split import Split
from raysparse.errors import CheckpointError, WorkerError
from raysparse.job import SearchJob, StartFromConfig, TrainJob
from raysparse.launch.tune_log import TrialLog, TrialRecord, ended
from raysparse.launch.tune_trials import TrialSettings, run_trials
from raysparse.models import ModelConfig
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.report.search_run import SUPERNET
from raysparse.train.metrics import entropy
from raysparse.train.run_folder import RunFolder
from raysparse.train.summary import DENSE

CONTEST = "contest"
"""Folder of the log of the finalists' and baselines' runs."""


class RunDisplay(Protocol):
    """Shows how the runs go on."""

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None:
        """Show a finished run: its log losses and how long it took."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...


@dataclass(frozen=True)
class Contender:
    """A model that is trained alone."""

    kind: str
    """finalist or baseline."""
    name: str
    model: ModelConfig
    cost: Cost
    facts: Tree
    """What the results say of it besides."""
    drawn: NASRecConfig | None = None
    """A finalist as the search drew it."""


@dataclass(frozen=True)
class Entrant:
    """A contender with one of the learning rates: a Train run."""

    contender: Contender
    learning_rate: float
    run_folder: str

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.contender.kind} {self.contender.name}, learning rate {self.learning_rate:g}"

    @property
    def values(self) -> Tree:
        """What the log knows it by."""
        contender = self.contender
        return {"kind": contender.kind, "name": contender.name, "learning_rate": self.learning_rate}


def compete(
    job: SearchJob, contenders: Sequence[Contender], split: Split, folder: RunFolder, display: RunDisplay
) -> tuple[list[Tree], list[Tree]]:
    """Train each contender over all days with each learning rate; driver, connected to Ray.

    A run predicts each day before it learns it, so validation and test days are scored by a model that has not seen
    them. A contender's learning rate is the one with the least validation loss; the test days choose nothing. Returns
    a row for each contender, and a row with the reason for each of which no run has finished. WorkerError where none
    of the finalists has.
    """
    contest = Contest(job, entrants_of(job, contenders, folder), split, folder, display)
    settings = TrialSettings(
        metric="log_loss",
        last_days=len(split.validation) + len(split.test),
        num_days=split.num_days,
        num_parallel=job.finalists.num_parallel,
        max_restarts=job.scaling.max_restarts,
        asha=job.finalists.asha,
    )
    run_trials(contest, settings)
    rows: list[Tree] = []
    without: list[Tree] = []
    for contender in contenders:
        row = contest.row(contender)
        if row is None:
            without.append({"kind": contender.kind, "name": contender.name, "reason": contest.reason(contender)})
        else:
            rows.append(row)
    finalists = [row for row in rows if row["kind"] == "finalist"]
    if not finalists:
        raise WorkerError(f"no finalist has been trained to its end; the first error: {without[0]['reason']}")
    best = min(finalists, key=lambda row: row["validation_log_loss"])
    for row in rows:
        row["chosen"] = row is best
    return rows, without


def entrants_of(job: SearchJob, contenders: Sequence[Contender], folder: RunFolder) -> list[Entrant]:
    """Return each contender with each learning rate."""
    return [
        Entrant(contender, rate, folder.url(f"{contender.kind}s", f"{contender.name}-lr{rate:g}"))
        for contender in contenders
        for rate in job.finalists.learning_rates
    ]


class Contest:
    """The runs of all contenders as trials; the log in the folder `contest` is their memory. Driver."""

    def __init__(
        self, job: SearchJob, entrants: Sequence[Entrant], split: Split, folder: RunFolder, display: RunDisplay
    ) -> None:
        """Read the log; CheckpointError where its runs are not these."""
        self._job = job
        self._entrants = entrants
        self._split = split
        self._folder = folder
        self._display = display
        self._failed: set[int] = set()
        self._log = TrialLog(RunFolder(folder.url(CONTEST)))
        for number, values in self._log.values().items():
            if number >= len(entrants) or values != entrants[number].values:
                raise CheckpointError(
                    f"{folder.url(CONTEST)} holds the runs of other finalists than the journal's scores give; delete "
                    "it and the folders finalists and baselines, and go on with --resume"
                )

    @property
    def total(self) -> int:
        """Runs that there will be."""
        return len(self._entrants)

    def done(self) -> list[TrialRecord]:
        """Return those that have ended, in the order of their end; one that failed before is tried again."""
        return [record for record in self._log.done() if record.status != "failed" or record.number in self._failed]

    def left(self) -> list[int]:
        """Return the numbers of those that have not ended."""
        done = {record.number for record in self.done()}
        return [number for number in range(self.total) if number not in done]

    def start(self, number: int) -> TrainJob:
        """Return the job of a run."""
        entrant = self._entrants[number]
        if number not in self._log.values():
            self._log.add(
                TrialRecord(number=number, values=entrant.values, run_folder=entrant.run_folder, status="started")
            )
        return _train_job(self._job, entrant, self._split, self._folder)

    def end(self, number: int, outcome: Tree | None, means: Sequence[float]) -> None:
        """Write down what a run came to, and show it."""
        entrant = self._entrants[number]
        record = ended(number, entrant.values, entrant.run_folder, outcome, means)
        if record.status == "failed":
            self._failed.add(number)
        self._log.add(record)
        if record.status == "finished":
            run = self._run(entrant, record)
            self._display.run_done(entrant.label, run["validation_log_loss"], run["test_log_loss"], run["seconds"])
        else:
            self._display.message(f"{entrant.label}: {_reason(record)}")

    def message(self, number: int, text: str) -> None:
        """Show what a run says."""
        self._display.message(f"{self._entrants[number].label}: {text}")

    def row(self, contender: Contender) -> Tree | None:
        """Return what a contender came to with its best learning rate; None where no run of it has finished."""
        runs = [
            self._run(entrant, record) for entrant, record in self._records(contender) if record.status == "finished"
        ]
        if not runs:
            return None
        best = min(runs, key=lambda run: run["validation_log_loss"])
        return {
            "kind": contender.kind,
            "name": contender.name,
            **contender.facts,
            **contender.cost.model_dump(),
            **{key: value for key, value in best.items() if key not in ("folder", "seconds")},
            "runs": runs,
        }

    def reason(self, contender: Contender) -> str:
        """Say why no run of a contender has finished."""
        records = self._records(contender)
        return "; ".join(f"learning rate {entrant.learning_rate:g} {_reason(record)}" for entrant, record in records)

    def _records(self, contender: Contender) -> list[tuple[Entrant, TrialRecord]]:
        last = {record.number: record for record in self.done()}
        return [
            (entrant, last[number]) for number, entrant in enumerate(self._entrants) if entrant.contender is contender
        ]

    def _run(self, entrant: Entrant, record: TrialRecord) -> Tree:
        history = [line for line in RunFolder(entrant.run_folder).history() if line["arm"] == DENSE]
        validation, test = mean_scores(history, self._split.validation), mean_scores(history, self._split.test)
        return {
            "learning_rate": entrant.learning_rate,
            **{f"validation_{name}": value for name, value in validation.items()},
            **{f"test_{name}": value for name, value in test.items()},
            "folder": entrant.run_folder,
            "seconds": record.seconds,
        }


def _reason(record: TrialRecord) -> str:
    if record.status == "stopped":
        return f"stopped after {len(record.means)} days at {record.means[-1]:.5f}"
    return f"failed: {record.error}"


def _train_job(job: SearchJob, entrant: Entrant, split: Split, folder: RunFolder) -> TrainJob:
    start_from, data = None, job.data
    if entrant.contender.drawn is not None and job.finalists.weights == "inherited":
        start_from = StartFromConfig(run_folder=folder.url(SUPERNET), drawn=entrant.contender.drawn)
        seen = min(job.finalists.inherited_days, len(split.training))
        days = (*split.training[len(split.training) - seen :], *split.validation)
        data = data.model_copy(update={"first_day": days[0].day})
    contender, optimizer = entrant.contender, job.finalists.optimizer
    dense = optimizer.dense.model_copy(update={"learning_rate": entrant.learning_rate})
    return TrainJob(
        kind="train",
        name=f"{contender.kind}-{contender.name}",
        run_folder=entrant.run_folder,
        seed=job.seed,
        data=data,
        model=contender.model,
        start_from=start_from,
        optimizer=optimizer.model_copy(update={"dense": dense}),
        sharding=job.sharding,
        scaling=job.scaling,
        checkpoint=job.checkpoint,
    )


def mean_scores(history: Sequence[Tree], days: Sequence[Day]) -> dict[str, float | None]:
    """Return log loss and AUC over some days of a run, each day weighted by its rows; null where none defines it."""
    names = {day.day for day in days}
    records = [record for record in history if record["day"] in names]
    return {name: _mean([(record[name], record["rows"]) for record in records]) for name in ("log_loss", "auc")}


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    defined = [(value, rows) for value, rows in values if value is not None]
    return sum(value * rows for value, rows in defined) / sum(rows for _, rows in defined) if defined else None


def best_log_loss(days: Sequence[Day]) -> float | None:
    """Return the teacher's own log loss over some days, where the stream was generated by one."""
    known = [(day.best_ne * entropy(day.base_rate), day.rows) for day in days if day.best_ne is not None]
    return _mean(known) if len(known) == len(days) else None
