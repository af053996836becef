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
from raysparse.errors import CheckpointError, RaySparseError
from raysparse.job import SearchJob
from raysparse.launch.tune_relay import Relay, run_tune
from raysparse.search.journal import Entry, Journal
from raysparse.search.population import Proposal, Searcher

_OUTCOME = "outcome"
_METRIC = "score"
_LOST_ACTORS = 3
"""Actors that a trial may lose, and is scored again: a dead machine is no fault of the choice."""


@dataclass(frozen=True)
class TrialDisplay:
    """Shows trials to a person."""

    scored: Callable[[Entry], None]
    """Called with each result."""
    message: Callable[[str], None]
    """Called with what else is worth a line."""


def run_trials(job: SearchJob, cache: str, searcher: Searcher[Any], journal: Journal, display: TrialDisplay) -> None:
    """Score what a searcher proposes until it ends; driver, connected to Ray.

    Every result stands in the journal before the searcher learns of it. What an actor raised on loading is raised
    again; a choice that cannot be scored, or whose actors die again and again, is an error in the journal.
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
        except RaySparseError as error:
            # Ray would try again and then lose the text: it is reported as what the trial came to.
            self._fault = str(error)

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
        except (RuntimeError, ValueError, ArithmeticError, RaySparseError) as error:
            outcome = {"error": f"{type(error).__name__}: {error}"}
        outcome["seconds"] = time.perf_counter() - started
        return result_of(outcome)


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
        if outcome is None and self._lost[proposal.number] < _LOST_ACTORS:
            self._lost[proposal.number] += 1
            self._searcher.release(proposal)
            self._display.message(f"the actor that scored trial {proposal.number} died; the trial goes to another one")
            return
        outcome = outcome or {"error": f"{_LOST_ACTORS + 1} actors died on it", "seconds": 0.0}
        if "fault" in outcome:
            raise CheckpointError(outcome["fault"])
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
