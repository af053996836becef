"""Scores the choices of a search as Ray Tune trials, in actors that are reused."""

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
from raysparse.launch.tune_relay import Relay, run_tune
from raysparse.search.journal import Entry, Journal
from raysparse.search.population import Proposal, Searcher

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
    loading; a choice that cannot be scored, or is lost again and again, is an error in the journal.
    """
    gpus = job.trials.gpus_per_actor
    arguments = {"job": job.model_dump(mode="json"), "cache": cache}
    run_tune(
        tune.with_parameters(ScoringTrial, arguments=arguments),
        _AskAndTell(searcher, journal, display),
        resources={"cpu": job.trials.threads_per_actor} | ({"gpu": gpus} if gpus else {}),
        num_samples=-1,
        num_parallel=job.trials.num_actors,
        max_failures=0,
    )


class ScoringTrial(Trainable):
    """An actor with a scorer; each trial is one step of it."""

    def setup(self, config: Tree, arguments: Tree | None = None) -> None:
        """Map the cache and load the shared weights, once for all trials of the actor."""
        assert arguments is not None
        self._choice = config
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

    def reset_config(self, new_config: Tree) -> bool:
        """Take another choice."""
        self._choice = new_config
        return True

    def step(self) -> Tree:
        """Score the choice."""
        if self._fault is not None:
            return result_of({"fault": self._fault})
        started = time.perf_counter()
        try:
            choice = self._space.parse(json.loads(self._choice["choice"]))
            objectives = self._scorer.score(choice, self._objectives)
            outcome: Tree = {"objectives": objectives, _METRIC: objectives[self._quality]}
        except Exception as error:
            outcome = {"lost" if _depends_on_the_machine(error) else "error": _text_of(error)}
        outcome["seconds"] = time.perf_counter() - started
        return result_of(outcome)


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
    return {_OUTCOME: json.dumps(outcome), _METRIC: outcome.get(_METRIC, math.nan), "done": True}


class _AskAndTell(Relay):
    """Lets Tune ask the population; driver."""

    def __init__(self, searcher: Searcher[Any], journal: Journal, display: TrialDisplay) -> None:
        super().__init__(_METRIC)
        self._searcher = searcher
        self._journal = journal
        self._display = display
        self._lost: Counter[int] = Counter()
        self._open: dict[str, Proposal[Any]] = {}

    def suggest(self, trial_id: str) -> Any:
        """Hand out the next choice; None while the population waits for results."""
        if self.is_faulty or self._searcher.ended is not None:
            return Relay.FINISHED
        proposals = self._searcher.ask(1)
        if not proposals:
            return Relay.FINISHED if self._searcher.ended is not None else None
        self._open[trial_id] = proposals[0]
        return {"choice": proposals[0].choice.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: Tree | None = None, error: bool = False) -> None:
        """Write the result down, then tell the population."""
        outcome = json.loads(result[_OUTCOME]) if result is not None and _OUTCOME in result and not error else None
        self.guarded(lambda: self._end(self._open.pop(trial_id), outcome))

    def _end(self, proposal: Proposal[Any], outcome: Tree | None) -> None:
        outcome = outcome or {"lost": "its actor died"}
        if "fault" in outcome:
            raise WorkerError(
                f"an actor cannot load what it scores with: {outcome['fault']}; go on with --resume once that is mended"
            )
        if "lost" in outcome:
            self._lost[proposal.number] += 1
            if self._lost[proposal.number] <= _LOSSES:
                self._searcher.release(proposal)
                self._display.message(f"trial {proposal.number} was lost ({outcome['lost']}); it is scored again")
                return
            outcome = {"seconds": 0.0, **outcome, "error": f"lost {_LOSSES + 1} times, at last: {outcome['lost']}"}
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
