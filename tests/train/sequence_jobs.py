"""Jobs of sequence models for tests."""

from typing import Any

from raysparse.job import TrainJob
from raysparse.train import ranking
from tests.train.ranks import SaveAt, StopAfter, job_of, run_job

MODEL: dict[str, Any] = {
    "kind": "sasrec",
    "embedding_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "max_length": 10,
    "dropout": 0.0,
    "loss": {"kind": "full_softmax"},
}


SPACE: dict[str, Any] = {
    "kind": "sasrec",
    "widths": [8, 16],
    "head_dim": 4,
    "heads": [1, 2],
    "ffn_ratios": [1, 2],
    "depths": [1, 2],
    "lengths": [5, 10],
    "dropout": 0.0,
    "loss": {"kind": "full_softmax"},
}
"""A space of small encoders."""


def sequence_job(data: str, run_folder: str, /, epochs: int | None = 4, **changes: Any) -> TrainJob:
    tree: dict[str, Any] = {
        "warm_up_days": 0,
        "data": {"path": data, "batch_size": 32, "epochs": epochs},
        "model": MODEL,
        "optimizer": {"sparse": {"kind": "rowwise_adagrad", "learning_rate": 0.1}, "dense": {"learning_rate": 1e-2}},
        "callbacks": [{"kind": "early_stop", "patience": 3}] if epochs is not None else [],
        **changes,
    }
    return job_of(data, run_folder, **tree)


def run_sequences(data: str, run_folder: str, changes: dict[str, Any]) -> None:
    """Run, or go on with, a job on the ranks that are there."""
    run_job(sequence_job(data, run_folder, **changes))


def run_sequences_in_parts(data: str, run_folder: str, changes: dict[str, Any], items_at_a_time: int) -> None:
    """Rank fewer targets at a time: the process does so from now on."""
    ranking.ITEMS_AT_A_TIME = items_at_a_time
    run_sequences(data, run_folder, changes)


def run_sequences_until(data: str, run_folder: str, changes: dict[str, Any], save_at: int, stop_at: int) -> None:
    run_job(sequence_job(data, run_folder, **changes), [SaveAt(save_at), StopAfter(stop_at)], stop=True)
