import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raysparse.data.dataset import Dataset
from raysparse.errors import CheckpointError, NonFiniteLossError
from raysparse.sharding.model import ShardedModel
from raysparse.sharding.tables import TableShard
from raysparse.train.callback import Callback
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.run_folder import RunFolder
from raysparse.train.state import TrainState
from tests.data.datasets import PLAIN, RENAMED, write_dataset
from tests.gloo import run_ranks
from tests.train.ranks import history, job_of, run_job, run_until, run_whole

pytestmark = pytest.mark.multi


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four days of 300 to 361 rows: 5 or 6 steps each."""
    path = tmp_path_factory.mktemp("data") / "set"
    write_dataset(path, PLAIN, [[300], [200, 161], [310], [320]])
    return str(path)


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two workers that no one interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_ranks(2, run_whole, data, str(folder))
    return folder


def test_each_day_is_predicted_before_it_is_learned(whole: Path):
    records = history(whole)
    assert [(r["day"], r["arm"], r["rows"], r["warm_up"]) for r in records] == [
        ("000", "trained", 300, True),
        ("001", "trained", 361, False),
        ("002", "trained", 310, False),
        ("002", "frozen", 310, False),
        ("003", "trained", 320, False),
        ("003", "frozen", 320, False),
    ]
    # Fresh weights know nothing; what was learned shows a day later.
    assert records[0]["auc"] == pytest.approx(0.5, abs=0.1)
    assert records[4]["auc"] > 0.75
    # On its first day the copy is the model it was made of; later it stays behind.
    assert {k: v for k, v in records[2].items() if k != "arm"} == {k: v for k, v in records[3].items() if k != "arm"}
    assert records[5]["ne"] > records[4]["ne"]


def test_a_decay_over_the_run_ends_with_its_last_step(data: str, tmp_path: Path, one_rank: None):
    for name, steps in (("told", 21), ("whole", None), ("longer", 40)):
        schedule = {"kind": "linear", "decay_steps": steps, "final_factor": 0.0}
        run_job(job_of(data, str(tmp_path / name), optimizer={"schedule": schedule}, callbacks=[]))
    told, run, longer = (history(tmp_path / name) for name in ("told", "whole", "longer"))
    assert run == told
    assert run[-1]["ne"] != longer[-1]["ne"]


RISING = {"schedule": {"kind": "linear", "warm_up_steps": 30, "decay_steps": 40}}


def test_a_step_moves_tables_by_its_own_rate(data: str, tmp_path: Path, one_rank: None):
    sgd = {"sparse": {"kind": "sgd", "learning_rate": 1.0}, "dense": {"kind": "sgd", "learning_rate": 1.0}}
    moved: dict[str, list[float]] = {}
    for name, schedule in (("constant", {}), ("rising", RISING)):
        moves = Moves()
        run_job(
            job_of(data, str(tmp_path / name), optimizer={**sgd, **schedule}, callbacks=[]),
            [moves, *callbacks_stop(1)],
            stop=True,
        )
        moved[name] = moves.largest
    # The first of 30 steps up.
    for constant, rising in zip(moved["constant"], moved["rising"], strict=True):
        assert rising == pytest.approx(constant / 30, rel=1e-3)


@pytest.mark.parametrize(("save_at", "stop_at"), [(8, 12), (0, 6)], ids=["within a day", "between days"])
def test_a_killed_run_goes_on_with_the_rates_of_its_steps(
    data: str, tmp_path: Path, one_rank: None, save_at: int, stop_at: int
):
    changes = {"optimizer": {**job_of(data, "none").optimizer.model_dump(), **RISING}}
    run_whole(data, str(tmp_path / "whole"), changes)
    run_until(data, str(tmp_path / "run"), save_at, stop_at, changes)
    run_whole(data, str(tmp_path / "run"), changes)
    assert history(tmp_path / "run") == history(tmp_path / "whole")


def test_one_worker_gives_the_numbers_of_two(data: str, whole: Path, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "one")))
    for one, two in zip(history(tmp_path / "one"), history(whole), strict=True):
        assert one.keys() == two.keys()
        for key, value in two.items():
            expected = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            assert one[key] == expected, f"{key} of day {two['day']}"


@pytest.mark.parametrize(("save_at", "stop_at"), [(8, 12), (2, 4)])
def test_a_killed_run_goes_on_to_the_same_history(data: str, whole: Path, tmp_path: Path, save_at: int, stop_at: int):
    run_ranks(2, run_until, data, str(tmp_path / "run"), save_at, stop_at)
    # The request is heard a step later: the save stands in the middle of a day.
    assert f"step-{save_at + 2:09d}" in CheckpointFolder(RunFolder(str(tmp_path / "run"))).steps()
    run_ranks(2, run_whole, data, str(tmp_path / "run"))
    assert history(tmp_path / "run") == history(whole)


def test_a_run_goes_on_with_another_number_of_workers(data: str, whole: Path, tmp_path: Path):
    run_ranks(2, run_until, data, str(tmp_path / "run"), 8, 12)
    run_ranks(3, run_whole, data, str(tmp_path / "run"))
    for three, two in zip(history(tmp_path / "run"), history(whole), strict=True):
        assert (three["day"], three["arm"], three["rows"]) == (two["day"], two["arm"], two["rows"])
        assert three["log_loss"] == pytest.approx(two["log_loss"], rel=1e-4)


def test_a_checkpoint_that_is_not_whole_is_refused_and_the_one_before_it_used(data: str, whole: Path, tmp_path: Path):
    run_ranks(2, run_until, data, str(tmp_path / "run"), 8, 12)
    folder = CheckpointFolder(RunFolder(str(tmp_path / "run")))
    newest, before = folder.steps()
    manifest = tmp_path / "run" / "checkpoints" / newest / "manifest.json"
    kept = manifest.read_text()
    warnings: list[str] = []
    for text, reason in [(None, "it has no manifest"), ("{", "its manifest is damaged")]:
        manifest.unlink() if text is None else manifest.write_text(text)
        assert folder.latest(warnings.append) == before
        assert newest in warnings[-1]
        assert reason in warnings[-1]
    manifest.write_text(kept)
    tensors = tmp_path / "run" / "checkpoints" / newest / "rank-00001.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    assert folder.latest(warnings.append) == before
    assert "rank-00001.safetensors has" in warnings[-1]
    run_ranks(2, run_whole, data, str(tmp_path / "run"))
    assert history(tmp_path / "run") == history(whole)


def test_only_the_last_checkpoints_are_kept(whole: Path):
    assert CheckpointFolder(RunFolder(str(whole))).steps() == ["step-000000021", "step-000000016"]


def test_a_loss_that_is_no_number_names_day_and_batch(tmp_path: Path, one_rank: None):
    dataset = write_dataset(tmp_path / "set", PLAIN, [[300], [300]])
    file = tmp_path / "set" / dataset.days[1].files[0].path
    table = pq.read_table(file)
    broken = table.to_pydict()
    broken["number"][7] = float("inf")
    pq.write_table(table.from_pydict(broken, schema=PLAIN.arrow()), file)
    with pytest.raises(NonFiniteLossError, match=r"arm 'trained' is nan on day 001, batch \d"):
        run_job(job_of(dataset.path, str(tmp_path / "run"), callbacks=[]))
    assert [record["day"] for record in history(tmp_path / "run")] == ["000"]


def test_a_checkpoint_of_other_data_is_refused(data: str, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "run")), callbacks_stop(6), stop=True)
    write_dataset(tmp_path / "other", PLAIN, [[300], [300]])
    manifest = tmp_path / "other" / "dataset.json"
    manifest.write_text(manifest.read_text().replace('"001"', '"777"'))
    with pytest.raises(
        CheckpointError, match=r"stands at day 001, number 1 of its run; in this job's data that is day 777"
    ):
        run_job(job_of(str(tmp_path / "other"), str(tmp_path / "run")))


def test_a_run_is_not_cut_short_on_resuming(data: str, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "run")))
    days = [record["day"] for record in history(tmp_path / "run") if record["arm"] == "trained"]
    (tmp_path / "run" / "summary.json").unlink(missing_ok=True)
    shorter = {"path": data, "batch_size": 64, "last_day": days[-2]}
    fault = f"has learned {len(days)} days, and the job ends after {len(days) - 1}: data.last_day may be later"
    with pytest.raises(CheckpointError, match=fault):
        run_job(job_of(data, str(tmp_path / "run"), data=shorter))


class Moves(Callback):
    """Notes the largest change of each table in the run's first step."""

    def scored(self, state: TrainState) -> None:
        self._before = [shard.weight.clone() for shard in self._shards(state)]

    def step_end(self, state: TrainState) -> None:
        after = [shard.weight for shard in self._shards(state)]
        self.largest = [(new - old).abs().max().item() for new, old in zip(after, self._before, strict=True)]

    @staticmethod
    def _shards(state: TrainState) -> list[TableShard]:
        model = state.arms[0].model
        assert isinstance(model, ShardedModel)
        return model.tables.shards


