"""What a page and a console show of a run that predicts next items."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raysparse.report.elements import Column, Grid, Row
from raysparse.report.number_text import MISSING, fixed, percent, signed_percent, whole
from raysparse.report.printer import GAP, aligned, cut
from raysparse.report.run import DayRecord, History

_MAIN = ("ndcg@10", "hr@10", "mrr@10")
_GAP = "ndcg@10"
_ALL = ("ndcg@5", "ndcg@10", "ndcg@20", "hr@5", "hr@10", "hr@20", "mrr@10")


def title_of(metric: str) -> str:
    """Write a metric's name as papers do, such as NDCG@10."""
    return metric.upper()


def arm_rows(arms: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return titles and a row per arm and part; `arms` as in `summary.json`."""
    rows: list[list[str]] = []
    in_parts = any("test" in means or "day" in means for means in arms.values())
    for arm, means in arms.items():
        if means.get("ndcg@10") is not None:
            part = [f"validation, {means['day']}"] if in_parts else []
            rows.append([arm, *part, *(fixed(means[name]) for name in _ALL)])
        if "test" in means:
            rows.append([arm, "test", *(fixed(means["test"][name]) for name in _ALL)])
    return ["arm", *(["part"] if in_parts else []), *map(title_of, _ALL)], rows


def arm_grid(history: History) -> Grid:
    """Return the table of arms of a page."""
    titles, rows = arm_rows(history.totals["arms"])
    if _compares(history):
        titles += [f"{title_of(_GAP)} gap to {history.arms[0]}", "MACs per history", "of dense MACs"]
        titles += ["swaps", "mean churn"] if history.has_masks else []
        rows = [[*row, *_comparison_cells(history, row[0])] for row in rows]
    columns = [Column(title, "text name" if title in ("arm", "part") else "") for title in titles]
    return Grid(columns, [Row(row) for row in rows])


def _compares(history: History) -> bool:
    """Whether arms are scored on the same days, all along: over epochs an arm has its own best one."""
    return len(history.arms) > 1 and history.epochs is None


def _comparison_cells(history: History, arm: str) -> list[str]:
    means = history.totals["arms"][arm]
    return [
        signed_percent(means.get("ndcg_gap_percent")) if arm != history.arms[0] else MISSING,
        whole(means["macs"]),
        percent(means["macs_share"]),
        *(_mask_cells(history, arm) if history.has_masks else []),
    ]


def _mask_cells(history: History, arm: str) -> list[str]:
    if not history.dense_groups(arm):
        return [MISSING, MISSING]
    churn = history.series(arm, "churn")
    known = churn[np.isfinite(churn)]
    return [whole(int(history.swapped(arm).sum())), percent(float(known.mean()) if len(known) else None)]


def arms_note(history: History) -> str:
    """Say what the table of arms shows."""
    if history.epochs is not None:
        note = "Validation: of the epoch with the best NDCG@10. Ranks are among all items."
        if any("test" in means for means in history.totals["arms"].values()):
            note += (
                " Test: predicted once, at the end; by arm best with the weights of the epoch that is best by "
                "early_stop's metric, by the others with their last ones."
            )
        return note
    note = "Means over the scored days, each weighed by its targets. Ranks are among all items."
    if _compares(history):
        note += (
            f" {title_of(_GAP)} gap: of the means over the days that both arms have; below 0 is worse. MACs: of the "
            "last day, for the longest history that is read."
        )
    return note


def day_grid(history: History) -> Grid:
    """Return the table of days of a page."""
    titles = ("rows", "targets", *map(title_of, _ALL), "train rows/s", "score rows/s")
    columns = [Column(history.unit, "text"), Column("arm", "text name"), *map(Column, titles)]
    return Grid(columns, [Row(_day_cells(record), "warm-up" if record.warm_up else "") for record in history.records])


def _day_cells(record: DayRecord) -> list[str]:
    numbers = record.scores
    return [
        record.day,
        record.arm,
        whole(record.rows),
        whole(numbers["targets"]),
        *(fixed(numbers[name]) for name in _ALL),
        whole(numbers["samples_per_s"]),
        whole(numbers["score_samples_per_s"]),
    ]


# Columns of the console's table of days; three metrics stand per arm, under its name.
_DAY, _ROWS, _SCORE, _SPEED = 10, 11, 7, 9
_ARM = len(_MAIN) * _SCORE + (len(_MAIN) - 1) * len(GAP)


def day_header(arms: Sequence[str]) -> list[str]:
    """Return the two lines over the console's table of days."""
    before = " " * (_DAY + _ROWS + len(GAP))
    titles = [f"{'day':<{_DAY}}", f"{'targets':>{_ROWS}}"]
    titles += [f"{title_of(name):>{_SCORE}}" for _ in arms for name in _MAIN]
    return [
        GAP.join([before, *(f"{cut(arm, _ARM):>{_ARM}}" for arm in arms)]),
        GAP.join([*titles, f"{'rows/s':>{_SPEED}}"]),
    ]


def day_line(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the line of a day, a record per arm as in the history."""
    first = records[0]
    cells = [f"{first['day']:<{_DAY}}", f"{whole(first['targets']):>{_ROWS}}"]
    for record in records:
        scores = [f"{fixed(record[name]):>{_SCORE}}" for name in _MAIN]
        cells += [f"{'warm-up':>{_ARM}}"] if record.get("warm_up") else scores
    speed = first.get("samples_per_s")
    return GAP.join([*cells, f"{whole(speed) if speed else MISSING:>{_SPEED}}"])


def arm_table(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the console's last table; `arms` as in `summary.json`."""
    titles, rows = arm_rows(arms)
    if len(arms) > 1 and "part" not in titles:
        titles += [f"{title_of(_GAP)} gap", "of dense MACs"]
        first = next(iter(arms))
        for row in rows:
            means = arms[row[0]]
            row += [
                signed_percent(means.get("ndcg_gap_percent")) if row[0] != first else MISSING,
                percent(means.get("macs_share")),
            ]
    return aligned([titles, *rows], left=(0, 1) if "part" in titles else (0,))
