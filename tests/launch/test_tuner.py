"""Whole tune runs on a real Ray of this machine."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raysparse.cli import main
from raysparse.errors import ConfigError
from raysparse.job import TuneJob
from raysparse.launch.tune_log import TrialRecord
from raysparse.launch.tuner import open_tune, ranked, require_best, tune
from tests.data.datasets import PLAIN, write_dataset
from tests.launch.processes import OF_A_RUN, left_behind, processes
from tests.launch.tune_jobs import RATE, choice, tune_job
from tests.train.ranks import history

NUM_DAYS = 8
NUM_ROWS = 2000


class Screen:
    """Notes what a tune run shows."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.ended: list[tuple[int, str]] = []
        self.messages: list[str] = []

    def trial_started(self, number: int, values: dict[str, Any]) -> None:
        self.started.append(number)

    def trial_ended(self, record: dict[str, Any], done: int, total: int) -> None:
        self.ended.append((record["number"], record["status"]))

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[NUM_ROWS]] * NUM_DAYS)
    return str(path)


def run(job: TuneJob, mode: Any) -> tuple[dict[str, Any], Screen]:
    screen = Screen()
    job, folder = open_tune(job, mode)
    return tune(job, folder, screen), screen


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    return {"best": summary["best"], "trials": [{**trial, "seconds": 0} for trial in summary["trials"]]}


def kill_workers(folder: Path) -> None:
    """Kill all workers once one of the run's trials is on its third day: the other one's may be about to end anyway."""
    while not any(path.read_text().count("\n") >= 2 for path in folder.glob("trials/*/history.jsonl")):
        time.sleep(0.02)
    for worker in processes("RayTrainWorker"):
        os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.ray
def test_a_run_that_is_disturbed_ends_with_the_table_of_an_undisturbed_one(
    data: str, tmp_path: Path, ray_cluster: None
):
    folder = tmp_path / "run"
    job = tune_job(
        folder,
        {RATE: choice(1e-4, 1e-2)},
        data=data,
        job={"warm_up_days": 1, "checkpoint": {"keep": 9}, "optimizer": {"dense": {"kind": "sgd"}}},
        searcher={"kind": "grid"},
        num_parallel=2,
        last_days=2,
    )
    killer = threading.Thread(target=kill_workers, args=(folder,))
    killer.start()
    summary, screen = run(job, "new")
    killer.join()
    assert sorted(screen.ended) == [(0, "finished"), (1, "finished")]
    assert any(": failed: rank 0" in message for message in screen.messages)
    best, other = summary["trials"]
    assert best["metric"] < other["metric"]
    assert summary["best"]["number"] == best["number"]
    assert summary["best"]["overrides"] == f"{RATE}={best['values'][RATE]}"
    assert summary["best"]["run_folder"] == str(folder / "trials" / f"{best['number']:03d}")
    assert (summary["num_trials"], summary["num_failed"], summary["num_stopped"]) == (2, 0, 0)
    assert json.loads((folder / "summary.json").read_text()) == summary
    # The metric is that of the last two days, the means those of all days past warm-up; all days have as many rows.
    losses = [record["log_loss"] for record in history(folder / "trials" / f"{best['number']:03d}")]
    assert best["metric"] == pytest.approx(sum(losses[-2:]) / 2)
    assert best["means"] == pytest.approx([sum(losses[1 : 1 + count]) / count for count in range(1, NUM_DAYS)])

    # As a killed driver leaves it: one trial is done, and one is on its third day.
    whole = (folder / "trials" / "000" / "summary.json").read_text()
    lines = (folder / "trials.jsonl").read_text().splitlines(keepends=True)
    kept = [
        next(line for line in lines if json.loads(line)["number"] == number and f'"{status}"' in line)
        for number, status in ((0, "finished"), (1, "started"))
    ]
    (folder / "trials.jsonl").write_text("".join(kept))
    (folder / "summary.json").unlink()
    cut_off(folder / "trials" / "001", days=2)
    again, screen = run(job, "resume")
    assert screen.messages[0] == "1 of 2 trials are done already"
    assert "trial 1: goes on from checkpoint step-000000064 (day 002, batch 0)" in screen.messages
    assert screen.ended == [(1, "finished")]
    assert without_times(again) == without_times(summary)
    assert (folder / "trials" / "000" / "summary.json").read_text() == whole
    assert json.loads((folder / "trials" / "001" / "summary.json").read_text())["resumed"]

    # What is whole runs nothing any more.
    same, screen = run(job, "resume")
    assert screen.started == []
    assert without_times(same) == without_times(summary)
    # All that a tune run leaves is known to be a run's.
    open_tune(job, "fresh")
    assert {path.name for path in folder.iterdir()} == {"job.yaml", "owner"}


def cut_off(folder: Path, days: int) -> None:
    """Leave of a finished run what it was after so many days."""
    (folder / "summary.json").unlink()
    for checkpoint in sorted(folder.glob("checkpoints/step-*"))[days:]:
        shutil.rmtree(checkpoint)
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    # The driver was killed after a day was written and before it was saved.
    (folder / "history.jsonl").write_text("".join(lines[: days + 1]))


