"""Which charts the page of a search shows, and what each says."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysparse.report import number_text
from raysparse.report.charts import Chart
from raysparse.report.number_text import counted, fixed
from raysparse.report.plots import ARM_COLOURS, Line
from raysparse.report.scatter import Plane, Points, draw_plane, legend_of, outlying, shows_reference
from raysparse.report.search_run import Contender, SearchRun
from raysparse.search.journal import Entry
from raysparse.search.pareto import best_so_far, front
from raysparse.search.quality import NEXT_ITEMS, Quality
from raysparse.search.ranking import kendall_chance, kendall_interval, kendall_tau

Floats = NDArray[np.float64]

_SIZE = (5.4, 3.5)
_FRONT, _FINALIST, _BASELINE = ARM_COLOURS[:3]
_TRIAL = "var(--muted)"
_LEAST_RANKED = 3
_SEED = 0


def search_charts(search: SearchRun) -> list[Chart]:
    """Draw the charts of a search, in the order of the page; one that has nothing to show is left out."""
    makers: tuple[Callable[[SearchRun], Chart | None], ...] = (_trials, _alone, _best_so_far, _ranking)
    return [chart for make in makers if (chart := make(search)) is not None]


def _trials(search: SearchRun) -> Chart | None:
    scored = [entry.objectives for entry in search.entries if entry.objectives is not None]
    scored = [objectives for objectives in scored if objectives.get("macs", 0) > 0]
    if not scored:
        return None
    quality = search.results.quality
    losses, macs = (np.array([objectives[name] for objectives in scored]) for name in (quality.objective, "macs"))
    best = front(list(zip(losses, macs, strict=True)))
    scores = np.array([quality.loss_of(loss) for loss in losses])
    points = [
        Points("trial", macs, scores, _TRIAL, size=3.2, alpha=0.4),
        Points("front: no trial is both smaller and better", macs[best], scores[best], _FRONT, size=4, joined=True),
        *_contenders(search.results.finalists, "trial"),
    ]
    title = f"validation {quality.title} in its trial"
    plane = Plane(_macs(quality), title, points, log_x=True, number_text=number_text.tick)
    chart = _chart(plane, f"Every trial: score over size, {_best_corner(quality)} is better")
    return replace(chart, notes=[*chart.notes, *_failures(search.entries)])


def _alone(search: SearchRun) -> Chart | None:
    results = search.results
    quality = results.quality
    points = [*_contenders(results.finalists, "validation"), *_contenders(results.baselines, "validation")]
    if not points:
        return None
    plane = Plane(
        _macs(quality),
        f"validation {quality.title}",
        points,
        log_x=True,
        reference=results.teacher[0],
        number_text=number_text.tick,
    )
    score = "score" if quality.is_better_high else "loss"
    return _chart(plane, f"Trained alone: {score} over size, {_best_corner(quality)} is better")


def _best_so_far(search: SearchRun) -> Chart | None:
    """Over the trials in the order in which they ended."""
    quality = search.results.quality
    losses = [entry.objectives[quality.objective] if entry.objectives is not None else None for entry in search.entries]
    if all(loss is None for loss in losses):
        return None
    trial = np.arange(1, len(losses) + 1, dtype=float)
    scores, best = (
        _values([None if loss is None else quality.loss_of(loss) for loss in values])
        for values in (losses, best_so_far(losses))
    )
    points = [
        Points("trial", trial, scores, _TRIAL, size=2.6, alpha=0.4),
        Points("best so far", trial, best, _FRONT, symbol="", joined=True),
    ]
    first = next((place for place, entry in enumerate(search.entries) if entry.generation > 0), None)
    plane = Plane(
        "trials that have ended",
        f"validation {quality.title} in its trial",
        points,
        mark=(first + 0.5, "generation 1 begins") if first is not None else None,
        number_text=number_text.tick,
    )
    return _chart(plane, "Best score so far")


def _ranking(search: SearchRun) -> Chart | None:
    """Only where finalists have been trained."""
    pairs = [(finalist.numbers["trial"], finalist.numbers["validation"]) for finalist in search.results.finalists]
    known = [(score, loss) for score, loss in pairs if score is not None and loss is not None]
    points = _contenders(search.results.finalists, "validation", over="trial")
    if len(known) < 2 or not points:
        return None
    title = f"validation {search.results.quality.title}"
    plane = Plane(f"{title} in its trial", f"{title}, trained alone", points)
    chart = _chart(plane, f"Rank correlation over {counted(len(known), 'finalist')}: {_tau_text(known)}")
    notes = [*chart.notes, *_tau_notes(known)]
    if search.results.quality is NEXT_ITEMS and _inherits(search.job_tree):
        notes.append("finalists go on from the supernet's weights, and their best epoch may be the trial's own score")
    return replace(chart, notes=notes)


def _inherits(job: Mapping[str, Any]) -> bool:
    finalists = job.get("finalists")
    return isinstance(finalists, Mapping) and finalists.get("weights") == "inherited"


def _macs(quality: Quality) -> str:
    return "MACs per history" if quality is NEXT_ITEMS else "MACs per row"


def _best_corner(quality: Quality) -> str:
    return "upper left" if quality.is_better_high else "lower left"


def _tau_text(pairs: Sequence[tuple[float, float]]) -> str:
    if len(pairs) < _LEAST_RANKED:
        return "too few for Kendall's tau"
    tau = kendall_tau(*_columns(pairs))
    return "tied, no Kendall's tau" if math.isnan(tau) else f"Kendall's tau {fixed(tau, 2)}"


def _tau_notes(pairs: Sequence[tuple[float, float]]) -> list[str]:
    scores, losses = _columns(pairs)
    chance = kendall_chance(scores, losses, _SEED)
    if len(pairs) < _LEAST_RANKED or math.isnan(chance):
        return []
    low, high = kendall_interval(scores, losses, _SEED)
    notes = ["tau 1: both rank the finalists alike, 0: unrelated, -1: the other way round"]
    if high > low:
        notes.append(f"95 % interval {fixed(low, 2)} to {fixed(high, 2)} (bootstrap)")
    notes.append(f"a random order does as well or better in {_percent(chance)} of cases")
    return notes


def _percent(chance: float) -> str:
    return f"{100 * chance:.0f} %" if chance >= 0.01 else f"{100 * chance:.1g} %"


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _contenders(contenders: Sequence[Contender], y: str, over: str = "macs") -> list[Points]:
    """Those that have both numbers, the chosen one as a star."""
    kinds = (
        ("finalist, by its number", _FINALIST, "●", lambda one: one.is_finalist and not one.chosen),
        ("chosen finalist", _FINALIST, "★", lambda one: one.chosen),
        ("baseline", _BASELINE, "■", lambda one: not one.is_finalist),
    )
    found: list[Points] = []
    for label, colour, symbol, belongs in kinds:
        of_kind = [one for one in contenders if belongs(one) and one.numbers[y] is not None and one.numbers[over]]
        if of_kind:
            xs, ys = (_values([one.numbers[name] for one in of_kind]) for name in (over, y))
            found.append(Points(label, xs, ys, colour, symbol, names=[one.name for one in of_kind]))
    return found


def _chart(plane: Plane, title: str) -> Chart:
    legend, notes = legend_of(plane), []
    if plane.reference is not None:
        text = "best possible: log loss of the generating teacher"
        if shows_reference(plane):
            legend.append(Line(f"{text}, {fixed(plane.reference)}", np.empty(0), _TRIAL, "dashed"))
        else:
            notes.append(f"{text} is {fixed(plane.reference)}, outside the axis")
    if count := outlying(plane):
        notes.append(f"{counted(count, 'outlying value')} at the edge as triangles")
    return Chart(title, draw_plane(plane, title, _SIZE), legend, notes)


def _failures(entries: Sequence[Entry]) -> list[str]:
    failed = sum(entry.error is not None for entry in entries)
    return [f"{counted(failed, 'failed trial')} left out"] if failed else []


def _values(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values])
