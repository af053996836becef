from pathlib import Path
from typing import Any

import pytest

from raysparse.data.dataset import TEST
from raysparse.errors import ConfigError
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.run_folder import RunFolder
from raysparse.train.summary import summarize
from tests.data.datasets import PLAIN, write_dataset
from tests.data.sequence_sets import NUM_ITEMS, sequences, write_days, write_parts
from tests.gloo import run_ranks
from tests.train.ranks import history, run_job
from tests.train.sequence_jobs import (
    MODEL,
    SPACE,
    run_sequences,
    run_sequences_in_parts,
    run_sequences_until,
    sequence_job,
)

pytestmark = pytest.mark.multi

LOSSES: tuple[dict[str, Any], ...] = (
    {"kind": "full_softmax"},
    {"kind": "sampled_softmax", "num_negatives": 16, "negatives": "popular"},
    {"kind": "gbce", "num_negatives": 16},
    {"kind": "bce", "num_negatives": 4},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_parts(tmp_path_factory.mktemp("data") / "set", sequences(200)).path


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two workers that no one interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_ranks(2, run_sequences, data, str(folder), {})
    return folder


def test_after_each_epoch_what_was_left_out_is_ranked_and_the_test_once(whole: Path):
    records = history(whole)
    assert [(r["day"], r["arm"]) for r in records] == [
        *((f"epoch-{number:03d}", "trained") for number in range(5)),
        (TEST, "trained"),
        (TEST, "best"),
    ]
    assert all(record["rows"] == record["targets"] == 200 for record in records)
    assert records[0]["ndcg@10"] < 0.3
    assert records[4]["ndcg@10"] > 0.6
    assert records[4]["hr@5"] <= records[4]["hr@10"] <= records[4]["hr@20"]
    assert records[4]["mrr@10"] <= records[4]["ndcg@10"] <= records[4]["hr@10"]
    assert [record["trained_rows"] > 0 for record in records] == [True] * 4 + [False] * 3


def test_the_summary_has_the_best_epoch_and_the_test_of_its_weights(whole: Path):
    records = history(whole)
    best = max(records[:5], key=lambda record: record["ndcg@10"])
    summary = summarize([{**record, "train_seconds": 1.0} for record in records])
    assert summary["last_day"] == TEST
    assert summary["arms"]["trained"]["day"] == best["day"]
    assert summary["arms"]["trained"]["ndcg@10"] == best["ndcg@10"]
    assert summary["arms"]["best"]["test"]["hr@10"] == records[-1]["hr@10"]


def test_where_the_last_epoch_is_the_best_both_arms_predict_the_same(data: str, tmp_path: Path, one_rank: None):
    run_job(sequence_job(data, str(tmp_path / "run"), epochs=1))
    before, after, trained, best = history(tmp_path / "run")
    assert after["ndcg@10"] > before["ndcg@10"]
    assert {**trained, "arm": "best"} == best


def test_the_arm_of_the_best_epoch_keeps_its_name_to_itself(data: str):
    callbacks = [{"kind": "early_stop"}, {"kind": "frozen_arm", "name": "best", "after_days": 1}]
    with pytest.raises(ConfigError, match=r'callbacks.1.name: found "best"; allowed: a name of its own'):
        sequence_job(data, "run", callbacks=callbacks)


@pytest.mark.parametrize("loss", LOSSES[1:], ids=lambda loss: loss["kind"])
def test_every_loss_learns_the_ring(data: str, tmp_path: Path, one_rank: None, loss: dict[str, Any]):
    run_job(sequence_job(data, str(tmp_path / "run"), model={**MODEL, "loss": loss}, epochs=6))
    records = history(tmp_path / "run")
    assert records[0]["ndcg@10"] < 0.3
    assert records[-1]["ndcg@10"] > 0.5


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise"])
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_one_worker_gives_the_numbers_of_two(data: str, tmp_path: Path, one_rank: None, sharding: str, optimizer: str):
    if (sharding, optimizer) == ("column_wise", "rowwise_adagrad"):
        optimizer = "sgd"  # a sum per column shard: another optimizer with two of them
    changes: dict[str, Any] = {
        "epochs": 2,
        "sharding": {"default": sharding},
        "ranking": {"sampled": ["uniform", "popular"]},
        "optimizer": {"sparse": {"kind": optimizer, "learning_rate": 0.02}, "dense": {"learning_rate": 1e-2}},
    }
    run_ranks(2, run_sequences, data, str(tmp_path / "two"), changes)
    run_job(sequence_job(data, str(tmp_path / "one"), **changes))
    for one, other in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            # A rank may change where two scores are the same but for their last digit.
            assert one[key] == (pytest.approx(value, abs=0.01) if isinstance(value, float) else value), key


def test_drawn_pieces_are_the_same_on_one_worker_and_two_and_after_a_kill(data: str, tmp_path: Path, one_rank: None):
    def changes(cut: str) -> dict[str, Any]:
        of_data = {"path": data, "batch_size": 32, "epochs": 2, "cut": cut}
        return {"data": of_data, "epochs": 2, "model": {**MODEL, "max_length": 4}}

    drawn, last = (str(tmp_path / name) for name in ("drawn", "last"))
    run_sequences(data, drawn, changes("drawn"))
    run_sequences(data, last, changes("last"))
    assert history(Path(drawn))[0] == history(Path(last))[0]
    assert history(Path(drawn))[1] != history(Path(last))[1]
    run_ranks(2, run_sequences, data, str(tmp_path / "two"), changes("drawn"))
    for one, other in zip(history(Path(drawn)), history(tmp_path / "two"), strict=True):
        assert one["ndcg@10"] == pytest.approx(other["ndcg@10"], abs=0.01)
    run_sequences_until(data, str(tmp_path / "killed"), changes("drawn"), 3, 6)
    run_sequences(data, str(tmp_path / "killed"), changes("drawn"))
    assert history(tmp_path / "killed") == history(Path(drawn))


def test_a_killed_run_goes_on_to_the_same_history(data: str, whole: Path, tmp_path: Path):
    run_ranks(2, run_sequences_until, data, str(tmp_path / "run"), {}, 9, 12)
    assert "step-000000011" in CheckpointFolder(RunFolder(str(tmp_path / "run"))).steps()
    run_ranks(2, run_sequences, data, str(tmp_path / "run"), {})
    assert history(tmp_path / "run") == history(whole)


def test_with_dropout_a_resumed_run_draws_what_the_whole_one_drew(data: str, tmp_path: Path, one_rank: None):
    changes = {"model": {**MODEL, "dropout": 0.3, "loss": LOSSES[3]}, "epochs": 2}
    run_sequences(data, str(tmp_path / "whole"), changes)
    run_sequences_until(data, str(tmp_path / "run"), changes, 3, 6)
    run_sequences(data, str(tmp_path / "run"), changes)
    assert history(tmp_path / "run") == history(tmp_path / "whole")


@pytest.mark.parametrize("warm_up_days", [0, 2])
def test_a_run_that_gets_no_better_after_its_warm_up_goes_to_its_test(
    data: str, tmp_path: Path, one_rank: None, warm_up_days: int
):
    still = {"sparse": {"kind": "sgd", "learning_rate": 1e-12}, "dense": {"kind": "sgd", "learning_rate": 1e-12}}
    job = sequence_job(data, str(tmp_path / "run"), optimizer=still, epochs=50, warm_up_days=warm_up_days)
    run_job(job)
    days = [record["day"] for record in history(tmp_path / "run") if record["arm"] == "trained"]
    assert days == [*(f"epoch-{epoch:03}" for epoch in range(warm_up_days + 4)), TEST]


def test_where_all_epochs_are_warm_up_the_last_weights_predict_the_test(data: str, tmp_path: Path, one_rank: None):
    run_job(sequence_job(data, str(tmp_path / "run"), epochs=2, warm_up_days=3))
    trained, best = history(tmp_path / "run")[-2:]
    assert trained["ndcg@10"] > 0.3
    assert {**trained, "arm": "best"} == best


def test_a_stream_of_days_is_predicted_before_it_is_learned(tmp_path: Path, one_rank: None):
    days = [[(items[:2], items[2:]) for items in sequences(150, seed=day)] for day in range(4)]
    data = write_days(tmp_path / "set", days).path
    run_job(sequence_job(data, str(tmp_path / "run"), epochs=None, ranking={"filter_seen": False, "max_rows": 64}))
    records = history(tmp_path / "run")
    assert [record["day"] for record in records] == [f"2030-01-{day:02d}" for day in range(1, 5)]
    assert [record["rows"] for record in records] == [60, 60, 60, 60]  # two batches of 30
    assert records[0]["ndcg@10"] < 0.3
    assert records[3]["ndcg@10"] > records[1]["ndcg@10"] > records[0]["ndcg@10"]
    assert all(record["targets"] > record["rows"] for record in records)


def test_a_day_of_many_targets_is_scored_and_learned_whole(tmp_path: Path):
    # One rank has four times as many sequences as the other.
    longest = list(range(1, NUM_ITEMS + 1))
    days = [[(longest[:1], longest[1:]), ([3, 4], [5])]] * 20
    data = write_days(tmp_path / "set", days).path
    changes = {"epochs": None, "ranking": {"filter_seen": False}, "sharding": {"default": "row_wise"}}
    run_ranks(2, run_sequences, data, str(tmp_path / "two"), changes)
    records = history(tmp_path / "two")
    assert {record["targets"] for record in records} == {NUM_ITEMS}
    # Of 39 targets in a ring the first 29 are beyond what is read at the row's end; they are learned all the same.
    assert records[0]["hr@5"] < 0.3
    assert records[-1]["hr@5"] > 0.9


def test_targets_ranked_in_parts_are_ranked_as_at_once(tmp_path: Path):
    # One rank needs many parts, the other one alone.
    longest = list(range(1, NUM_ITEMS + 1))
    days = [[(longest[:1], [*longest[1:], 7]), ([3, 4], [5])]] * 2
    data = write_days(tmp_path / "set", days).path
    changes = {"epochs": None, "ranking": {"sampled": ["uniform"]}}
    run_ranks(2, run_sequences, data, str(tmp_path / "whole"), changes)
    run_ranks(2, run_sequences_in_parts, data, str(tmp_path / "parts"), changes, 50)
    for whole, parts in zip(history(tmp_path / "whole"), history(tmp_path / "parts"), strict=True):
        assert parts == pytest.approx(whole)
        assert whole["repeat_share"] == pytest.approx(1 / (NUM_ITEMS + 1))


def test_targets_that_were_seen_before_are_counted(tmp_path: Path):
    # Seen before: the first row's 1, also where it was cut off, and the third row's second 4.
    days = [[([1, *range(2, 14)], [1, 14]), ([3], [5]), ([4], [6, 4])], [([7], [8])]]
    data = write_days(tmp_path / "set", days).path
    run_ranks(2, run_sequences, data, str(tmp_path / "run"), {"epochs": None, "ranking": {"filter_seen": False}})
    assert [record["repeat_share"] for record in history(tmp_path / "run")] == [2 / 5, 0.0]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"model": {**MODEL, "loss": LOSSES[1]}},
            r"model\.loss\.negatives: found \"popular\"; allowed: uniform on a stream of days",
        ),
        ({"ranking": {"sampled": ["uniform", "popular"]}}, r"ranking\.sampled: .*allowed: none or uniform on a stream"),
        (
            {
                "model": {"kind": "sasrec_supernet", "space": {**SPACE, "loss": LOSSES[1]}},
                "callbacks": [{"kind": "sandwich"}],
            },
            r"model\.space\.loss\.negatives: found \"popular\"; allowed: uniform on a stream of days",
        ),
    ],
)
def test_draws_by_popularity_are_refused_on_a_stream_of_days(changes: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault):
        sequence_job("data", "run", epochs=None, **changes)
    sequence_job("data", "run", **changes)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["kind"])
