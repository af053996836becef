"""Whole runs on a real Ray of this machine."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from raysparse.errors import ConfigError, DataError, PlanError
from raysparse.job import TrainJob, check_train_job
from raysparse.launch.trainer import open_run, train
from tests.data.datasets import PLAIN, write_dataset
from tests.launch.processes import OF_A_RUN, left_behind, processes
from tests.train.ranks import history, run_job

pytestmark = pytest.mark.ray


class Screen:
    """Keeps what a run shows."""

    def __init__(self) -> None:
        self.tables: list[dict[str, Any]] = []
        self.days: list[str] = []
        self.messages: list[str] = []
        self.day_shown = threading.Event()

    def plan(self, rows: list[dict[str, Any]]) -> None:
        self.tables = rows

    def progress(self, event: dict[str, Any]) -> None:
        assert 0 < event["rows_done"] <= event["rows_of_phase"][event["phase"]]

    def day(self, records: list[dict[str, Any]]) -> None:
        self.days.append(records[0]["day"])
        self.day_shown.set()

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[2000]] * 10)
    return str(path)


def job_of(path: str, folder: Path, **changes: Any) -> TrainJob:
    tree = {
        "kind": "train",
        "name": "test",
        "run_folder": str(folder),
        "data": {"path": path, "batch_size": 64},
        "model": {"kind": "dlrm", "embedding_dim": 4, "bottom": [8], "top": [8]},
        "scaling": {"num_workers": 2},
        "callbacks": [{"kind": "frozen_arm", "after_days": 2}],
        **changes,
    }
    return check_train_job(tree, "test")


def run(job: TrainJob, mode: Any = "new") -> tuple[dict[str, Any], Screen]:
    screen = Screen()
    job, folder = open_run(job, mode)
    return train(job, folder, screen), screen


def test_a_killed_worker_is_replaced_and_the_history_stays_the_same(data: str, tmp_path: Path, ray_cluster: None):
    summary, screen = run(job_of(data, tmp_path / "whole"))
    assert screen.days == [f"{day:03d}" for day in range(10)]
    assert [(table["table"], table["rows"]) for table in screen.tables] == [("user", 1000), ("item", 500)]
    assert summary["days"] == 10
    assert summary["arms"]["frozen"]["days"] == 8
    assert summary["peak_worker_gib"] > 0.1

    screen = Screen()
    killer = threading.Thread(target=kill_a_worker, args=(screen,))
    killer.start()
    job, folder = open_run(job_of(data, tmp_path / "killed"), "new")
    train(job, folder, screen)
    killer.join()
    assert any("restart 1 of 3" in message for message in screen.messages)
    assert any("goes on from checkpoint step-" in message for message in screen.messages)
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    # Of a finished run nothing is started again; its summary is what it was.
    before = processes(*OF_A_RUN)
    again, screen = run(job_of(data, tmp_path / "whole"), "resume")
    assert again == summary
    assert screen.messages == ["all days are done already"]
    assert processes(*OF_A_RUN) <= before
    # All that a run leaves is known to be a run's.
    open_run(job, "fresh")
    assert sorted(os.listdir(tmp_path / "killed")) == ["job.yaml", "owner"]


def kill_a_worker(screen: Screen) -> None:
    """Kill one of this run's two workers, and of no other run on this machine, once two days are done."""
    while len(screen.days) < 2:
        screen.day_shown.wait(60)
        time.sleep(0.05)
    os.kill(processes("RayTrainWorker").pop().pid, signal.SIGKILL)


def test_a_plan_that_does_not_fit_ends_the_run_with_the_reason(data: str, tmp_path: Path, ray_cluster: None):
    job = job_of(data, tmp_path / "run", sharding={"memory_per_worker_gib": 1e-6}, scaling={"num_workers": 1})
    with pytest.raises(PlanError, match=r"no sharding plan: .* Change scaling.num_workers, sharding.memory_per_worker"):
        run(job)


def test_a_file_that_one_rank_cannot_read_ends_the_run(tmp_path: Path, ray_cluster: None):
    dataset = write_dataset(tmp_path / "set", PLAIN, [[500], [300, 300]])
    file = tmp_path / "set" / dataset.days[1].files[1].path
    file.write_bytes(file.read_bytes()[:1500])
    before = processes(*OF_A_RUN)
    with pytest.raises(DataError, match="part-00001.parquet: row group 0 cannot be read"):
        run(job_of(dataset.path, tmp_path / "run"))
    assert left_behind(before, timeout_s=10) == set()
    assert [record["day"] for record in history(tmp_path / "run")] == ["000"]


def test_missing_days_and_missing_data_are_refused_before_workers_start(data: str, tmp_path: Path, ray_cluster: None):
    with pytest.raises(ConfigError, match="data.first_day: found '777'; .* has the days 000 to 009"):
        run(job_of(data, tmp_path / "run", data={"path": data, "first_day": "777"}))
    with pytest.raises(DataError, match="does not exist; make one with `raysparse prepare"):
        run(job_of(str(tmp_path / "none"), tmp_path / "other"))


def test_a_run_folder_is_never_taken_by_accident(data: str, tmp_path: Path):
    job = job_of(data, tmp_path / "run")
    open_run(job, "resume")
    with pytest.raises(ConfigError, match="exists already; --resume goes on with it, --fresh deletes it"):
        open_run(job, "new")
    with pytest.raises(ConfigError, match="seed: 1 in the run, 2 in the job"):
        open_run(job_of(data, tmp_path / "run", seed=2), "resume")
    (tmp_path / "run" / "history.jsonl").write_text("{}\n")
    open_run(job, "fresh")
    assert not (tmp_path / "run" / "history.jsonl").exists()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("you")
    for mode in ("new", "resume", "fresh"):
        with pytest.raises(ConfigError, match="holds other things than a run"):
            open_run(job_of(data, tmp_path / "letters"), mode)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "you"


def test_workers_multiply_matrices_with_the_precision_of_the_job(
    data: str, tmp_path: Path, ray_cluster: None, one_rank: None
):
    def job(precision: str) -> TrainJob:
        tree = {
            "data": {"path": data, "batch_size": 512, "last_day": "001"},
            "model": {"kind": "dlrm", "top": [512, 512]},
            "scaling": {"num_workers": 1, "matmul_precision": precision},
        }
        return job_of(data, tmp_path / precision, callbacks=[], **tree)

    def losses(precision: str) -> list[float]:
        return [line["log_loss"] for line in history(tmp_path / precision)]

    run_job(job("highest"))  # in this process, whose precision is torch's default
    run(job("medium"))
    exact, coarse = losses("highest"), losses("medium")
    assert coarse == pytest.approx(exact, rel=0.02)
    assert (coarse != exact) == multiplies_otherwise("medium")


def multiplies_otherwise(precision: str) -> bool:
    """Whether this machine multiplies float32 matrices in another way when it may be less precise."""
    matrix = torch.rand(512, 512)
    exact = matrix @ matrix
    torch.set_float32_matmul_precision(precision)
    other = matrix @ matrix
    torch.set_float32_matmul_precision("highest")
    return not torch.equal(exact, other)
