"""A tune job for tests."""

from pathlib import Path
from typing import Any

from raysparse.job import TuneJob, check_job, require_kind

RATE = "optimizer.dense.learning_rate"


def tune_job(folder: Path, space: dict[str, Any], data: str = "nowhere", **changes: Any) -> TuneJob:
    train = {
        "data": {"path": data, "batch_size": 64},
        "model": {"kind": "dlrm", "embedding_dim": 4, "bottom": [8], "top": [8]},
        **changes.pop("job", {}),
    }
    tree = {"kind": "tune", "name": "test", "run_folder": str(folder), "job": train, "space": space, **changes}
    return require_kind(TuneJob, check_job(tree, "test"), "test")


def choice(*values: Any) -> dict[str, Any]:
    return {"kind": "choice", "values": list(values)}
