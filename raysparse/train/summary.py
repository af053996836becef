"""What a finished run comes to."""

from importlib import metadata
from typing import Any

from raysparse.train.metrics import normalized_entropy


def summarize(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Reduce a history to its totals and, per arm, what its days that are not warm-up come to.

    A mean weighs each day by its rows; days on which a metric is undefined are left out of its mean. `stream_ne`
    is the NE of all these days as one: their log loss over the entropy of their common base rate. `ne_gap_percent`
    is the mean over the arm's days of its NE relative to the first arm's on the same day.
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
        "arms": {arm: _means([record for record in history if record["arm"] == arm], first) for arm in arms},
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


def _means(records: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, Any]:
    scored = [record for record in records if not record["warm_up"]]
    means: dict[str, Any] = {"days": len(scored), "first_day": scored[0]["day"] if scored else None}
    all_rows = sum(record["rows"] for record in scored)
    if all_rows:
        base_rate = sum(record["base_rate"] * record["rows"] for record in scored) / all_rows
        log_loss = sum(record["log_loss"] * record["rows"] for record in scored) / all_rows
        means["stream_ne"] = normalized_entropy(log_loss, base_rate)
    ne_of = {record["day"]: record["ne"] for record in first}
    gaps = [record["ne"] / ne_of[record["day"]] - 1.0 for record in scored if record["ne"] and ne_of[record["day"]]]
    means["ne_gap_percent"] = 100.0 * sum(gaps) / len(gaps) if gaps else None
    for metric in ("ne", "auc", "log_loss", "calibration", "best_ne"):
        known = [record for record in scored if record[metric] is not None]
        rows = sum(record["rows"] for record in known)
        means[metric] = sum(record[metric] * record["rows"] for record in known) / rows if rows else None
    return means
