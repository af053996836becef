import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raysparse.errors import WorkerError
from raysparse.job import SearchJob, check_job, require_kind
from raysparse.launch import trials as trials_module
from raysparse.launch.proposal_queue import Handed as HandedOut
from raysparse.launch.proposal_queue import _Queue
from raysparse.launch.trials import ScoringActor, TrialDisplay, _AskAndTell, result_of, run_trials
from raysparse.search.journal import Journal
from raysparse.search.population import RandomSearchConfig, RegularizedEvolutionConfig, build_searcher
from tests.search.toy_space import HEADER, BitSpace


def outcome_of(score: Callable[[Any, Any], dict[str, float]]) -> dict[str, Any]:
    """What scoring a choice comes to."""
    actor: Any = object.__new__(ScoringActor)
    actor._objectives, actor._quality = (), "log_loss"
    actor._space = SimpleNamespace(parse=lambda tree: tree)
    actor._scorer = SimpleNamespace(score=score)
    return actor._score("{}")


def raising(error: Exception) -> Callable[[Any, Any], dict[str, float]]:
    def score(choice: Any, objectives: Any) -> dict[str, float]:
        raise error

    return score


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (KeyError("dense_op"), "error"),
        (RuntimeError("shapes cannot be multiplied"), "error"),
        (ZeroDivisionError("division by zero"), "error"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "lost"),
        (RuntimeError("CUDA error: out of memory"), "lost"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "lost"),
        (MemoryError("64"), "lost"),
        (OSError(5, "Input/output error"), "lost"),
    ],
)
def test_what_a_choice_fails_of_is_its_error_and_what_the_machine_lacks_is_not(error: Exception, key: str):
    outcome = outcome_of(raising(error))
    assert outcome.keys() == {key, "seconds"}
    assert outcome[key] == f"{type(error).__name__}: {error}"


def test_a_score_comes_back_as_it_is():
    outcome = outcome_of(lambda choice, objectives: {"log_loss": 0.1 + 0.2})
    assert outcome["objectives"] == {"log_loss": 0.30000000000000004}


