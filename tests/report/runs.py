"""Run folders as a run leaves them, small and made up."""

import json
from pathlib import Path
from typing import Any


def record(day: str, arm: str, **given: Any) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "rows": 1000,
        "base_rate": 0.25,
        "ne": 0.9,
        "auc": 0.7,
        "log_loss": 0.5,
        "calibration": 1.01,
        "macs": 18_000,
        "samples_per_s": 50_000.0,
        "score_samples_per_s": 90_000.0,
        "train_seconds": 0.02,
        "best_ne": None,
        "warm_up": False,
    }
    return {"day": day, "arm": arm} | numbers | given


def table(name: str, **given: Any) -> dict[str, Any]:
    line: dict[str, Any] = {
        "table": name,
        "features": [name],
        "rows": 1024,
        "dim": 16,
        "bytes": 65_536,
        "optimizer_bytes": 4096,
        "sharding": "table_wise",
        "kernel": "fused",
        "ranks": [0],
    }
    return line | given


def write_run(
    folder: Path,
    history: list[dict[str, Any]],
    summary: dict[str, Any] | None = None,
    plan: list[dict[str, Any]] | None = None,
    job: str | None = None,
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if plan is not None:
        (folder / "plan.json").write_text(json.dumps(plan))
    if job is not None:
        (folder / "job.yaml").write_text(job)
    return str(folder)
