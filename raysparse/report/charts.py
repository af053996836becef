"""Which charts a run's page shows, and what each says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raysparse.report import number_text
from raysparse.report.heat_map import HeatMap, days_per_column, draw_heat_map
from raysparse.report.plots import (
    ARM_DASHES,
    MOST_MARKED_DAYS,
    ROLLING_DAYS,
    Line,
    Panel,
    arm_line,
    draw,
    outlying,
    shows_reference,
)
from raysparse.report.run import History

Floats = NDArray[np.float64]

_WIDE, _HALF = (11.0, 3.5), (5.4, 2.7)
# More lines than this are not told apart on half the width.
_MOST_HALF_LINES = 2


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, its legend and what has to be said about it."""

    title: str
    svg: str
    legend: Sequence[Line]
    notes: Sequence[str]
    wide: bool = False


_Makers = tuple[Callable[[History], Chart | None], ...]


def run_charts(history: History) -> list[Chart]:
    """Draw the charts of a run, in the order of the page; one that has nothing to show is left out."""
    shown = history.epochs or history
    of_ranks: _Makers = (_ndcg, _ndcg_gap, _hit_ratio, _reciprocal_rank)
    of_clicks: _Makers = (_normalized_entropy, _ne_gap, _auc, _calibration)
    makers = (*(of_ranks if history.is_ranking else of_clicks), _macs, _churn, _speed)
    charts = [chart for make in makers if (chart := make(shown)) is not None]
    of_arm: tuple[Callable[[History, str], Chart | None], ...] = (_groups, _rows, _table_rows)
    charts += [chart for make in of_arm for arm in shown.arms if (chart := make(shown, arm)) is not None]
    if history.epochs is None:
        num_halves = sum(not chart.wide for chart in charts)
        # two halves a line: the last chart fills whatever is left of one
        charts.append(_days(history, _HALF if num_halves % 2 else _WIDE))
    return charts


def _ndcg(history: History) -> Chart:
    return _ranks(history, "ndcg@10", _WIDE)


def _hit_ratio(history: History) -> Chart:
    return _ranks(history, "hr@10", _HALF)


def _reciprocal_rank(history: History) -> Chart:
    return _ranks(history, "mrr@10", _HALF)


def _ranks(history: History, metric: str, size: tuple[float, float]) -> Chart:
    """A metric of next items over the days, or after each epoch."""
    title = metric.upper()
    panel = Panel(title, _arm_lines(history, metric), from_zero=True)
    return _chart(history, f"{title} among all items, higher is better", [panel], size)


def relative_gap(values: Floats, reference: Floats) -> Floats:
    """How much higher `values` are than `reference`, in percent of it, `[num_days]`."""
    return 100 * (values / np.where(reference == 0, np.nan, reference) - 1)


def _arm_lines(history: History, name: str) -> list[Line]:
    """One line per arm that has values; a single line where arms never differ."""
    lines = [arm_line(arm, history.series(arm, name), position) for position, arm in enumerate(history.arms)]
    lines = [line for line in lines if np.isfinite(line.values).any()]
    shared = history.shared(name)
    alike = all(np.all(np.isnan(line.values) | (line.values == shared)) for line in lines)
    return [Line("all arms", shared)] if len(lines) > 1 and alike else lines


def _normalized_entropy(history: History) -> Chart:
    lines = [arm_line(arm, history.series(arm, "ne"), position) for position, arm in enumerate(history.arms)]
    best = history.shared("best_ne")
    bounds = [Line("best possible: NE of the generating teacher", best, "var(--muted)", "dotted")]
    panel = Panel(
        "normalized entropy\n(1 = predicting the base rate)",
        lines,
        reference=1.0,
        bounds=bounds if np.isfinite(best).any() else (),
    )
    return _chart(history, "Normalized entropy, lower is better", [panel], _WIDE, "predicting the base rate")


def _ne_gap(history: History) -> Chart | None:
    return _gap(history, "ne", relative_gap, "NE gap (%)", "above")


def _ndcg_gap(history: History) -> Chart | None:
    # on a day of few targets NDCG@10 can be near 0, and the gap any multiple of it
    return _gap(history, "ndcg@10", np.subtract, "difference of NDCG@10", "below")


def _gap(
    history: History, metric: str, gap_of: Callable[[Floats, Floats], Floats], label: str, worse: str
) -> Chart | None:
    """Only where there are several arms; `worse` is the side of 0 on which an arm is worse than the first one."""
    first, *others = history.arms
    if not others:
        return None
    reference = history.series(first, metric)
    lines = [
        replace(arm_line(arm, gap_of(history.series(arm, metric), reference), position), marked=history.swapped(arm))
        for position, arm in enumerate(others, start=1)
    ]
    panel = Panel(label, lines, reference=0.0)
    size = _HALF if len(others) <= _MOST_HALF_LINES else _WIDE
    return _chart(history, f"{metric.upper()} gap to {first}, {worse} 0 is worse", [panel], size, f"as good as {first}")


def _auc(history: History) -> Chart | None:
    lines = _arm_lines(history, "auc")
    return _chart(history, "AUC, higher is better", [Panel("AUC", lines)], _HALF) if lines else None


def _calibration(history: History) -> Chart | None:
    lines = _arm_lines(history, "calibration")
    panel = Panel("predicted / observed", lines, reference=1.0)
    return _chart(history, "Calibration, best at 1", [panel], _HALF, "calibrated") if lines else None


