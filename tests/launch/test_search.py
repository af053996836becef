import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from raysparse.data.dataset import Day
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.data.split import SplitConfig, split_days
from raysparse.errors import CheckpointError, ConfigError, RunTakenError
from raysparse.job import SearchJob, check_job, refuse_changes, require_kind
from raysparse.launch.click_search import ClickSearch
from raysparse.launch.search import _say_what_no_network_keeps_to, open_search, search
from raysparse.search.journal import Entry, read_journal
from raysparse.train.run_folder import RunFolder
from tests.data.datasets import PLAIN, write_dataset
from tests.launch.processes import processes
from tests.train.ranks import history


class Screen:
    """Notes what a search shows."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.trials: list[tuple[int, int, float | None, int]] = []
        self.runs: list[str] = []
        self.messages: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def trial(self, done: int, total: int, best: float | None, failed: int) -> None:
        self.trials.append((done, total, best, failed))

    def run_done(self, name: str, validation: float | None, test: float | None, seconds: float) -> None:
        assert validation is not None
        assert test is not None
        self.runs.append(name)

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[600]] * 4)
    return str(path)


def job_of(data: str, folder: Path, **changes: Any) -> SearchJob:
    tree = {
        "kind": "search",
        "name": "test",
        "run_folder": str(folder),
        "data": {"path": data, "batch_size": 64},
        "space": {"kind": "ctr", "num_blocks": 3, "embedding_dim": 8, "dense_widths": [4, 8], "token_counts": [2, 4]},
        "supernet": {"sampling": {"warm_up_steps": 5}},
        "scoring": {"tuning_rows": 200, "tuning_steps": 5, "tuning_batch_size": 32},
        "searcher": {"kind": "evolution", "num_initial": 12, "tournament": 4, "num_children": 4, "num_generations": 4},
        "trials": {"num_actors": 2},
        "finalists": {"count": 1, "learning_rates": [1e-3], "num_parallel": 2, "weights": "inherited"},
        "baselines": [{"kind": "dlrm", "embedding_dim": 8, "bottom": [8], "top": [8]}],
        **changes,
    }
    return require_kind(SearchJob, check_job(tree, "test"), "test")


def run(job: SearchJob, mode: Any, screen: Screen | None = None) -> tuple[dict[str, Any], dict[str, Any], Screen]:
    screen = screen or Screen()
    job, folder = open_search(job, mode)
    return *search(job, folder, screen), screen


def scores(folder: Path) -> dict[int, tuple[str, Any]]:
    """What each trial came to, without the clock."""
    return {entry.number: (entry.key, entry.objectives) for entry in entries(folder)}


def entries(folder: Path) -> list[Entry]:
    return read_journal(folder / "journal.jsonl")[1]


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    rows = [{**row, "runs": [{**run, "seconds": 0, "folder": ""} for run in row["runs"]]} for row in results["rows"]]
    return {**results, "rows": rows}


class Killer(Screen):
    """Kills the search's actors once the third trial of this process has come in, while Tune waits for the screen."""

    def trial(self, done: int, total: int, best: float | None, failed: int) -> None:
        super().trial(done, total, best, failed)
        if len(self.trials) == 4:  # the first call says what was done before
            self.killed = processes("ScoringActor")
            for process in self.killed:
                os.kill(process.pid, signal.SIGKILL)


