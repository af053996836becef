from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raysparse.errors import CheckpointError, ConfigError
from raysparse.job import ASHAConfig
from raysparse.launch.train_trial import MEAN, NUM_DAYS, means_so_far, weighted_mean
from raysparse.launch.tune_log import TrialRecord
from raysparse.launch.tune_trials import Trials, build_scheduler
from raysparse.launch.tune_values import build_proposer
from raysparse.train.run_folder import RunFolder
from tests.launch.tune_jobs import RATE, choice, tune_job


class Silent:
    """Shows nothing."""

    def trial_started(self, number: int, values: dict[str, Any]) -> None:
        pass

    def trial_ended(self, record: dict[str, Any], done: int, total: int) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def days_until_stop(scheduler: TrialScheduler, name: str, means: list[float]) -> int | None:
    trial: Any = SimpleNamespace(trial_id=name)
    nobody: Any = None
    scheduler.on_trial_add(nobody, trial)
    for days, mean in enumerate(means, start=1):
        if scheduler.on_trial_result(nobody, trial, {NUM_DAYS: days, MEAN: mean}) == TrialScheduler.STOP:
            return days
    return None


def test_a_scheduler_that_is_told_of_earlier_trials_decides_as_one_that_saw_them(tmp_path: Path):
    job = tune_job(tmp_path, {RATE: choice(0.1)}, asha={"grace_days": 1, "reduction_factor": 2})
    means = [[0.5] * 8, [0.4] * 8, [0.6] * 8, [0.4, 0.46, 0.5, 0.5], [0.3] * 3 + [0.9] * 5]
    live = build_scheduler(job.asha, [], 8)
    decisions = [days_until_stop(live, str(number), trial) for number, trial in enumerate(means)]
    assert decisions == [None, None, 1, 2, 4]
    for killed in range(len(means)):
        done = [
            TrialRecord(
                number=number,
                values={},
                run_folder="x",
                status="finished" if decisions[number] is None else "stopped",
                means=tuple(trial[: decisions[number]]),
            )
            for number, trial in enumerate(means[:killed])
        ]
        resumed = build_scheduler(job.asha, done, 8)
        again = [days_until_stop(resumed, str(number), means[number]) for number in range(killed, len(means))]
        assert again == decisions[killed:]


def test_the_last_day_stops_no_trial_and_a_grace_of_all_days_is_refused():
    assert isinstance(build_scheduler(None, [], 3), FIFOScheduler)
    scheduler = build_scheduler(ASHAConfig(grace_days=2, reduction_factor=2), [], 4)
    assert days_until_stop(scheduler, "a", [0.1] * 4) is None
    assert days_until_stop(scheduler, "b", [0.1] * 3 + [0.9]) is None
    assert days_until_stop(scheduler, "c", [0.2] * 4) == 2
    with pytest.raises(ConfigError, match="asha.grace_days: found 4; allowed: less than the 4 days past warm-up"):
        build_scheduler(ASHAConfig(grace_days=4), [], 4)


def test_a_log_of_other_values_is_refused(tmp_path: Path):
    folder = RunFolder(str(tmp_path))
    job = tune_job(tmp_path, {RATE: choice(0.1, 0.2)}, searcher={"kind": "grid"})
    trials = Trials(job, folder, build_proposer(job), Silent())
    started = trials.start(1)
    assert started is not None
    assert started.optimizer.dense.learning_rate == 0.2
    trials.end(1, None, [0.5])
    assert trials.left() == [0]
    other = tune_job(tmp_path, {RATE: choice(0.1, 0.3)}, searcher={"kind": "grid"})
    with pytest.raises(
        CheckpointError, match=r'trial 1 tried \{".*rate": 0.2\}, where this job tries \{".*rate": 0.3\}'
    ):
        Trials(other, folder, build_proposer(other), Silent())


def test_a_trial_finds_its_folders_wherever_tune_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    own = {"start_from": {"run_folder": "runs/first"}}
    job = tune_job(tmp_path / "run", {RATE: choice(0.1)}, data="data/set", job=own, searcher={"kind": "grid"})
    started = Trials(job, RunFolder(str(tmp_path / "run")), build_proposer(job), Silent()).start(0)
    assert started is not None
    assert started.data.path == str(tmp_path / "data" / "set")
    assert started.start_from is not None
    assert started.start_from.run_folder == str(tmp_path / "runs" / "first")


def test_trials_move_with_their_run(tmp_path: Path):
    job = tune_job(tmp_path / "run", {RATE: choice(0.1)}, searcher={"kind": "grid"})
    trials = Trials(job, RunFolder(str(tmp_path / "run")), build_proposer(job), Silent())
    trials.start(0)
    trials.end(0, {"metric": 0.5, "auc": None, "seconds": 1.0}, [0.5])
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = Trials(job, RunFolder(str(tmp_path / "moved")), build_proposer(job), Silent())
    assert [record.run_folder for record in moved.done()] == [str(tmp_path / "moved" / "trials" / "000")]


def test_means_weigh_days_by_their_rows_and_leave_warm_up_out():
    days = [
        {"day": "2030-01-01", "rows": 10, "log_loss": 9.0, "ne": 9.0, "warm_up": True},
        {"day": "2030-01-02", "rows": 10, "log_loss": 0.5, "ne": None, "warm_up": False},
        {"day": "2030-01-03", "rows": 30, "log_loss": 0.7, "ne": 0.8, "warm_up": False},
        {"day": "2030-01-04", "rows": 40, "log_loss": 0.2, "ne": None, "warm_up": False},
    ]
    assert means_so_far(days, "log_loss") == pytest.approx([0.5, 26 / 40, 34 / 80])
    assert means_so_far(days, "ne") == [0.8, 0.8]
    assert weighted_mean(days[1:2], "ne") is None


def test_of_epochs_the_best_counts_and_days_of_sequences_weigh_by_their_targets():
    scores = [0.1, 0.4, 0.3]
    epochs = [
        {"day": f"epoch-00{n}", "rows": 5, "targets": 5, "ndcg@10": s, "warm_up": False} for n, s in enumerate(scores)
    ]
    assert means_so_far(epochs, "1-ndcg@10") == pytest.approx([0.9, 0.6, 0.6])
    days = [{**epoch, "day": f"2030-01-0{n}", "targets": n} for n, epoch in enumerate(epochs, start=1)]
    assert weighted_mean(days, "1-ndcg@10") == pytest.approx(1 - (0.1 + 0.8 + 0.9) / 6)
    assert weighted_mean(days, "auc") is None