def callbacks_stop(num_steps: int):
    from tests.train.ranks import StopAfter

    return [StopAfter(num_steps)]


def test_a_changed_model_is_refused_by_the_tensors_name(data: str, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "run")), callbacks_stop(6), stop=True)
    model = {"kind": "dlrm", "embedding_dim": 8, "bottom": [8], "top": [8]}
    with pytest.raises(
        CheckpointError, match=r"user/weight has the shape \[1000, 4\], the job's model wants \[1000, 8\]"
    ):
        run_job(job_of(data, str(tmp_path / "run"), model=model))


def test_data_with_other_tables_is_refused_by_the_tables_name(data: str, tmp_path: Path, one_rank: None):
    run_job(job_of(data, str(tmp_path / "run")), callbacks_stop(6), stop=True)
    before = (tmp_path / "run" / "history.jsonl").read_text()
    other = write_dataset(tmp_path / "other", RENAMED, [[300]] * len(Dataset.open(data).days)).path
    with pytest.raises(CheckpointError, match=r"holds no trained/tables/people/\w+; it was made .* with other tables"):
        run_job(job_of(other, str(tmp_path / "run")))
    assert (tmp_path / "run" / "history.jsonl").read_text() == before


def test_rates_count_the_steps_alone(whole: Path):
    lines = [json.loads(line) for line in (whole / "history.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["samples_per_s"] == pytest.approx(line["rows"] / line["train_seconds"])
        assert np.isfinite(line["score_samples_per_s"])