@pytest.mark.ray
def test_a_trial_that_is_behind_is_stopped_and_one_that_fails_is_written_down(
    data: str, tmp_path: Path, ray_cluster: None
):
    job = tune_job(
        tmp_path / "run",
        # The last one makes a loss that is not finite.
        {RATE: choice(1e-2, 1e-7, 1e30)},
        data=data,
        # A trial is told to stop while it goes on: its days have to take longer than the word does to reach it.
        job={
            "data": {"path": data, "batch_size": 8},
            "warm_up_days": 1,
            "optimizer": {"dense": {"kind": "sgd"}},
        },
        searcher={"kind": "grid"},
        asha={"grace_days": 1, "reduction_factor": 2},
    )
    before = processes(*OF_A_RUN)
    summary, screen = run(job, "new")
    # A trial's process says so before its workers are gone.
    assert left_behind(before, timeout_s=20) == set()
    assert screen.ended == [(0, "finished"), (1, "stopped"), (2, "failed")]
    whole, stopped, failed = summary["trials"]
    assert summary["best"]["number"] == 0
    assert (summary["num_trials"], summary["num_failed"], summary["num_stopped"]) == (3, 1, 1)
    assert len(whole["means"]) == NUM_DAYS - 1
    assert len(stopped["means"]) == 1
    assert stopped["means"][0] > whole["means"][0]
    assert (stopped["metric"], failed["metric"]) == (None, None)
    assert "the loss of arm 'trained' is nan on day 000" in failed["error"]
    assert len(history(tmp_path / "run" / "trials" / "001")) < NUM_DAYS
    assert not (tmp_path / "run" / "trials" / "001" / "summary.json").exists()


@pytest.mark.ray
def test_more_last_days_than_a_trial_has_are_refused(data: str, tmp_path: Path, ray_cluster: None):
    job = tune_job(tmp_path / "run", {RATE: choice(0.1)}, data=data, last_days=NUM_DAYS, job={"warm_up_days": 1})
    with pytest.raises(ConfigError, match="last_days: found 8; allowed: up to the 7 days past job.warm_up_days"):
        run(job, "new")


def test_a_run_folder_is_never_taken_by_accident(tmp_path: Path):
    space = {RATE: choice(0.1, 0.2)}
    job = tune_job(tmp_path / "run", space)
    open_tune(job, "resume")
    with pytest.raises(ConfigError, match="exists already; --resume goes on with it, --fresh deletes it"):
        open_tune(job, "new")
    # More trials at the same time, or of the same draws, are the same run; another metric is not.
    open_tune(tune_job(tmp_path / "run", space, num_parallel=3, num_trials=40), "resume")
    # So is what says the same, and what a train run may change when it goes on.
    open_tune(tune_job(tmp_path / "run", space, job={"warm_up_days": 0, "scaling": {"num_workers": 4}}), "resume")
    with pytest.raises(ConfigError, match=r"differs .*\n  job.warm_up_days: 0 in the run, 1 in the job\nOnly "):
        open_tune(tune_job(tmp_path / "run", space, job={"warm_up_days": 1}), "resume")
    with pytest.raises(ConfigError, match="last_days: 1 in the run, 2 in the job"):
        open_tune(tune_job(tmp_path / "run", space, last_days=2), "resume")
    (tmp_path / "run" / "trials.jsonl").write_text("{}\n")
    open_tune(job, "fresh")
    assert not (tmp_path / "run" / "trials.jsonl").exists()
    with pytest.raises(ConfigError, match=r"learning_rate: found -0.1; allowed: greater than 0 \(trial 0\)"):
        open_tune(tune_job(tmp_path / "other", {RATE: choice(-0.1)}, num_trials=1), "new")
    assert not (tmp_path / "other").exists()


def record(number: int, status: str, **fields: Any) -> TrialRecord:
    return TrialRecord.model_validate({"number": number, "values": {}, "run_folder": "", "status": status, **fields})


def test_the_best_is_among_the_finished_trials():
    trials = [
        record(0, "failed", error="x"),
        record(1, "stopped", means=(0.1,)),
        record(2, "finished", means=(0.5, 0.5), metric=0.5),
        record(3, "stopped", means=(0.6, 0.6)),
        record(4, "finished", means=(0.6, 0.4), metric=0.4),
    ]
    assert [trial.number for trial in ranked(trials)] == [4, 2, 3, 1, 0]


def test_a_run_without_a_finished_trial_is_an_error():
    trials = [record(0, "failed", error="no such day").model_dump()]
    with pytest.raises(Exception, match="none of 1 trials has finished; the first error: no such day"):
        require_best({"best": None, "num_trials": 1, "trials": trials})


def test_the_command_takes_tune_jobs_alone(tmp_path: Path):
    (tmp_path / "job.yaml").write_text("{kind: train, name: x, run_folder: y, data: {path: z}}")
    result = CliRunner().invoke(main, ["tune", str(tmp_path / "job.yaml")])
    assert result.exit_code == 1
    assert "kind: found 'train'; allowed: tune. `raysparse train` runs a job of that kind" in result.output
