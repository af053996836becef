"""One HTML page of a search, made from its run folder alone."""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from raysparse.report.charts import Chart, run_charts
from raysparse.report.elements import Column, Grid, Row, Tile, figures_of, grid_of_tree, render, status_class
from raysparse.report.network_drawing import DENSE_COLOUR, SPARSE_COLOUR, draw_network
from raysparse.report.number_text import (
    MISSING,
    counted,
    duration,
    fixed,
    mebibytes,
    power_of_ten,
    short,
    signed,
    to_the_minute,
    whole,
)
from raysparse.report.page import REPORT
from raysparse.report.plots import Line
from raysparse.report.run import kind_of, number_of
from raysparse.report.search_charts import search_charts
from raysparse.report.search_run import Contender, Results, SearchRun, read_search
from raysparse.report.template import SEARCH_PAGE
from raysparse.search.quality import NEXT_ITEMS
from raysparse.train.run_folder import RunFolder

_NETWORKS_NOTE = (
    "Blocks in order, without those that nothing reads. Above, the dense operator of a block and the vectors it "
    "reads; below, the sparse operator and its tokens. A line leaves a block on its right; a number beside an arrow "
    "says which block it comes from, 0 being the raw input. Several inputs are joined."
)


def write_search_report(run_folder: str) -> str:
    """Write `report.html` into the folder of a search, and return its path.

    Reads nothing but the folder, so it runs in any process, during a search and after it. The page says which files
    are missing. Raises CheckpointError, naming the line, where the journal is damaged, and DataError where the
    results or the supernet's history are.
    """
    folder = RunFolder(run_folder.rstrip("/"))
    folder.write(REPORT, render_search_page(read_search(folder), posixpath.basename(folder.path)))
    return folder.url(REPORT)


def render_search_page(search: SearchRun, folder_name: str) -> str:
    """Return the page as HTML; `folder_name` is its title where neither summary nor job has a name."""
    results, summary = search.results, search.summary
    status = str(summary.get("status") or "not ended")
    values: dict[str, Any] = {
        "title": str(summary.get("name") or search.job_tree.get("name") or folder_name),
        "status": status,
        "status_class": status_class(status),
        "status_parts": list(_status_parts(search)),
        "missing": search.missing,
        "tiles": [tile for tile in _tiles(search) if tile.value != MISSING],
        "verdict": verdict(results),
        "contest": _contest_grid(results),
        "contest_note": _contest_note(results, _inherited_days(search.job_tree)),
        "charts": figures_of(search_charts(search)),
        "networks": figures_of(_network(finalist) for finalist in results.finalists if finalist.choice is not None),
        "networks_note": _NETWORKS_NOTE,
        "unit": search.supernet.unit if search.supernet is not None else None,
        "supernet": figures_of(run_charts(search.supernet)) if search.supernet is not None else None,
        "every_run": _run_grid(results),
        "errors": _error_grid(search),
        "run": grid_of_tree({**summary, **({"size": results.size} if results.size else {})}),
        "job": search.job,
    }
    return render(SEARCH_PAGE, values)


def verdict(results: Results) -> str:
    """Say in a sentence how the chosen finalist does on the test days beside the best baseline; empty without them."""
    chosen, baseline = results.chosen, results.best_baseline
    test = chosen.numbers["test"] if chosen is not None else None
    if chosen is None or test is None:
        return ""
    title = results.quality.title
    text = f"Chosen by validation {title}: {chosen.label}. Test {title} {fixed(test)}"
    other = baseline.numbers["test"] if baseline is not None else None
    if baseline is None or not other:
        return text + "."
    gap = 100 * (test / other - 1)
    than = "as much as" if gap == 0 else f"{abs(gap):.2f} % {'less' if gap < 0 else 'more'} than"
    macs, other_macs = chosen.numbers["macs"], baseline.numbers["macs"]
    size = f", at {macs / other_macs:.2g} times its MACs" if macs and other_macs else ""
    return f"{text}, {than} {baseline.label}, the best baseline by validation ({fixed(other)}){size}."


