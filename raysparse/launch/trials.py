"""Scores the choices of a search in actors that Ray Tune starts, replaces and ends."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune import Trainable

from raysparse.config import Tree
from raysparse.data.dataset import Dataset
from raysparse.errors import WorkerError
from raysparse.job import SearchJob
from raysparse.launch.proposal_queue import ProposalQueue, take
from raysparse.launch.tune_relay import Relay, run_tune
from raysparse.search.journal import Entry, Journal
from raysparse.search.population import Proposal, Searcher
from raysparse.search.sequence_scoring import ENERGY_IS_PROXY

_OUTCOME = "outcome"
_METRIC = "score"
_LOSSES = 3
"""Times that a trial may be lost, and is scored again: a dead machine, or a full one, is no fault of the choice."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
"""What torch says in a RuntimeError where there is no memory left, of a GPU or of the machine."""


@dataclass(frozen=True)
class TrialDisplay:
    """Shows trials to a person."""

    scored: Callable[[Entry], None]
    """Called with each result."""
    message: Callable[[str], None]
    """Called with what else is worth a line."""


def run_trials(job: SearchJob, cache: str, searcher: Searcher[Any], journal: Journal, display: TrialDisplay) -> None:
    """Score what a searcher proposes until it ends; driver, connected to Ray.

    Every result stands in the journal before the searcher learns of it. WorkerError with what an actor raised on
    loading, and where actors die as often as they are started; a choice that cannot be scored, or is lost again and
    again, is an error in the journal.
    """
    gpus = job.trials.gpus_per_actor
    num_actors = max(1, min(job.trials.num_actors, searcher.num_trials - len(journal.entries)))
    queue = ProposalQueue()
    arguments = {"job": job.model_dump(mode="json"), "cache": cache, "queue": queue.actor}
    try:
        run_tune(
            tune.with_parameters(ScoringActor, arguments=arguments),
            _AskAndTell(searcher, journal, display, queue, num_actors),
            resources={"cpu": job.trials.threads_per_actor} | ({"gpu": gpus} if gpus else {}),
            num_samples=-1,
            num_parallel=num_actors,
            max_failures=0,
        )
    finally:
        queue.close()


class ScoringActor(Trainable):
    """An actor with a scorer: to Tune a trial that goes on, each step of which is a trial of the search.

    Were each choice a trial of Tune's own, an actor that is free would take the trial that waits for another one's
    start, and Tune would end what starts: where scoring is faster than a start (6 s of imports) a search of 16 actors
    stays at two. And between generations, while nothing is left to hand out, Tune ends all actors but one.
    """

    def setup(self, config: Tree, arguments: Tree | None = None) -> None:
        """Map the cache and load the shared weights, once for all trials of the actor."""
        assert arguments is not None
        self._queue = arguments["queue"]
        self._fault: str | None = None
        try:
            self._load(SearchJob.model_validate_json(json.dumps(arguments["job"])), arguments["cache"])
        except Exception as error:
            # Ray would try again and then lose the text: it is reported as what the trial came to.
            self._fault = _text_of(error)

    def _load(self, job: SearchJob, cache_url: str) -> None:
        import torch

        from raysparse.launch.search_kind import kind_of

        torch.set_num_threads(job.trials.threads_per_actor)
        device = torch.device("cuda" if job.trials.gpus_per_actor else "cpu")
        kind = kind_of(job, Dataset.open(job.data.path))
        self._space = kind.space
        self._scorer = kind.scorer(cache_url, device)
        self._objectives = job.objectives
        self._quality = job.quality.objective

    def step(self) -> Tree:
        """Score the next choice, once there is one."""
        if self._fault is not None:
            return result_of({"fault": self._fault})
        handed = take(self._queue, self.trial_id)
        if handed is None:
            return {_METRIC: math.nan, "done": True}
        return result_of({"number": handed.number} | self._score(handed.choice))

    def _score(self, choice: str) -> Tree:
        started = time.perf_counter()
        try:
            objectives = self._scorer.score(self._space.parse(json.loads(choice)), self._objectives)
            outcome: Tree = {"objectives": objectives, _METRIC: objectives[self._quality]}
        except Exception as error:
            outcome = {"lost" if _depends_on_the_machine(error) else "error": _text_of(error)}
        return outcome | {"seconds": time.perf_counter() - started}


