from random import Random
from typing import Any

import pytest

from raysparse.report.charts import Chart
from raysparse.report.search_charts import search_charts
from raysparse.report.search_run import SearchRun, results_of
from raysparse.search.journal import Entry
from tests.report.searches import finalist, row, space_of

SPACE = space_of("small", 2)
CHOICE = SPACE.sample(Random(1))


def entry(number: int, loss: float | None, macs: float = 1000.0, generation: int = 0) -> Entry:
    objectives = None if loss is None else {"log_loss": loss, "macs": macs}
    error = "out of memory" if loss is None else None
    choice = CHOICE.model_dump(mode="json")
    return Entry(
        number=number,
        generation=generation,
        key=str(number),
        choice=choice,
        seconds=1.0,
        objectives=objectives,
        error=error,
    )


def charts(entries: list[Entry], rows: list[dict[str, Any]], teacher: float | None = None) -> dict[str, Chart]:
    results = results_of({"rows": rows, "teacher": {"validation_log_loss": teacher}}, "results.json")
    search = SearchRun(entries, results, {}, None, "", {}, [])
    return {chart.title.split(":")[0]: chart for chart in search_charts(search)}


def ranked(pairs: list[tuple[float, float | None]]) -> list[dict[str, Any]]:
    return [finalist(SPACE, CHOICE, rank, score, validation=loss) for rank, (score, loss) in enumerate(pairs, start=1)]


def test_trials_and_front_and_finalists_share_a_chart():
    entries = [entry(0, 0.5, 1000), entry(1, 0.4, 9000), entry(2, 0.6, 5000), entry(3, None)]
    chart = charts(entries, ranked([(0.4, 0.41)]))["Every trial"]
    assert [line.label for line in chart.legend] == [
        "trial",
        "front: no trial is both smaller and better",
        "finalist, by its number",
    ]
    assert chart.notes == ["1 failed trial left out"]
    assert chart.svg.count("<use ") >= 3 + 2 + 1
    assert ">MACs per row</text>" in chart.svg
    assert ">1</text>" in chart.svg


def test_the_first_generation_after_the_random_ones_is_marked():
    losses = [0.5, 0.45, 0.48, 0.4]
    random = [entry(number, loss) for number, loss in enumerate(losses)]
    evolved = [entry(number, loss, generation=int(number > 1)) for number, loss in enumerate(losses)]
    assert "generation 1 begins" in charts(evolved, [])["Best score so far"].svg
    assert "generation 1 begins" not in charts(random, [])["Best score so far"].svg


def test_the_teacher_is_a_line_where_it_leaves_the_others_room():
    rows = [row("baseline", "dlrm", 0.48, 0.4), row("baseline", "dcn", 0.46, 0.4)]
    near = charts([], rows, teacher=0.44)["Trained alone"]
    assert near.legend[-1].label == "best possible: log loss of the generating teacher, 0.4400"
    assert near.notes == []
    far = charts([], rows, teacher=0.1)["Trained alone"]
    assert far.notes == ["best possible: log loss of the generating teacher is 0.1000, outside the axis"]
    assert [line.label for line in far.legend] == ["baseline"]


def test_names_and_the_chosen_one_stand_in_the_chart_of_those_trained_alone():
    rows = ranked([(0.4, 0.41), (0.42, 0.4)])
    rows[1]["chosen"] = True
    chart = charts([], [*rows, row("baseline", "deepfm", 0.5, 0.5)])["Trained alone"]
    assert [line.symbol for line in chart.legend] == ["●", "★", "■"]
    assert all(f">{name}</text>" in chart.svg for name in ("1", "2", "deepfm"))


@pytest.mark.parametrize(
    ("pairs", "title", "notes"),
    [
        ([(0.40, 0.41), (0.41, 0.42), (0.42, 0.43)], "over 3 finalists: Kendall's tau 1.00", "better in 17 % of cases"),
        ([(0.40, 0.43), (0.41, 0.42), (0.42, 0.41)], "over 3 finalists: Kendall's tau -1.00", "in 100 % of cases"),
        ([(0.40, 0.41), (0.41, 0.42)], "over 2 finalists: too few for Kendall's tau", ""),
        ([(0.40, 0.41), (0.41, 0.41), (0.42, 0.41)], "over 3 finalists: tied, no Kendall's tau", ""),
        ([(0.40, 0.41), (0.41, None), (0.42, 0.5)], "over 2 finalists: too few for Kendall's tau", ""),
    ],
)
def test_the_rank_correlation_says_what_it_is_worth(pairs: list[tuple[float, float | None]], title: str, notes: str):
    chart = charts([], ranked(pairs))["Rank correlation " + title.split(":")[0]]
    assert chart.title.endswith(title)
    assert notes in "; ".join(chart.notes)
    assert not any("interval" in note for note in chart.notes)  # of no width, or of no tau


def test_the_interval_stands_beside_a_tau_that_is_not_perfect():
    pairs: list[tuple[float, float | None]] = [(0.40, 0.41), (0.41, 0.43), (0.42, 0.42), (0.43, 0.45), (0.44, 0.44)]
    chart = charts([], ranked(pairs))["Rank correlation over 5 finalists"]
    assert chart.title.endswith("tau 0.60")
    assert chart.notes[2] == "a random order does as well or better in 12 % of cases"
    assert any(note.startswith("95 % interval") and note.endswith("to 1.00 (bootstrap)") for note in chart.notes)


def test_what_has_nothing_to_show_is_left_out():
    assert charts([], []) == {}
    assert list(charts([entry(0, None)], [row("baseline", "dlrm", 0.4, 0.4)])) == ["Trained alone"]
    assert list(charts([], [row("baseline", "dlrm", None, 0.4)])) == []
