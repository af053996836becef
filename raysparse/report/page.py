"""One HTML page of a run, made from its run folder alone."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from raysparse.report import ranking
from raysparse.report.charts import run_charts
from raysparse.report.elements import Column, Grid, Row, Tile, figures_of, grid_of_tree, render, status_class
from raysparse.report.number_text import (
    MISSING,
    counted,
    duration,
    fixed,
    mebibytes,
    percent,
    short,
    signed_percent,
    to_the_minute,
    whole,
)
from raysparse.report.plan_table import MOST_SINGLE_TABLES, PlanLine, plan_lines
from raysparse.report.plots import arm_line
from raysparse.report.run import DayRecord, History, Run, kind_of, number_of, read_run
from raysparse.report.template import PAGE
from raysparse.train.run_folder import RunFolder

REPORT = "report.html"


def write_report(run_folder: str) -> str:
    """Write `report.html` into a run folder, local or on an object store, and return its path.

    Reads nothing but the folder, so it runs in any process, during a run and after it. The page says which files
    are missing. Raises a DataError, naming file and line, where the history is missing or broken.
    """
    folder = RunFolder(run_folder.rstrip("/"))
    folder.write(REPORT, render_page(read_run(folder), posixpath.basename(folder.path)))
    return folder.url(REPORT)


def render_page(run: Run, folder_name: str) -> str:
    """Return the page as HTML; `folder_name` is its title where the summary has no name."""
    history, summary = run.history, run.summary
    status = str(summary.get("status") or "not ended")
    grouped = len(run.plan) > MOST_SINGLE_TABLES
    values: dict[str, Any] = {
        "title": str(summary.get("name") or folder_name),
        "status": status,
        "status_class": status_class(status),
        "status_parts": list(_status_parts(history, summary)),
        "missing": run.missing,
        "tiles": [tile for tile in _tiles(run) if tile.value != MISSING],
        "arms": ranking.arm_grid(history) if history.is_ranking else _arm_grid(run),
        "arms_note": _arms_note(run),
        "unit": history.unit,
        "charts": figures_of(run_charts(history)),
        "warm_up": _warm_up_note(history),
        "plan": _plan_grid(plan_lines(run.plan)) if run.plan else None,
        "all_tables": _plan_grid(plan_lines(run.plan, group=False)) if grouped else None,
        "every_day": ranking.day_grid(history) if history.is_ranking else _day_grid(history),
        "run": grid_of_tree(summary),
        "job": run.job,
    }
    return render(PAGE, values)


def _status_parts(history: History, summary: Mapping[str, Any]) -> Iterator[str]:
    first, last = history.days[0], history.days[-1]
    yield first if first == last else f"{first} to {last}"
    if model := kind_of(summary.get("model")):
        yield f"model {model}"
    if workers := summary.get("num_workers"):
        threads = summary.get("threads_per_worker")
        each = f" with {counted(threads, 'thread')}" + (" each" if workers != 1 else "") if threads else ""
        yield counted(workers, "worker") + each
    if started := summary.get("started"):
        yield f"started {to_the_minute(started)}"
    if commit := summary.get("commit"):
        yield f"commit {str(commit)[:20]}"


def _tiles(run: Run) -> Iterator[Tile]:
    history, totals = run.history, run.history.totals
    first, *others = history.arms
    if history.epochs is not None:
        yield Tile("epochs", whole(run.history.totals["epochs"]), "learned")
    else:
        num_scored = int(np.sum(~history.warm_up))
        scored = "" if num_scored == len(history.days) else f"{num_scored:,} scored"
        yield Tile("days", whole(len(history.days)), scored)
    yield Tile("rows", short(totals["rows"]))
    yield Tile("training", short(totals["samples_per_s"]), "rows/s")
    since = "since it was resumed" if run.summary.get("resumed") else ""
    yield Tile("run time", duration(number_of(run.summary.get("seconds"))), since)
    yield Tile("parameters", short(number_of(run.summary.get("parameters"))), "without the tables")
    if run.plan:
        yield Tile("embedding tables", mebibytes(sum(table.get("bytes") or 0 for table in run.plan)), "MiB")
    of = "longest history" if history.is_ranking else first if others else ""
    yield Tile("MACs" if history.is_ranking else "MACs per row", short(_last(history.series(first, "macs"))), of)


def _arm_grid(run: Run) -> Grid:
    """Means per arm, weighed like those of the summary; arms that are pruned bring columns of their own."""
    history, heads = run.history, _heads(run)
    several = len(history.arms) > 1
    titles = ["NE", "stream NE", "AUC", "log loss", "calibration", "MACs per row"]
    if several:
        titles[1:1] = [f"NE gap to {history.arms[0]}", "gap, last half"]
        titles += ["of dense MACs"]
    if heads:
        titles += ["head KiB", *(f"us for {counted(size, 'row')}" for size in _batch_sizes(heads))]
    titles += ["swaps", "mean churn"] if history.has_masks else []
    titles += ["days scored"] if several else []
    columns = [Column("arm", "text name"), *(Column(title, "main" if title == "NE" else "") for title in titles)]
    rows = [Row(_arm_cells(history, position, heads)) for position in range(len(history.arms))]
    best = history.totals["arms"][history.arms[0]]["best_ne"]
    if best is not None:
        cells = ["best possible (the generating teacher)", fixed(best)]
        rows.append(Row(cells + [""] * (len(columns) - 2), "warm-up"))
    return Grid(columns, rows)


def _arm_cells(history: History, position: int, heads: Mapping[str, Any]) -> list[str]:
    arm = history.arms[position]
    means = history.totals["arms"][arm]
    several = len(history.arms) > 1
    gaps = [means["ne_gap_percent"], means["ne_gap_percent_last_half"]] if position else [None, None]
    return [
        _swatch(arm, position),
        fixed(means["ne"]),
        *([signed_percent(gap) for gap in gaps] if several else []),
        fixed(means.get("stream_ne")),
        fixed(means["auc"]),
        fixed(means["log_loss"]),
        fixed(means["calibration"], 3),
        whole(means["macs"]),
        *([percent(means["macs_share"])] if several else []),
        *(_head_cells(heads, arm) if heads else []),
        *([whole(means["num_swaps"]), percent(means["churn"])] if history.has_masks else []),
        *([whole(means["days"])] if several else []),
    ]


def _heads(run: Run) -> Mapping[str, Any]:
    """What the arms' heads were measured to take; empty where the run has not ended."""
    heads = run.summary.get("heads")
    return heads if isinstance(heads, Mapping) else {}


