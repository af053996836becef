"""What a finished run comes to."""

from importlib import metadata
from typing import Any


def summarize(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Reduce a history to its totals and, per arm, the means over the days that are not warm-up.

    A mean weighs each day by its rows; days on which a metric is undefined are left out of its mean.
    """
    arms = list(dict.fromkeys(record["arm"] for record in history))
    first = [record for record in history if record["arm"] == arms[0]] if arms else []
    seconds = sum(record["train_seconds"] for record in first)
    rows = sum(record["rows"] for record in first)
    return {
        "days": len(first),
        "rows": rows,
        "train_seconds": seconds,
        "samples_per_s": rows / seconds if seconds else None,
        "arms": {arm: _means([record for record in history if record["arm"] == arm]) for arm in arms},
    }


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers and speed, where they are installed."""
    found: dict[str, str] = {}
    for package in ("raysparse", "torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "ray"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _means(records: list[dict[str, Any]]) -> dict[str, Any]:
    scored = [record for record in records if not record["warm_up"]]
    means: dict[str, Any] = {"days": len(scored), "first_day": scored[0]["day"] if scored else None}
    for metric in ("ne", "auc", "log_loss", "calibration", "best_ne"):
        known = [record for record in scored if record[metric] is not None]
        rows = sum(record["rows"] for record in known)
        means[metric] = sum(record[metric] * record["rows"] for record in known) / rows if rows else None
    return means