def _macs(history: History) -> Chart | None:
    """Only where a model changed its size during the run."""
    lines = [arm_line(arm, history.series(arm, "macs"), position) for position, arm in enumerate(history.arms)]
    if not any(len(np.unique(line.values[np.isfinite(line.values)])) > 1 for line in lines):
        return None
    label = "MACs per history" if history.is_ranking else "MACs per row"
    panel = Panel(label, lines, from_zero=True, steps=True, number_text=number_text.tick)
    return _chart(history, "Size of the model", [panel], _HALF)


def _churn(history: History) -> Chart | None:
    """Only where a mask took another one's place."""
    lines = [
        replace(arm_line(arm, 100 * history.series(arm, "churn"), position), symbol="●")
        for position, arm in enumerate(history.arms)
    ]
    lines = [line for line in lines if np.isfinite(line.values).any()]
    if not lines:
        return None
    panel = Panel("groups changed (%)", lines, from_zero=True, points=True)
    chart = _chart(history, "Mask churn: share of all groups that a swap changed", [panel], _HALF)
    note = "churn has a null above 0: two masks found on the same days differ, too"
    return replace(chart, notes=[*chart.notes, note])


def _groups(history: History, arm: str) -> Chart | None:
    """Only for an arm whose history says how many groups there are."""
    groups = history.dense_groups(arm)
    kept = {place: history.widths(arm, place) for place in groups}
    note = "share of a place's groups in the dense model; at the right: groups kept on its last day"
    return _kept(history, f"Groups kept by {arm}", groups, kept, "groups kept (%)", note) if groups else None


def _table_rows(history: History, arm: str) -> Chart | None:
    """Only for an arm whose history says how many rows its tables have, if these are several."""
    rows = history.table_rows(arm)
    kept = {table: history.kept_rows(arm, table) for table in rows}
    note = "share of a table's rows, and of its bytes; at the right: rows kept on its last day"
    title = f"Rows kept by {arm}, table by table"
    return _kept(history, title, rows, kept, "rows kept (%)", note) if len(rows) > 1 else None


def _kept(
    history: History, title: str, sizes: Mapping[str, int], kept: Mapping[str, Floats], label: str, note: str
) -> Chart:
    """A row for each of `sizes`, of which `kept` is left on each day."""
    shares = np.stack([kept[place] / size for place, size in sizes.items()])
    last = [
        f"{number_text.short(kept[place][np.isfinite(kept[place])][-1])} of {number_text.short(size)}"
        for place, size in sizes.items()
    ]
    svg = draw_heat_map(history.days, HeatMap(list(sizes), shares, last, label), title, _HALF[0], history.warm_up)
    notes = [note]
    if (num_days := days_per_column(len(history.days))) > 1:
        notes.append(f"a column is the mean of {num_days} days")
    return Chart(title, svg, [], notes)


def _rows(history: History, arm: str) -> Chart | None:
    """Only for an arm whose history says how many rows there are."""
    tables = history.table_rows(arm)
    if not tables:
        return None
    rows = history.series(arm, "kept_rows") / sum(tables.values())
    table_bytes, kept_bytes = history.series(arm, "table_bytes"), history.series(arm, "kept_row_bytes")
    row_bytes = kept_bytes / table_bytes
    served = (kept_bytes + history.series(arm, "remapping_bytes")) / table_bytes
    alike = np.allclose(rows, row_bytes, equal_nan=True)
    shares = {"rows, and their bytes": rows} if alike else {"rows": rows, "their bytes": row_bytes}
    shares["their bytes, with the remapping that a served table needs"] = served
    lines = [
        replace(arm_line(label, 100 * share, history.arms.index(arm)), dash=dash)
        for (label, share), dash in zip(shares.items(), ARM_DASHES, strict=False)
    ]
    panel = Panel("share of all tables (%)", lines, from_zero=True, steps=True)
    return _chart(history, f"Rows kept by {arm}", [panel], _HALF)


def _speed(history: History) -> Chart | None:
    lines = _arm_lines(history, "samples_per_s")
    panel = Panel("rows/s", lines, from_zero=True, number_text=number_text.tick)
    return _chart(history, "Training speed", [panel], _HALF) if lines else None


def _days(history: History, size: tuple[float, float]) -> Chart:
    rows = Panel("rows", bars=history.rows, number_text=number_text.tick)
    if history.is_ranking:
        targets = Panel("targets", bars=history.shared("targets"), number_text=number_text.tick)
        return _chart(history, "The days: rows and targets", [rows, targets], size)
    rate = Panel("base rate (%)", [Line("share of rows with label 1", 100 * history.shared("base_rate"))])
    return _chart(history, "The days: base rate and rows", [rate, rows], size)


def _chart(
    history: History, title: str, panels: Sequence[Panel], size: tuple[float, float], reference: str = ""
) -> Chart:
    legend = [line for panel in panels for line in (*panel.lines, *panel.bounds)]
    if any(line.marked is not None and line.marked.any() for line in legend):
        legend.append(Line("mask swapped: first day under the new one", np.empty(0), symbol="◆"))
    notes: list[str] = []
    for panel in panels:
        if panel.reference is not None and shows_reference(panel):
            legend.append(Line(f"{panel.reference:g}: {reference}", np.empty(0), "var(--muted)", "dashed"))
        elif panel.reference is not None and any(np.isfinite(line.values).any() for line in panel.lines):
            notes.append(f"{panel.reference:g} ({reference}) lies outside the axis")
        if count := outlying(panel):
            notes.append(f"{count} outlying {'value' if count == 1 else 'values'} at the edge as triangles")
    if len(history.days) > MOST_MARKED_DAYS and any(
        panel.lines and not panel.steps and not panel.points for panel in panels
    ):
        notes.insert(0, f"bold: mean of the last {ROLLING_DAYS} days; pale: each day")
    return Chart(title, draw(history.days, panels, title, size, history.warm_up), legend, notes, size == _WIDE)