def _batch_sizes(heads: Mapping[str, Any]) -> list[int]:
    """Batch sizes at which heads were timed; JSON has them as text."""
    return sorted({int(size) for head in heads.values() for size in head["latency_us"]})


def _head_cells(heads: Mapping[str, Any], arm: str) -> list[str]:
    sizes = _batch_sizes(heads)
    if arm not in heads:
        return [MISSING] * (1 + len(sizes))
    latency = heads[arm]["latency_us"]
    return [whole(heads[arm]["bytes"] / 1024), *(whole(latency.get(str(size))) for size in sizes)]


def _arms_note(run: Run) -> str:
    note = ranking.arms_note(run.history) if run.history.is_ranking else _click_arms_note(run)
    if run.history.has_masks:
        note += (
            " Swaps: how often a mask took another one's place. Mean churn: share of all groups that a swap changed."
        )
    return note


def _click_arms_note(run: Run) -> str:
    history = run.history
    several = len(history.arms) > 1
    days = "the days an arm was scored on" if several else "the scored days"
    note = (
        f"Means over {days}, each day weighed by its rows. Stream NE: all these days taken as one, against their "
        "common base rate. MACs: of the last day."
    )
    if several:
        note += (
            " NE gap: mean over the days that both arms have; last half: over those of them in the last half of the "
            "stream. Above 0 is worse."
        )
    if _heads(run):
        note += (
            " Head: without the tables; us: measured microseconds of a batch on one thread, at the end of the run. An "
            "arm that is masked in place is not smaller or faster until it is compacted."
        )
    return note


def _warm_up_note(history: History) -> str:
    warm_up = int(history.warm_up.sum())
    return (
        f"Shaded: {counted(warm_up, f'warm-up {history.unit}')}, learned but not scored; no mean counts them."
        if warm_up
        else ""
    )


def _plan_grid(lines: Sequence[PlanLine]) -> Grid:
    columns = [
        Column("table", "text name"),
        Column("rows"),
        Column("dim"),
        Column("weights, MiB"),
        Column("optimizer state, MiB"),
        Column("sharding", "text"),
        Column("kernel", "text"),
        Column("ranks", "text"),
    ]
    rows = [
        Row(
            [
                line.label,
                whole(line.rows),
                whole(line.dim),
                mebibytes(line.num_bytes),
                mebibytes(line.optimizer_bytes),
                line.sharding,
                line.kernel,
                line.ranks,
            ]
        )
        for line in lines
    ]
    num_tables = sum(line.num_tables for line in lines)
    if num_tables > 1:
        sums = [
            mebibytes(sum(line.num_bytes for line in lines)),
            mebibytes(sum(line.optimizer_bytes for line in lines)),
        ]
        total = [f"all {counted(num_tables, 'table')}", whole(sum(line.rows for line in lines)), "", *sums]
        rows.append(Row(total + [""] * 3, "total"))
    if any(line.optimizer for line in lines):
        columns.append(Column("optimizer", "text"))
        rows = [
            Row([*row.cells, line.optimizer if line else ""], row.style)
            for row, line in zip(rows, [*lines, None], strict=False)
        ]
    return Grid(columns, rows)


def _day_grid(history: History) -> Grid:
    titles = ("rows", "base rate", "NE", "AUC", "log loss", "calibration", "MACs", "train rows/s", "score rows/s")
    columns = [Column("day", "text"), Column("arm", "text name"), *(Column(title) for title in titles)]
    return Grid(columns, [Row(_day_cells(record), "warm-up" if record.warm_up else "") for record in history.records])


def _day_cells(record: DayRecord) -> list[str]:
    numbers = record.scores
    return [
        record.day,
        record.arm,
        whole(record.rows),
        percent(numbers["base_rate"]),
        "warm-up" if record.warm_up else fixed(numbers["ne"]),
        fixed(numbers["auc"]),
        fixed(numbers["log_loss"]),
        fixed(numbers["calibration"], 3),
        whole(numbers["macs"]),
        whole(numbers["samples_per_s"]),
        whole(numbers["score_samples_per_s"]),
    ]


def _swatch(arm: str, position: int) -> str:
    line = arm_line(arm, np.empty(0), position)
    style = f"border-top: 3px {line.dash} {line.colour}"
    return Markup('<span class="swatch" style="{}"></span>{}').format(style, arm)


def _last(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None