class BegunAnew(Screen):
    """Begins the search anew, as another process does, while this one is at its trials."""

    def __init__(self, job: SearchJob) -> None:
        super().__init__()
        self._job = job

    def trial(self, done: int, total: int, best: float | None, failed: int) -> None:
        open_search(self._job, "fresh")


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_search_that_is_disturbed_ends_where_an_undisturbed_one_does(data: str, tmp_path: Path, ray_cluster: None):
    folder = tmp_path / "run"
    results, summary, screen = run(job_of(data, folder), "new")
    assert screen.trials[-1][:2] == (28, 28)
    assert summary["num_trials"] == 28
    assert summary["num_failed"] == 0
    whole = scores(folder)
    assert len({key for key, _ in whole.values()}) == 28
    rows = results["rows"]
    assert [(row["kind"], row["name"], row["chosen"]) for row in rows] == [
        ("finalist", "1", True),
        ("baseline", "dlrm", False),
    ]
    best = min((objectives["log_loss"], key) for key, objectives in whole.values())
    assert (rows[0]["trial_log_loss"], rows[0]["key"]) == best
    assert sorted(screen.runs) == ["baseline dlrm, learning rate 0.001", "finalist 1, learning rate 0.001"]
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["validation_days"] == ["002"]
    assert results["test_days"] == ["003"]
    # With the supernet's weights, of the two training days the last one is enough.
    finalist, baseline = (Path(row["runs"][0]["folder"]) for row in rows)
    assert (finalist.parent, baseline.parent) == (folder / "finalists", folder / "baselines")
    days = [record["day"] for record in history(finalist)]
    assert days == ["001", "002", "003"]
    assert [record["day"] for record in history(baseline)] == ["000", *days]

    # As a killed driver leaves it: half of the scores, and half a line.
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:16]) + lines[16][:30])
    (folder / "results.json").unlink()
    killer = Killer()
    again, _, _ = run(job_of(data, folder), "resume", killer)
    assert "15 scored choices are taken from journal.jsonl" in killer.messages
    assert killer.killed
    assert scores(folder) == whole
    assert without_times(again) == without_times(results)

    # One more is trained alone, and no baseline: what has ended is taken over.
    finalists = {"count": 2, "learning_rates": [1e-3], "weights": "inherited"}
    more, _, screen = run(job_of(data, folder, finalists=finalists, baselines=[], trials={}), "resume")
    assert screen.runs == ["finalist 2, learning rate 0.001"]
    assert [row["name"] for row in more["rows"]] == ["1", "2"]
    assert more["rows"][0]["runs"] == again["rows"][0]["runs"]

    with pytest.raises(ConfigError, match="scoring.tuning_steps: 5 in the run, 6 in the job"):
        open_search(job_of(data, folder, scoring={"tuning_rows": 200, "tuning_steps": 6}), "resume")

    with pytest.raises(ConfigError, match="--resume goes on with it, --fresh"):
        open_search(job_of(data, folder), "new")
    # A supernet that is not the one whose features are cached.
    weights = folder / "cache" / "supernet.safetensors"
    own = weights.read_bytes()
    weights.write_bytes(own[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="the cache belongs to another checkpoint"):
        run(job_of(data, folder), "resume")
    weights.write_bytes(own)
    # All that a search leaves is known to be a run's; a process that is still at it ends.
    with pytest.raises(RunTakenError, match="was taken over by another process"):
        run(job_of(data, folder), "resume", BegunAnew(job_of(data, folder)))
    assert {path.name for path in folder.iterdir()} == {"job.yaml", "owner"}


def test_a_supernet_may_have_smaller_batches_than_finalists(tmp_path: Path):
    days = [Day(day=name, files=()) for name in "abcd"]
    folder = RunFolder(str(tmp_path))
    split = split_days(days, SplitConfig())
    schema = Schema(dense=(DenseFeature(name="x"),), ids=(IdFeature(name="a", rows=10),))
    small = job_of("x", tmp_path, supernet={"batch_size": 16})
    own = ClickSearch(small, schema, split).supernet_job(folder)
    assert (own.data.batch_size, own.data.last_day) == (16, "b")
    assert ClickSearch(job_of("x", tmp_path), schema, split).supernet_job(folder).data.batch_size == 64


def test_a_resumed_search_may_train_others_alone_and_take_more_of_the_cluster(tmp_path: Path):
    job = job_of("x", tmp_path)
    finalists = {"count": 3, "rank_by": "front", "learning_rates": [1e-3, 2e-3], "num_parallel": 1}
    other = job_of(
        "x", tmp_path, finalists={**finalists, "weights": "inherited"}, baselines=[], trials={"gpus_per_actor": 1}
    )
    refuse_changes(job, other)
    with pytest.raises(ConfigError, match='finalists.weights: "inherited" in the run, "drawn" in the job') as caught:
        refuse_changes(job, job_of("x", tmp_path, finalists=finalists))
    assert "finalists.count" not in str(caught.value).splitlines()[1]


def test_a_resumed_search_measures_times_with_the_same_threads(tmp_path: Path):
    searcher = {"kind": "nsga2", "objectives": ["log_loss", "latency_us"]}
    job, other = (job_of("x", tmp_path, searcher=searcher, trials={"threads_per_actor": count}) for count in (1, 2))
    with pytest.raises(ConfigError, match="trials.threads_per_actor: 1 in the run, 2 in the job"):
        refuse_changes(job, other)


def test_a_resumed_search_compares_over_the_same_days(tmp_path: Path):
    job = job_of("x", tmp_path)
    job, longer = (
        job.model_copy(update={"data": job.data.model_copy(update={"last_day": day})}) for day in ("002", "003")
    )
    with pytest.raises(ConfigError, match='data.last_day: "002" in the run, "003" in the job'):
        refuse_changes(job, longer)


@pytest.mark.ray
def test_a_space_without_a_member_within_the_budget_is_refused(data: str, tmp_path: Path, ray_cluster: None):
    space = {"kind": "ctr", "num_blocks": 3, "max_macs": 10}
    with pytest.raises(ConfigError, match="space.max_macs: found 10; the smallest network of the space takes"):
        run(job_of(data, tmp_path / "run", space=space), "new")


@pytest.mark.ray
def test_what_cannot_come_to_an_end_is_said_before_the_supernet(data: str, tmp_path: Path, ray_cluster: None):
    screen, folder = Screen(), tmp_path / "run"
    finalists = {"rank_by": "budgets", "budgets": [20_000, 63, 50]}
    job = job_of(data, folder, finalists=finalists, trials={"gpus_per_actor": 1})
    with pytest.raises(ConfigError, match=r"finalists.budgets: found 63, 50; .* takes 64 .* Allowed: 64 or more"):
        run(job, "new", screen)
    assert len(screen.messages) == 1
    assert "asks for 1 cores and 1 GPUs of one machine" in screen.messages[0]
    assert not (folder / "supernet").exists()


def test_a_budget_without_a_scored_network_is_named():
    entry = Entry(number=0, generation=0, key="a", choice={}, seconds=1.0, objectives={"log_loss": 0.5, "macs": 1500})
    screen, finalists = Screen(), {"rank_by": "budgets", "budgets": [2000, 1499]}
    _say_what_no_network_keeps_to(job_of("x", Path("y"), finalists=finalists), [entry], screen)
    assert screen.messages == [
        "finalists.budgets: no network within 1,499 multiply-adds has been scored; the smallest scored one takes 1,500"
    ]


@pytest.mark.ray
def test_a_split_that_leaves_no_day_to_train_on_is_refused(data: str, tmp_path: Path, ray_cluster: None):
    split = {"validation_days": 2, "test_days": 2}
    with pytest.raises(ConfigError, match="the stream has 4 days, of which at least one has to be left to train on"):
        run(job_of(data, tmp_path / "run", split=split), "new")


def test_an_unknown_objective_is_refused(data: str, tmp_path: Path):
    searcher = {"kind": "nsga2", "objectives": ["log_loss", "watts"]}
    with pytest.raises(ConfigError, match=r"searcher.objectives: found \"watts\"; allowed: log_loss, macs"):
        job_of(data, tmp_path / "run", searcher=searcher)