def _status_parts(search: SearchRun) -> Iterator[str]:
    job, summary = search.job_tree, search.summary
    if searcher := kind_of(job.get("searcher")):
        generation = max((entry.generation for entry in search.entries), default=0)
        yield f"searcher {searcher}" + (f", generation {generation}" if generation else "")
    space = job.get("space")
    if isinstance(space, Mapping) and space.get("kind") == "sasrec" and search.results.size:
        yield f"{whole(search.results.size.get('sampled', 0))} networks"
    if isinstance(space, Mapping) and "num_blocks" in space:
        yield f"{space.get('menu', '')} menu, {space['num_blocks']} blocks".lstrip()
    if validation := search.results.days[0]:
        yield f"validated on {validation}, tested on {search.results.days[1]}"
    if summary.get("seconds") is not None:
        yield f"took {duration(number_of(summary['seconds']))}"
    if started := summary.get("started"):
        yield f"started {to_the_minute(started)}"
    if commit := summary.get("commit"):
        yield f"commit {str(commit)[:20]}"


def _tiles(search: SearchRun) -> Iterator[Tile]:
    summary, results = search.summary, search.results
    if search.entries:
        failed = sum(entry.error is not None for entry in search.entries)
        yield Tile("trials", whole(len(search.entries)), f"{whole(failed)} failed")
    quality = results.quality
    losses = [entry.objectives[quality.objective] for entry in search.entries if entry.objectives is not None]
    if losses and not results.contenders:
        yield Tile("best score", fixed(quality.loss_of(min(losses))), f"{quality.title} in a trial")
    yield Tile("speed of trials", short(number_of(summary.get("trials_per_minute"))), "trials/min, all busy")
    phases = summary.get("phases") or {}
    yield Tile("supernet", duration(number_of(phases.get("supernet"))), "training it")
    by_gradients = kind_of(search.job_tree.get("searcher")) == "differentiable"
    searching = "by gradients" if by_gradients else "scoring the trials"
    yield Tile("search", duration(number_of(phases.get("trials"))), searching)
    yield Tile("finalists, baselines", duration(number_of(phases.get("finalists"))), "training them")
    if results.size:
        yield Tile("space", power_of_ten(results.size.get("sampled")), "choices")


def _contest_grid(results: Results) -> Grid | None:
    if not results.contenders:
        return None
    taught, quality = results.teacher != (None, None), results.quality
    above = [Column("above best possible")] if taught else []
    columns = [
        Column("network", "text name"),
        Column("learning rate"),
        Column("MACs per history" if quality is NEXT_ITEMS else "MACs per row"),
        Column("parameters"),
        Column("latency, ms"),
        Column("tables, MiB"),
        Column("score in its trial"),
        Column(f"validation {quality.title}", "main"),
        *above,
        Column(f"validation {quality.second_title}"),
        Column(f"test {quality.title}", "main"),
        *above,
        Column(f"test {quality.second_title}"),
        *([Column("what it is", "text name")] if quality is NEXT_ITEMS else []),
    ]
    rows = [
        Row(_contest_cells(contender, results), "total" if contender.chosen else "") for contender in results.contenders
    ]
    if taught:
        cells = ["best possible", *[""] * 6]
        cells += [fixed(results.teacher[0]), "", "", fixed(results.teacher[1]), "", ""]
        rows.append(Row(cells, "warm-up"))
    return Grid(columns, rows)


def _contest_cells(contender: Contender, results: Results) -> list[str]:
    numbers = contender.numbers
    taught = results.teacher != (None, None)

    def scores(days: str, teacher: float | None) -> list[str]:
        score = numbers[days]
        above = score - teacher if score is not None and teacher is not None else None
        return [fixed(score), *([signed(above)] if taught else []), fixed(numbers[f"{days}_second"])]

    return [
        f"★ {contender.label}" if contender.chosen else contender.label,
        _rate(numbers["learning_rate"]),
        short(numbers["macs"]),
        short(numbers["parameters"]),
        MISSING if numbers["latency_us"] is None else fixed(numbers["latency_us"] / 1000, 1),
        mebibytes(numbers["embedding_bytes"]),
        fixed(numbers["trial"]),
        *scores("validation", results.teacher[0]),
        *scores("test", results.teacher[1]),
        *([contender.key] if results.quality is NEXT_ITEMS else []),
    ]


