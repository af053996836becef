"""Trains finalists and baselines alone, each with several learning rates, and compares what they predicted."""

import copy
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, Self

from raysparse.config import Tree
from raysparse.errors import WorkerError
from raysparse.job import SearchJob, TrainJob
from raysparse.launch.entrants import Contender, Entrant, entrants_of
from raysparse.launch.search_kind import SearchKind
from raysparse.launch.tune_log import TrialLog, TrialRecord, ended
from raysparse.launch.tune_trials import TrialSettings, run_trials
from raysparse.report.number_text import counted
from raysparse.train.run_folder import SUMMARY, RunFolder
from raysparse.train.summary import DENSE

CONTEST = "contest"
"""Folder of the log of the finalists' and baselines' runs."""


class RunDisplay(Protocol):
    """Shows how the runs go on."""

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None:
        """Show a finished run: its scores, by the search's metric, and how long it took."""
        ...

    def message(self, text: str) -> None:
        """Show a line."""
        ...


def compete(
    job: SearchJob, contenders: Sequence[Contender], kind: SearchKind, folder: RunFolder, display: RunDisplay
) -> tuple[list[Tree], list[Tree]]:
    """Train each contender with each learning rate; driver, connected to Ray.

    A run predicts each day before it learns it, so validation and test days are scored by a model that has not seen
    them. A contender's learning rate is the one that is best on validation; the test chooses nothing. Finalists may be
    stopped early, by each other alone; baselines always run to their end, as the results need them. Returns a row for
    each contender, and a row with the reason for each of which no run has finished. WorkerError where none of the
    finalists has.
    """
    contest = Contest(entrants_of(job, contenders, folder), kind, folder, display)
    settings = TrialSettings(
        metric=kind.quality.objective,
        last_days=kind.last_days,
        num_days=kind.num_days_before_test,
        num_parallel=job.finalists.num_parallel,
        max_restarts=job.scaling.max_restarts,
        asha=job.finalists.asha,
    )
    run_trials(contest.part("finalist"), settings)
    run_trials(contest.part("baseline"), replace(settings, asha=None))
    rows: list[Tree] = []
    without: list[Tree] = []
    for contender in contenders:
        row = contest.row(contender)
        if row is None:
            facts = {"reason": contest.reason(contender), "stopped": contest.was_stopped(contender)}
            without.append({"kind": contender.kind, "name": contender.name, **facts})
        else:
            rows.append(row)
    finalists = [row for row in rows if row["kind"] == "finalist"]
    if not finalists:
        raise WorkerError(f"no finalist has been trained to its end; the first error: {without[0]['reason']}")
    best = min(finalists, key=contest.loss)
    for row in rows:
        row["chosen"] = row is best
    return rows, without


class Contest:
    """The runs of all contenders as trials; the log in the folder `contest` is their memory. Driver.

    An entrant has the number under which the log knows its values, or the next one that is free: who takes part may
    differ from what an earlier process was told, and what is equal keeps its run.
    """

    def __init__(self, entrants: Sequence[Entrant], kind: SearchKind, folder: RunFolder, display: RunDisplay) -> None:
        """Read the log; CheckpointError where a line of it is damaged."""
        self._kind = kind
        self._folder = folder
        self._display = display
        self._failed: set[int] = set()
        self._log = TrialLog(RunFolder(folder.url(CONTEST)))
        self._entrants = _numbered(entrants, self._log.values())

    def part(self, kind: str) -> Self:
        """Return the finalists' runs, or the baselines'; the memory is the same."""
        part = copy.copy(self)
        part._entrants = {
            number: entrant for number, entrant in self._entrants.items() if entrant.contender.kind == kind
        }
        return part

    @property
    def total(self) -> int:
        """Runs that there will be."""
        return len(self._entrants)

    def done(self) -> list[TrialRecord]:
        """Return those that have ended, in the order of their end; one that failed before is tried again."""
        return [
            record
            for record in self._log.done()
            if record.number in self._entrants and (record.status != "failed" or record.number in self._failed)
        ]

    def left(self) -> list[int]:
        """Return the numbers of those that have not ended."""
        done = {record.number for record in self.done()}
        return [number for number in self._entrants if number not in done]

    def start(self, number: int) -> TrainJob:
        """Return the job of a run."""
        entrant = self._entrants[number]
        if number not in self._log.values():
            self._log.add(
                TrialRecord(number=number, values=entrant.values, run_folder=entrant.run_folder, status="started")
            )
        return self._kind.train_job(entrant, self._folder)

    def end(self, number: int, outcome: Tree | None, means: Sequence[float]) -> None:
        """Write down what a run came to, and show it."""
        entrant = self._entrants[number]
        record = ended(number, entrant.values, entrant.run_folder, outcome, means)
        if record.status == "failed":
            self._failed.add(number)
        self._log.add(record)
        if record.status == "finished":
            run = self._run(entrant, record)
            name = self._kind.quality.name
            self._display.run_done(entrant.label, run[f"validation_{name}"], run[f"test_{name}"], run["seconds"])
        else:
            self._display.message(f"{entrant.label}: {self._ending(record)}")

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
        best = min(runs, key=self.loss)
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
        return "; ".join(
            f"learning rate {entrant.learning_rate:g} {self._ending(record)}" for entrant, record in records
        )

    def was_stopped(self, contender: Contender) -> bool:
        """Whether all its runs were stopped early, so that none failed."""
        return all(record.status == "stopped" for _, record in self._records(contender))

    def _ending(self, record: TrialRecord) -> str:
        if record.status != "stopped":
            return f"failed: {record.error}"
        quality = self._kind.quality
        lines = counted(len(record.means), quality.unit)
        return f"stopped after {lines} at {quality.title} {quality.loss_of(record.means[-1]):.5f}"

    def _records(self, contender: Contender) -> list[tuple[Entrant, TrialRecord]]:
        last = {record.number: record for record in self.done()}
        return [(entrant, last[number]) for number, entrant in self._entrants.items() if entrant.contender is contender]

    def _run(self, entrant: Entrant, record: TrialRecord) -> Tree:
        return {
            "learning_rate": entrant.learning_rate,
            **self._kind.scores(list(RunFolder(entrant.run_folder).history())),
            "latency_us": latency_us(RunFolder(entrant.run_folder)),
            "folder": entrant.run_folder,
            "seconds": record.seconds,
        }

    def loss(self, row: Tree) -> float:
        """Return by what the best row, or run, is the least: its loss on validation."""
        quality = self._kind.quality
        return quality.loss_of(row[f"validation_{quality.name}"])


def _numbered(entrants: Sequence[Entrant], known: dict[int, Tree]) -> dict[int, Entrant]:
    """Entrants by number, in their own order."""
    free = itertools.count(max(known, default=-1) + 1)
    numbered: dict[int, Entrant] = {}
    for entrant in entrants:
        own = (number for number, values in known.items() if values == entrant.values)
        number = next(own, None)
        numbered[next(free) if number is None else number] = entrant
    return numbered


def latency_us(folder: RunFolder) -> float | None:
    """Return what a finished run's head took for the largest batch that was timed, on one thread; None without."""
    heads = json.loads(folder.read(SUMMARY)).get("heads", {}) if folder.exists(SUMMARY) else {}
    measured = heads.get(DENSE, {}).get("latency_us", {})
    return measured[max(measured, key=int)] if measured else None