class Handed:
    """Takes the place of the queue: what is handed out, and who has it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.held: dict[str, int] = {}
        self.ended = False

    def put(self, number: int, choice: str) -> None:
        self.numbers.append(number)

    def take(self, actor: str) -> int:
        self.held[actor] = self.numbers.pop(0)
        return self.held[actor]

    def lose(self, actor: str) -> int | None:
        return self.held.pop(actor, None)

    def end(self) -> None:
        self.ended = True


def journal_of(folder: Path) -> Journal:
    return Journal.open(folder / "journal.jsonl", HEADER)


def asking(journal: Journal, num_actors: int = 1) -> tuple[_AskAndTell, Handed, list[str]]:
    messages: list[str] = []
    queue: Any = Handed()
    searcher = build_searcher(RandomSearchConfig(num_trials=2), BitSpace(6), 1)
    display = TrialDisplay(lambda entry: None, messages.append)
    return _AskAndTell(searcher, journal, display, queue, num_actors), queue, messages


def test_an_actor_that_cannot_load_ends_the_search_with_what_it_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def load(actor: Any, job: Any, cache: str) -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    job = {"kind": "search", "name": "x", "run_folder": "x", "data": {"path": "x"}}
    monkeypatch.setattr(ScoringActor, "_load", load)
    actor = object.__new__(ScoringActor)
    actor.setup({}, {"job": job, "cache": "x", "queue": None})
    with journal_of(tmp_path) as journal:
        relay, queue, _ = asking(journal)
        assert relay.suggest("a") == {}
        relay.on_trial_result("a", actor.step())
        assert relay.is_faulty
        assert relay.is_over
        assert queue.ended
        assert relay.suggest("b") == "FINISHED"
        with pytest.raises(WorkerError, match="cannot load what it scores with: ImportError: libcudart"):
            relay.check()
        assert journal.entries == []


def test_energy_that_is_measured_here_and_counted_there_ends_the_search(tmp_path: Path):
    with journal_of(tmp_path) as journal:
        relay, queue, _ = asking(journal)
        for number, is_proxy in enumerate((0.0, 1.0)):
            relay.suggest("a")
            assert queue.take("a") == number
            score = {"log_loss": 0.5, "energy_uj": 7.0, "energy_is_proxy": is_proxy}
            relay.on_trial_result("a", result_of({"number": number, "objectives": score, "score": 0.5, "seconds": 2.0}))
        assert len(journal.entries) == 1
        with pytest.raises(WorkerError, match="energy_uj is measured by some actors and counted .* by others"):
            relay.check()


def test_a_lost_trial_is_scored_again_and_the_last_loss_is_its_error(tmp_path: Path):
    with journal_of(tmp_path) as journal:
        relay, queue, messages = asking(journal)
        relay.suggest("a")
        for attempt in range(3):
            assert queue.take("a") == 0
            relay.on_trial_result("a", result_of({"number": 0, "lost": f"OSError: disk {attempt}", "seconds": 1.5}))
            assert journal.entries == []
        assert messages[2] == "trial 0 was lost (OSError: disk 2); it is scored again"
        assert queue.take("a") == 0
        relay.on_trial_complete("a", None, error=True)
        assert [entry.error for entry in journal.entries] == ["lost 4 times, at last: its actor died"]
        # Another one has losses of its own.
        relay.suggest("b")
        assert queue.take("b") == 1
        relay.on_trial_complete("b", None, error=True)
        assert queue.take("c") == 1
        assert not relay.is_over
        score = {"number": 1, "objectives": {"log_loss": 0.5}, "score": 0.5, "seconds": 2.0}
        relay.on_trial_result("c", result_of(score))
        assert relay.is_over
        assert queue.ended
        relay.check()
        assert [entry.objectives for entry in journal.entries] == [None, {"log_loss": 0.5}]
    assert math.isnan(result_of({"lost": "x", "seconds": 0.0})["score"])


def test_no_more_is_on_its_way_than_there_are_actors(tmp_path: Path):
    with journal_of(tmp_path) as journal:
        relay, queue, _ = asking(journal, num_actors=1)
        relay.suggest("a")
        relay.suggest("b")
        assert queue.numbers == [0]


def test_actors_that_die_before_they_score_end_the_search(tmp_path: Path):
    with journal_of(tmp_path) as journal:
        relay, _, _ = asking(journal, num_actors=2)
        for death in range(7):
            assert not relay.is_over
            relay.suggest(str(death))
            relay.on_trial_complete(str(death), None, error=True)
        with pytest.raises(WorkerError, match="7 actors in a row died before they scored anything"):
            relay.check()


def test_what_a_dead_actor_had_is_known_and_it_gets_nothing_more():
    queue = _Queue()
    assert queue.take("a") == (None, False)
    queue.put(HandedOut(4, "{}"))
    queue.put(HandedOut(5, "{}"))
    assert queue.take("a") == ((4, "{}"), False)
    assert queue.lose("a") == 4
    assert queue.lose("a") is None
    assert queue.take("a") == (None, True)
    assert queue.take("b") == ((5, "{}"), False)
    queue.end()
    assert queue.take("c") == (None, True)


class CountingActor(ScoringActor):
    """Scores by its process."""

    def _load(self, job: Any, cache_url: str) -> None:
        pass

    def _score(self, choice: str) -> dict[str, Any]:
        return {"objectives": {"log_loss": 0.5, "process": float(os.getpid())}, "seconds": 0.0}


class DyingActor(CountingActor):
    """Its process ends while it scores the first choice that any of them takes."""

    def _load(self, job: Any, cache_url: str) -> None:
        self._mark = Path(cache_url)

    def _score(self, choice: str) -> dict[str, Any]:
        if not self._mark.exists():
            self._mark.write_text(choice)
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._score(choice)


def search_job() -> SearchJob:
    tree = {"kind": "search", "name": "x", "run_folder": "x", "data": {"path": "x"}, "trials": {"num_actors": 2}}
    return require_kind(SearchJob, check_job(tree, "test"), "test")


@pytest.mark.ray
def test_what_an_actor_was_scoring_when_it_died_is_scored_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_cluster: None
):
    monkeypatch.setattr(trials_module, "ScoringActor", DyingActor)
    messages: list[str] = []
    with journal_of(tmp_path) as journal:
        display = TrialDisplay(lambda entry: None, messages.append)
        searcher = build_searcher(RandomSearchConfig(num_trials=4), BitSpace(8), 1)
        run_trials(search_job(), str(tmp_path / "mark"), searcher, journal, display)
        assert sorted(entry.number for entry in journal.entries) == list(range(4))
        assert [entry.error for entry in journal.entries] == [None] * 4
        choices = [entry.choice for entry in journal.entries]
    assert json.loads((tmp_path / "mark").read_text()) in choices
    assert [text.partition(" was ")[2] for text in messages] == ["lost (its actor died); it is scored again"]


@pytest.mark.ray
def test_actors_stay_from_one_generation_to_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray_cluster: None
):
    monkeypatch.setattr(trials_module, "ScoringActor", CountingActor)
    config = RegularizedEvolutionConfig(
        objective="log_loss", num_initial=8, tournament=2, num_children=2, num_generations=8
    )
    with journal_of(tmp_path) as journal:
        display = TrialDisplay(lambda entry: None, lambda text: None)
        run_trials(search_job(), "x", build_searcher(config, BitSpace(8), 1), journal, display)
        assert sorted(entry.number for entry in journal.entries) == list(range(24))
        processes = {entry.objectives["process"] for entry in journal.entries if entry.objectives}
    assert len(processes) <= 2