def _inherited_days(job: Mapping[str, Any]) -> int | None:
    """Training days that finalists saw with the supernet's weights; None where theirs were drawn."""
    finalists = job.get("finalists") or {}
    return finalists.get("inherited_days", 1) if finalists.get("weights") == "inherited" else None


def _contest_note(results: Results, inherited_days: int | None) -> str:
    title, of_items = results.quality.title, results.quality is NEXT_ITEMS
    trained = "Each network is trained alone over all days from drawn weights, and predicts a day before it learns it."
    if of_items:
        weights = "drawn" if inherited_days is None else "the supernet's"
        trained = (
            f"Each network is trained alone from drawn weights, finalists from {weights} ones; validation is after its "
            "best epoch, the test with the weights it had then. MACs are for the longest history that it reads."
        )
    elif inherited_days is not None:
        trained = (
            f"Finalists begin with the supernet's weights and see {counted(inherited_days, 'training day')} once more, "
            "baselines are trained over all days from drawn weights; each predicts a day before it learns it."
        )
    note = (
        f"★: the chosen finalist. {trained} Finalists are numbered in the order in which the search picked them "
        f"(finalists.rank_by); their score as trials is a validation {title} as well. Learning rates and the chosen "
        f"finalist are picked by validation {title}; the test {'part picks' if of_items else 'days pick'} nothing. "
        f"Parameters are those without the tables; latency is that of {'64 histories' if of_items else '1,024 rows'} "
        "on one thread, the tables' look-ups aside."
    )
    if results.teacher != (None, None):
        note += " Best possible: log loss of the teacher that generated the days, which knows each row's odds."
    if results.without_score:
        note += f" Not in the table: {'; '.join(results.without_score)}."
    return note


def _network(finalist: Contender) -> Chart:
    choice, numbers = finalist.choice, finalist.numbers
    assert choice is not None
    title = f"{'★ ' if finalist.chosen else ''}{finalist.label.capitalize()}{', chosen' if finalist.chosen else ''}"
    title += f": {counted(len(choice.blocks), 'block')}, {short(numbers['macs'])} MACs"
    if numbers["validation"] is not None:
        title += f", validation log loss {fixed(numbers['validation'])}"
    none = np.empty(0)
    legend = [Line("dense vectors", none, DENSE_COLOUR), Line("tokens", none, SPARSE_COLOUR)]
    if any(block.fm for block in choice.blocks):
        legend.append(Line("FM: a factorization machine of the tokens is added", none, SPARSE_COLOUR, symbol="↑"))
    if any(block.dense_to_sparse for block in choice.blocks):
        legend.append(Line("+8: the dense output is appended as 8 tokens", none, DENSE_COLOUR, symbol="↓"))
    notes = [f"in the published notation: {finalist.key}"] if finalist.key else []
    if not choice.layer_norm:
        notes.append("without layer norm")
    if choice.flat_tokens:
        notes.append("the raw dense vector holds the raw tokens as well, one behind the other")
    return Chart(title, draw_network(choice, title), legend, notes, wide=True)


def _run_grid(results: Results) -> Grid | None:
    scores = [
        f"{part} {title}"
        for part in ("validation", "test")
        for title in (results.quality.title, results.quality.second_title)
    ]
    titles = ("learning rate", *scores, "training time")
    rows = [Row(_run_cells(run)) for contender in results.contenders for run in contender.runs]
    return Grid([Column("network", "text name"), *(Column(title) for title in titles)], rows) if rows else None


def _run_cells(run: Contender) -> list[str]:
    scores = [fixed(run.numbers[name]) for name in ("validation", "validation_second", "test", "test_second")]
    return [run.label, _rate(run.numbers["learning_rate"]), *scores, duration(run.numbers["seconds"])]


def _error_grid(search: SearchRun) -> Grid | None:
    failed = [entry for entry in search.entries if entry.error is not None]
    columns = [Column("trial"), Column("error", "text name"), Column("choice", "text name")]
    return Grid(columns, [Row([whole(one.number), one.error or "", one.key]) for one in failed]) if failed else None


def _rate(value: float | None) -> str:
    return MISSING if value is None else f"{value:g}"