def test_ranks_without_a_row_keep_pace(tmp_path: Path, loss: dict[str, Any]):
    days = [[([1, 2], [3])], [([1], [2, 3]), ([4, 5], [6])], [([7], [8])]]
    data = write_days(tmp_path / "set", days).path
    if loss.get("negatives") == "popular":
        loss = {**loss, "negatives": "uniform"}  # a stream without counts
    run_ranks(3, run_sequences, data, str(tmp_path / "run"), {"epochs": None, "model": {**MODEL, "loss": loss}})
    assert [record["targets"] for record in history(tmp_path / "run")] == [1, 3, 1]


def test_a_job_that_does_not_fit_its_data_is_refused(data: str, tmp_path: Path, one_rank: None):
    folder = str(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"data.epochs: not given, but .* leaves out each user's last events"):
        run_job(sequence_job(data, folder, epochs=None))
    stream = write_days(tmp_path / "days", [[([1], [2])]]).path
    with pytest.raises(ConfigError, match="data.epochs: found 4, but .* is a stream of days"):
        run_job(sequence_job(stream, folder))
    clicks = write_dataset(tmp_path / "clicks", PLAIN, [[20]]).path
    with pytest.raises(ConfigError, match="model.kind: found sasrec, but the data set is of rows with a label"):
        run_job(sequence_job(clicks, folder, epochs=None))
    with pytest.raises(ConfigError, match="model.kind: found dlrm, but the data set is of sequences; allowed"):
        run_job(sequence_job(data, folder, epochs=None, model={"kind": "dlrm"}))
    with pytest.raises(ConfigError, match='"early_stop"; allowed: only with data.epochs'):
        sequence_job(data, folder, epochs=None, callbacks=[{"kind": "early_stop"}])
    with pytest.raises(ConfigError, match='data.cut: found "drawn"; allowed: last without data.epochs'):
        sequence_job(data, folder, data={"path": data, "cut": "drawn"}, callbacks=[])
    held_out = {"kind": "sasrec_supernet", "hold_out_last": True}
    with pytest.raises(ConfigError, match='data.cut: found "drawn"; allowed: last with model.hold_out_last'):
        sequence_job(
            data,
            folder,
            data={"path": data, "cut": "drawn", "epochs": 2},
            model=held_out,
            callbacks=[{"kind": "sandwich"}],
        )
    with pytest.raises(ConfigError, match='"small_dense"; allowed: early_stop, frozen_arm or sparsity with model.kind'):
        sequence_job(data, folder, callbacks=[{"kind": "small_dense", "budget": 0.1}])
