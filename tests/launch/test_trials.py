import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raysparse.errors import WorkerError
from raysparse.launch.trials import ScoringTrial, TrialDisplay, _AskAndTell, result_of
from raysparse.search.journal import Journal
from raysparse.search.population import RandomSearchConfig, build_searcher
from tests.search.toy_space import HEADER, BitSpace


def outcome_of(score: Callable[[Any, Any], dict[str, float]]) -> dict[str, Any]:
    """What a step tells the driver."""
    trial: Any = object.__new__(ScoringTrial)
    trial._fault, trial._choice, trial._objectives, trial._quality = None, {"choice": "{}"}, (), "log_loss"
    trial._space = SimpleNamespace(parse=lambda tree: tree)
    trial._scorer = SimpleNamespace(score=score)
    return json.loads(trial.step()["outcome"])


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


def test_an_actor_that_cannot_load_ends_the_search_with_what_it_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def load(trial: Any, job: Any, cache: str) -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    job = {"kind": "search", "name": "x", "run_folder": "x", "data": {"path": "x"}}
    monkeypatch.setattr(ScoringTrial, "_load", load)
    trial = object.__new__(ScoringTrial)
    trial.setup({"choice": "{}"}, {"job": job, "cache": "x"})
    with journal_of(tmp_path) as journal:
        relay, _ = asking(journal)
        assert relay.suggest("a")
        relay.on_trial_complete("a", trial.step())
        assert relay.is_faulty
        with pytest.raises(WorkerError, match="cannot load what it scores with: ImportError: libcudart"):
            relay.check()
        assert journal.entries == []


def journal_of(folder: Path) -> Journal:
    return Journal.open(folder / "journal.jsonl", HEADER)


def asking(journal: Journal) -> tuple[_AskAndTell, list[str]]:
    messages: list[str] = []
    searcher = build_searcher(RandomSearchConfig(num_trials=2), BitSpace(6), 1)
    return _AskAndTell(searcher, journal, TrialDisplay(lambda entry: None, messages.append)), messages


def test_a_lost_trial_is_scored_again_and_the_last_loss_is_its_error(tmp_path: Path):
    with journal_of(tmp_path) as journal:
        relay, messages = asking(journal)
        first = relay.suggest("0")
        for attempt in range(3):
            relay.on_trial_complete(str(attempt), result_of({"lost": f"OSError: disk {attempt}", "seconds": 1.5}))
            assert journal.entries == []
            assert relay.suggest(str(attempt + 1)) == first
        assert messages[2] == "trial 0 was lost (OSError: disk 2); it is scored again"
        relay.on_trial_complete("3", None, error=True)
        assert [entry.error for entry in journal.entries] == ["lost 4 times, at last: its actor died"]
        # Another one has losses of its own.
        relay.suggest("4")
        relay.on_trial_complete("4", None, error=True)
        relay.suggest("5")
        relay.on_trial_complete("5", result_of({"objectives": {"log_loss": 0.5}, "score": 0.5, "seconds": 2.0}))
        relay.check()
        assert [entry.objectives for entry in journal.entries] == [None, {"log_loss": 0.5}]
    assert math.isnan(result_of({"lost": "x", "seconds": 0.0})["score"])