def _refuse_mixed_energy(objectives: Tree, entries: list[Entry]) -> None:
    """Raise WorkerError where some trials read a counter of energy and others cannot: they differ by a factor."""
    is_proxy = objectives.get(ENERGY_IS_PROXY)
    if is_proxy is None:
        return
    first = next((entry.objectives for entry in entries if entry.objectives is not None), objectives)
    if first[ENERGY_IS_PROXY] != is_proxy:
        raise WorkerError(
            "the objective energy_uj is measured by some actors and counted from multiply-adds and bytes by others, "
            "which cannot be compared. Let all trials run where /sys/class/powercap/intel-rapl:*/energy_uj can be "
            "read, or where it cannot, or search without this objective; start anew with --fresh"
        )


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _depends_on_the_machine(error: Exception) -> bool:
    """Whether the same choice may be scored at another time, or elsewhere."""
    if isinstance(error, OSError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def result_of(outcome: Tree) -> Tree:
    """Return what Tune is told of a trial."""
    # As text: a float keeps all its digits, whatever Tune does to results. Tune insists on the metric that it was told.
    return {_OUTCOME: json.dumps(outcome), _METRIC: outcome.get(_METRIC, math.nan), "done": False}


class _AskAndTell(Relay):
    """Keeps as many proposals on their way as there are actors, and brings back what came of them; driver."""

    def __init__(
        self, searcher: Searcher[Any], journal: Journal, display: TrialDisplay, queue: ProposalQueue, num_actors: int
    ) -> None:
        super().__init__(_METRIC)
        self._searcher = searcher
        self._journal = journal
        self._display = display
        self._queue = queue
        self._num_actors = num_actors
        self._lost: Counter[int] = Counter()
        self._num_deaths = 0
        self._open: dict[int, Proposal[Any]] = {}

    @property
    def is_over(self) -> bool:
        """Whether the population has ended, or something went wrong."""
        return super().is_over or self._searcher.ended is not None

    def suggest(self, trial_id: str) -> Any:
        """Let an actor start."""
        self.guarded(self._hand_out)
        return Relay.FINISHED if self.is_over else {}

    def on_trial_result(self, trial_id: str, result: Tree) -> None:
        """Write a score down, tell the population, and hand out what it proposes next."""
        if _OUTCOME in result:
            self.guarded(lambda: self._end(json.loads(result[_OUTCOME])))
            self.guarded(self._hand_out)

    def on_trial_complete(self, trial_id: str, result: Tree | None = None, error: bool = False) -> None:
        """Take back what an actor had when it died."""
        if error:
            self.guarded(lambda: self._lose(trial_id))
            self.guarded(self._hand_out)

    def _hand_out(self) -> None:
        if not self.is_faulty:
            for proposal in self._searcher.ask(self._num_actors - len(self._open)):
                self._open[proposal.number] = proposal
                self._queue.put(proposal.number, proposal.choice.model_dump_json())
        if self.is_over:
            self._queue.end()

    def _lose(self, actor: str) -> None:
        self._num_deaths += 1
        number = self._queue.lose(actor)
        if number in self._open:
            self._end({"number": number, "lost": "its actor died"})
        elif self._num_deaths > _LOSSES * self._num_actors:
            raise WorkerError(
                f"{self._num_deaths} actors in a row died before they scored anything, as they do where there is not "
                "memory enough: fewer trials.num_actors take less of it; go on with --resume once that is mended"
            )

    def _end(self, outcome: Tree) -> None:
        if "fault" in outcome:
            raise WorkerError(
                f"an actor cannot load what it scores with: {outcome['fault']}; go on with --resume once that is mended"
            )
        proposal = self._open.pop(outcome["number"])
        if "lost" in outcome:
            self._lost[proposal.number] += 1
            if self._lost[proposal.number] <= _LOSSES:
                self._searcher.release(proposal)
                self._display.message(f"trial {proposal.number} was lost ({outcome['lost']}); it is scored again")
                return
            outcome = {"seconds": 0.0, **outcome, "error": f"lost {_LOSSES + 1} times, at last: {outcome['lost']}"}
        self._num_deaths = 0
        _refuse_mixed_energy(outcome.get("objectives") or {}, self._journal.entries)
        entry = self._journal.record(
            proposal, outcome["objectives"] if "objectives" in outcome else outcome["error"], outcome["seconds"]
        )
        self._searcher.tell(proposal, entry.objectives)
        self._display.scored(entry)

    def missing(self) -> str | None:
        """Say how far the population is where it has not ended."""
        if self._searcher.ended is not None:
            return None
        return f"{len(self._journal.entries)} of {self._searcher.num_trials} trials"
