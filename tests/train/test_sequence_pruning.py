"""Pruning an encoder of sequences while it learns day by day."""

from pathlib import Path
from typing import Any

import pytest

from raysparse.errors import ConfigError
from raysparse.train.summary import DENSE
from tests.data.sequence_sets import Row, sequences, write_days
from tests.gloo import run_ranks
from tests.train.ranks import history, run_job
from tests.train.sequence_jobs import MODEL, run_sequences, run_sequences_until, sequence_job

pytestmark = pytest.mark.multi

NUM_DAYS = 6
CHANGES: dict[str, Any] = {
    "epochs": None,
    "model": {**MODEL, "num_heads": 4, "ffn_width": 32},
    "callbacks": [
        {
            "kind": "sparsity",
            "name": "small",
            "budget": 0.4,
            "first_day": 1,
            "refresh": {"kind": "evidence", "standard_errors": 0.0},
            "pruner": {"kind": "greedy", "rounds": 4},
            "widths": {"least_groups": 1},
        },
        {
            "kind": "sparsity",
            "name": "drawn_gates",
            "budget": 0.4,
            "first_day": 1,
            "refresh": {"kind": "never"},
            "pruner": {"kind": "hard_concrete"},
            "widths": {"least_groups": 1},
        },
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    drawn = sequences(60 * NUM_DAYS)
    days: list[list[Row]] = [
        [(items[:-2], items[-2:]) for items in drawn[60 * day : 60 * day + 60]] for day in range(NUM_DAYS)
    ]
    return write_days(tmp_path_factory.mktemp("data") / "set", days).path


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two workers that no one interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_ranks(2, run_sequences, data, str(folder), CHANGES)
    return folder


def test_a_small_encoder_follows_the_dense_one(whole: Path):
    records = history(whole)
    dense = [record for record in records if record["arm"] == DENSE]
    small = [record for record in records if record["arm"] == "small"]
    gated = [record for record in records if record["arm"] == "drawn_gates"]
    assert [record["day"] for record in small] == [record["day"] for record in dense[2:]]
    assert [record["day"] for record in gated] == [record["day"] for record in dense[2:]]
    for record in (*small, *gated):
        assert record["macs"] <= 0.4 * dense[0]["macs"]
        assert record["widths"].keys() == {"blocks.0.attention.heads", "blocks.0.feed_forward.neurons"}
        assert record["groups"] == {"blocks.0.attention.heads": 4, "blocks.0.feed_forward.neurons": 32}
    assert any(record.get("swapped") for record in small)
    # It has learned what follows what.
    assert small[-1]["ndcg@10"] > dense[0]["ndcg@10"] + 0.3
    assert gated[-1]["ndcg@10"] > dense[0]["ndcg@10"] + 0.3


def test_one_worker_prunes_as_two_do(data: str, whole: Path, tmp_path: Path, one_rank: None):
    run_job(sequence_job(data, str(tmp_path / "one"), **CHANGES))
    # Evidence may turn on the last digit of a score: the first child is the same.
    one, two = (
        next(record for record in history(folder) if record["arm"] == "small") for folder in (tmp_path / "one", whole)
    )
    assert (one["day"], one["widths"], one["macs"]) == (two["day"], two["widths"], two["macs"])
    assert one["ndcg@10"] == pytest.approx(two["ndcg@10"], abs=0.02)


def test_a_killed_run_prunes_the_same_groups(data: str, whole: Path, tmp_path: Path):
    # Within the window of the first child, and beside a candidate.
    for save_at, stop_at in ((3, 4), (7, 8)):
        folder = str(tmp_path / f"{save_at}")
        run_ranks(2, run_sequences_until, data, folder, CHANGES, save_at, stop_at)
        run_ranks(2, run_sequences, data, folder, CHANGES)
        assert history(tmp_path / f"{save_at}") == history(whole)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"model": {**MODEL, "gate": "paper"}}, "model.gate: .*none with a callback of kind sparsity"),
        ({"epochs": 3}, "only on a stream of days, without data.epochs"),
        ({"callbacks": [{**CHANGES["callbacks"][0], "teacher": 0.5}]}, "teacher: .*0 with model.kind sasrec"),
        (
            {"callbacks": [{**CHANGES["callbacks"][0], "refresh": {"kind": "in_place"}}]},
            "never, every or evidence with model.kind sasrec",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused(data: str, tmp_path: Path, change: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault):
        sequence_job(data, str(tmp_path / "run"), **{**CHANGES, **change})
