import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from raysparse.cost.record import Cost
from raysparse.data.dataset import Day
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.data.split import Split
from raysparse.errors import ConfigError, WorkerError
from raysparse.job import ASHAConfig, SearchJob, check_job, require_kind
from raysparse.launch import contest as contest_module
from raysparse.launch.click_search import ClickSearch, mean_scores
from raysparse.launch.contest import Contest, compete
from raysparse.launch.entrants import Contender, entrants_of
from raysparse.launch.tune_trials import TrialSettings, build_scheduler
from raysparse.models.dlrm import DLRMConfig
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.train.run_folder import HISTORY, RunFolder
from tests.launch.test_tune_trials import days_until_stop

COST = Cost(macs=10, parameters=20, embedding_bytes=30)
DLRM = Contender("baseline", "dlrm", DLRMConfig(kind="dlrm"), COST, {"rank": None})
FIRST = Contender("finalist", "1", DLRMConfig(kind="dlrm"), COST, {"rank": 1})
OTHER = DLRMConfig(kind="dlrm", top=(8,))
SCHEMA = Schema(dense=(DenseFeature(name="x"),), ids=(IdFeature(name="a", rows=10),))
SPLIT = Split(*((Day(day=name, files=()),) for name in ("a", "b", "c")))


class Screen:
    """Notes what a contest shows."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, float | None, float | None]] = []
        self.messages: list[str] = []

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None:
        self.runs.append((name, validation, test))

    def message(self, text: str) -> None:
        self.messages.append(text)


def job_of(folder: Path, **finalists: Any) -> SearchJob:
    tree = {
        "kind": "search",
        "name": "test",
        "run_folder": str(folder),
        "data": {"path": "nowhere"},
        "finalists": {"learning_rates": [0.1, 0.2], **finalists},
    }
    return require_kind(SearchJob, check_job(tree, "test"), "test")


def contest_of(folder: Path, contenders: list[Contender], **finalists: Any) -> tuple[Contest, Screen]:
    job, screen, own = job_of(folder, **finalists), Screen(), RunFolder(str(folder))
    kind = ClickSearch(job, SCHEMA, SPLIT)
    return Contest(entrants_of(job, contenders, own), kind, own, screen), screen


def finish(contest: Contest, number: int, validation: float, test: float) -> None:
    """Leave what a run leaves, and end it."""
    job = contest.start(number)
    lines: list[dict[str, Any]] = [
        {"day": day, "arm": "trained", "rows": 10, "log_loss": loss, "auc": 0.5}
        for day, loss in (("a", 9.0), ("b", validation), ("c", test))
    ]
    folder = Path(job.run_folder)
    folder.mkdir(parents=True)
    (folder / HISTORY).write_text("".join(json.dumps(line) + "\n" for line in lines))
    contest.end(number, {"metric": 0.5, "auc": 0.5, "seconds": 7.0}, [9.0])


def test_the_validation_days_choose_the_learning_rate_and_the_test_days_nothing(tmp_path: Path):
    contest, screen = contest_of(tmp_path, [FIRST])
    assert contest.start(1).optimizer.dense.learning_rate == 0.2
    finish(contest, 0, validation=0.4, test=0.6)
    finish(contest, 1, validation=0.5, test=0.3)
    assert contest.left() == []
    row = contest.row(FIRST)
    assert row is not None
    assert (row["learning_rate"], row["validation_log_loss"], row["test_log_loss"]) == (0.1, 0.4, 0.6)
    assert [run["test_log_loss"] for run in row["runs"]] == [0.6, 0.3]
    assert (row["macs"], row["rank"]) == (10, 1)
    assert screen.runs[0] == ("finalist 1, learning rate 0.1", 0.4, 0.6)


def test_one_run_that_fails_costs_its_learning_rate_and_is_tried_again_when_resumed(tmp_path: Path):
    contest, screen = contest_of(tmp_path, [FIRST, DLRM])
    finish(contest, 0, validation=0.4, test=0.6)
    contest.start(1)
    contest.end(1, {"error": "the loss is nan"}, [])
    contest.start(2)
    contest.end(2, None, [0.7, 0.65])
    contest.start(3)
    contest.end(3, {"error": "the loss is nan"}, [])
    assert contest.left() == []
    row = contest.row(FIRST)
    assert row is not None
    assert len(row["runs"]) == 1
    assert contest.row(DLRM) is None
    reason = "learning rate 0.1 stopped after 2 days at log loss 0.65000; learning rate 0.2 failed: the loss is nan"
    assert contest.reason(DLRM) == reason
    assert not contest.was_stopped(DLRM)
    assert screen.messages[0] == "finalist 1, learning rate 0.2: failed: the loss is nan"

    again, _ = contest_of(tmp_path, [FIRST, DLRM])
    assert again.left() == [1, 3]
    finish(again, 1, validation=0.3, test=0.6)
    row = again.row(FIRST)
    assert row is not None
    assert row["learning_rate"] == 0.2


def test_a_finalist_whose_runs_were_all_stopped_has_not_failed(tmp_path: Path):
    contest, _ = contest_of(tmp_path, [FIRST])
    for number in contest.left():
        contest.start(number)
        contest.end(number, None, [0.7, 0.65])
    assert contest.row(FIRST) is None
    assert contest.was_stopped(FIRST)


def test_inherited_weights_are_those_of_the_network_as_it_was_drawn(tmp_path: Path):
    drawn = NASRecConfig(blocks=(BlockChoice(dense_width=8, num_tokens=4),))
    finalist = replace(FIRST, model=drawn, drawn=drawn)
    contest, _ = contest_of(tmp_path, [finalist, DLRM], weights="inherited", inherited_days=1)
    job = contest.start(0)
    assert job.start_from is not None
    assert (job.start_from.run_folder, job.start_from.drawn) == (str(tmp_path / "supernet"), drawn)
    assert job.data.first_day == "a"
    baseline = contest.start(2)
    assert (baseline.start_from, baseline.data.first_day) == (None, None)
    contest, _ = contest_of(tmp_path / "none", [finalist], weights="inherited", inherited_days=0)
    assert contest.start(0).data.first_day == "b"
    contest, _ = contest_of(tmp_path / "drawn", [finalist])
    assert contest.start(0).start_from is None


def test_a_resumed_contest_runs_who_is_new_and_keeps_the_runs_of_the_others(tmp_path: Path):
    contest, _ = contest_of(tmp_path, [FIRST, DLRM])
    for number, validation in enumerate((0.4, 0.5, 0.6, 0.7)):
        finish(contest, number, validation, test=0.6)
    # Another one is first now, the baseline is gone, and there is a third learning rate.
    better, second = replace(FIRST, model=OTHER), replace(FIRST, name="2", facts={"rank": 2})
    again, _ = contest_of(tmp_path, [better, second], learning_rates=[0.2, 0.3, 0.1])
    assert again.total == 6
    assert [again.start(number).model for number in again.left()] == [OTHER, OTHER, OTHER, FIRST.model]
    assert len(again.done()) == 2
    for number, validation in zip(again.left(), (0.8, 0.9, 0.7, 0.3), strict=True):
        finish(again, number, validation, test=0.5)
    rows = [again.row(contender) for contender in (better, second)]
    assert [[run["validation_log_loss"] for run in row["runs"]] for row in rows if row] == [
        [0.8, 0.9, 0.7],
        [0.5, 0.3, 0.4],
    ]
    assert [row["rank"] for row in rows if row] == [1, 2]
    # As it was asked for first.
    first, _ = contest_of(tmp_path, [FIRST, DLRM])
    assert first.left() == []
    row = first.row(DLRM)
    assert row is not None
    assert row["validation_log_loss"] == 0.6


@pytest.mark.parametrize(
    "other",
    [
        replace(FIRST, model=OTHER),
        replace(FIRST, drawn=NASRecConfig(blocks=(BlockChoice(dense_width=8, num_tokens=4),))),
        replace(FIRST, kind="baseline"),
    ],
)
def test_another_network_of_the_same_rank_never_meets_the_run(tmp_path: Path, other: Contender):
    contest, _ = contest_of(tmp_path, [FIRST])
    job = contest.start(0)
    finish(contest, 0, validation=0.4, test=0.6)
    again, _ = contest_of(tmp_path, [other])
    number = again.left()[0]
    assert number != 0
    theirs = again.start(number)
    assert (theirs.run_folder == job.run_folder, theirs.name == job.name) == (False, False)


def test_a_run_that_was_begun_goes_on_whatever_its_rank_is_now(tmp_path: Path):
    contest, _ = contest_of(tmp_path, [FIRST])
    job = contest.start(0)
    again, _ = contest_of(tmp_path, [replace(FIRST, model=OTHER), replace(FIRST, name="2")])
    assert again.start(0) == job


def test_the_days_that_stop_runs_early_are_those_before_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    split = Split(*(tuple(Day(day=f"{part}{day}", files=()) for day in range(2)) for part in "abc"))
    job = job_of(tmp_path, asha={"grace_days": 1, "reduction_factor": 5})
    schedulers: list[TrialScheduler] = []

    def run(contest: Contest, settings: TrialSettings) -> None:
        schedulers.append(build_scheduler(settings.asha, contest.done(), settings.num_days))
        raise WorkerError("ended here")

    monkeypatch.setattr(contest_module, "run_trials", run)
    with pytest.raises(WorkerError, match="ended here"):
        compete(job, [FIRST], ClickSearch(job, SCHEMA, split), RunFolder(str(tmp_path)), Screen())
    # The fifth day is a rung of six days; it is the first of the test.
    means = ([0.5] * 6, [0.5] * 4 + [0.9] * 2, [0.6] * 6)
    assert [days_until_stop(schedulers[0], str(number), trial) for number, trial in enumerate(means)] == [None, None, 1]
    for days in (4, 5):
        grace = ASHAConfig(grace_days=days)
        with pytest.raises(ConfigError, match=f"grace_days: found {days}; allowed: less than the 4 days"):
            build_scheduler(grace, [], ClickSearch(job, SCHEMA, split).num_days_before_test)


def test_finalists_are_stopped_by_each_other_alone_and_baselines_run_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    split = Split(*((Day(day=name, files=()),) for name in ("a", "b", "c")))
    job = job_of(tmp_path, asha={"grace_days": 1, "reduction_factor": 2})
    asked: list[tuple[bool, list[str]]] = []

    def run(contest: Contest, settings: TrialSettings) -> None:
        entrants = [contest.start(number).name.partition("-")[0] for number in contest.left()]
        asked.append((settings.asha is not None, entrants))
        assert contest.total == len(entrants)
        # All of them fail but one finalist's first.
        first, *others = contest.left()
        finish(contest, first, validation=0.4, test=0.6)
        for number in others:
            contest.end(number, {"error": "the loss is nan"}, [])

    monkeypatch.setattr(contest_module, "run_trials", run)
    second = replace(FIRST, name="2", model=OTHER)
    rows, without = compete(
        job, [DLRM, FIRST, second], ClickSearch(job, SCHEMA, split), RunFolder(str(tmp_path)), Screen()
    )
    assert asked == [(True, ["finalist"] * 4), (False, ["baseline"] * 2)]
    assert [(row["name"], row["chosen"]) for row in rows] == [("dlrm", False), ("1", True)]
    (failed,) = without
    assert (failed["name"], failed["reason"].count("the loss is nan"), failed["stopped"]) == ("2", 2, False)


def test_days_weigh_by_their_rows():
    history = [
        {"day": "a", "rows": 10, "log_loss": 0.2, "auc": None},
        {"day": "b", "rows": 30, "log_loss": 0.6, "auc": 0.7},
    ]
    days = [Day(day=name, files=()) for name in "ab"]
    assert mean_scores(history, days) == {"log_loss": pytest.approx(0.5), "auc": 0.7}
    assert mean_scores(history[:1], days) == {"log_loss": 0.2, "auc": None}
