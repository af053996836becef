"""What a finished run comes to."""

from collections.abc import Iterable
from importlib import metadata
from typing import Any

from raysparse.data.selection import are_epochs
from raysparse.train.metrics import normalized_entropy
from raysparse.train.ranking_summary import is_ranking, ranking_gap, ranking_means

DENSE = "trained"
"""`train.arm.TRAINED`, without the 2 s that importing it takes."""


def arms_in_order(names: Iterable[str]) -> list[str]:
    """Arms in the order in which they first appear, but the dense one, which the others are compared with, first."""
    return sorted(dict.fromkeys(names), key=lambda arm: arm != DENSE)


def summarize(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Reduce a history to its totals and, per arm, what its days that are not warm-up come to.

    A mean weighs each day by its rows; days on which a metric is undefined are left out of its mean. `stream_ne`
    is the NE of all these days as one: their log loss over the entropy of their common base rate. `ne_gap_percent`
    is the mean over the arm's days of its NE relative to the dense arm's on the same day, and
    `ne_gap_percent_last_half` that of the days in the last half of the stream. Without an arm `trained` the first
    one stands for the dense one. Arms that are trained but not served (`shadow`) are left out. Of a sequence model see
    `ranking_means` and `ranking_gap`; where it learns epochs, those that were learned are counted in place of days.
    """
    served = [record for record in history if not record.get("shadow")]
    arms = arms_in_order(record["arm"] for record in served)
    of_arm = {arm: [record for record in served if record["arm"] == arm] for arm in arms}
    dense = of_arm[arms[0]] if arms else []
    seconds = sum(record["train_seconds"] for record in dense)
    rows = sum(record.get("trained_rows", record["rows"]) for record in dense)
    learned = [record for record in dense if record.get("trained_rows", record["rows"])]
    length = {"epochs": len(learned)} if are_epochs(record["day"] for record in dense) else {"days": len(dense)}
    return {
        **length,
        "last_day": history[-1]["day"] if history else None,
        "rows": rows,
        "train_seconds": seconds,
        "samples_per_s": rows / seconds if seconds else None,
        "arms": {arm: {**_scores(records, dense), **_structure(records, dense)} for arm, records in of_arm.items()},
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


def _scores(records: list[dict[str, Any]], dense: list[dict[str, Any]]) -> dict[str, Any]:
    if any(map(is_ranking, records)):
        return {**ranking_means(records), **ranking_gap(records, dense)}
    return {**_means(records), **_gaps(records, dense)}


def _means(records: list[dict[str, Any]]) -> dict[str, Any]:
    scored = [record for record in records if not record["warm_up"]]
    means: dict[str, Any] = {"days": len(scored), "first_day": scored[0]["day"] if scored else None}
    all_rows = sum(record["rows"] for record in scored)
    if all_rows:
        base_rate = sum(record["base_rate"] * record["rows"] for record in scored) / all_rows
        log_loss = sum(record["log_loss"] * record["rows"] for record in scored) / all_rows
        means["stream_ne"] = normalized_entropy(log_loss, base_rate)
    for metric in ("ne", "auc", "log_loss", "calibration", "best_ne"):
        known = [record for record in scored if record[metric] is not None]
        rows = sum(record["rows"] for record in known)
        means[metric] = sum(record[metric] * record["rows"] for record in known) / rows if rows else None
    return means


def _gaps(records: list[dict[str, Any]], dense: list[dict[str, Any]]) -> dict[str, Any]:
    dense_ne = {record["day"]: record["ne"] for record in dense}
    gaps = {
        record["day"]: 100.0 * (record["ne"] / dense_ne[record["day"]] - 1.0)
        for record in records
        if not record["warm_up"] and record["ne"] and dense_ne.get(record["day"])
    }
    last_half = {record["day"] for record in dense[len(dense) // 2 :]}
    return {
        "ne_gap_percent": _mean(list(gaps.values())),
        "ne_gap_percent_last_half": _mean([gap for day, gap in gaps.items() if day in last_half]),
    }


def _structure(records: list[dict[str, Any]], dense: list[dict[str, Any]]) -> dict[str, Any]:
    """MACs of the last day, and what became of the masks; None where an arm has none."""
    macs, dense_macs = _known(records, "macs"), _known(dense, "macs")
    swapped = _known(records, "swapped")
    return {
        "macs": macs[-1] if macs else None,
        "macs_share": macs[-1] / dense_macs[-1] if macs and dense_macs and dense_macs[-1] else None,
        "num_swaps": sum(swapped) if swapped else None,
        "churn": _mean(_known(records, "churn")),
    }


def _known(records: list[dict[str, Any]], key: str) -> list[Any]:
    return [record[key] for record in records if record.get(key) is not None]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
