"""What a finished run of a sequence model comes to."""

from collections.abc import Mapping
from typing import Any

from raysparse.data.dataset import TEST
from raysparse.data.selection import are_epochs

CUTOFFS = (5, 10, 20)
"""Places up to which a target counts as found."""

RANKING_METRICS = tuple(f"{name}@{k}" for k in CUTOFFS for name in ("hr", "ndcg", "mrr"))
"""Metrics that every line of a ranking history has, and means over days are made of."""


def is_ranking(record: Mapping[str, Any]) -> bool:
    """Whether a history line is about ranks of next items."""
    return "targets" in record


def ranking_means(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Reduce an arm's history; any process.

    Over a stream of days the metrics are means over its days that are not warm-up, each weighed by its targets. Over
    epochs they are those of the epoch with the best NDCG@10 on the validation part, `day`. `test`, once there is one,
    holds those of the test part: by the last weights, or of the arm `best` by those of the epoch that is best by the
    metric of early_stop.
    """
    tests = [record for record in records if record["day"] == TEST]
    scored = [record for record in records if not record["warm_up"] and record["day"] != TEST and record["targets"]]
    means: dict[str, Any] = {"days": len(scored)}
    if are_epochs(record["day"] for record in records):
        if tests:
            means["test"] = {name: tests[0][name] for name in RANKING_METRICS}
        best = max(scored, key=lambda record: record["ndcg@10"], default=None)
        if best is not None:
            means |= {"day": best["day"], **{name: best[name] for name in RANKING_METRICS}}
        return means
    targets = sum(record["targets"] for record in scored)
    for name in RANKING_METRICS:
        means[name] = sum(record[name] * record["targets"] for record in scored) / targets if targets else None
    return means


def ranking_gap(records: list[dict[str, Any]], dense: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare an arm's NDCG@10 with the dense arm's, in percent, over the days that both have, by their targets.

    Below 0 is worse. Nothing over epochs, of which each arm has a best one of its own.
    """
    if are_epochs(record["day"] for record in (*records, *dense)):
        return {}
    scored = [record for record in records if not record["warm_up"] and record["targets"]]
    reference = {record["day"]: record["ndcg@10"] for record in dense if not record["warm_up"]}
    both = [record for record in scored if record["day"] in reference]
    total = sum(reference[record["day"]] * record["targets"] for record in both)
    own = sum(record["ndcg@10"] * record["targets"] for record in both)
    return {"ndcg_gap_percent": 100.0 * (own / total - 1.0) if total else None}
