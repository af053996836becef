import io
from pathlib import Path

import numpy as np

from raysparse.config import Tree
from raysparse.report.charts import run_charts
from raysparse.report.console import Console
from raysparse.report.page import write_report
from raysparse.report.run import DayRecord, History, read_run
from raysparse.train.ranking_summary import RANKING_METRICS
from raysparse.train.run_folder import RunFolder
from raysparse.train.summary import summarize
from tests.report.elements import Elements
from tests.report.runs import write_run


def line(day: str, arm: str = "trained", rows: int = 100, changes: Tree | None = None) -> Tree:
    scores = dict.fromkeys(RANKING_METRICS, 0.25)
    learned = {"trained_rows": 500, "samples_per_s": 1_000.0, "score_samples_per_s": 2_000.0, "train_seconds": 0.5}
    return {
        "day": day,
        "arm": arm,
        "rows": rows,
        "targets": 2 * rows,
        "warm_up": False,
        "macs": 7,
        **learned,
        **scores,
        **(changes or {}),
    }


EPOCHS = [
    line("epoch-000", changes={"ndcg@10": 0.01}),
    line("epoch-001", changes={"ndcg@10": 0.3125}),
    line("epoch-002", changes={"ndcg@10": 0.3, "trained_rows": 0, "samples_per_s": None}),
    line("test", changes={"ndcg@10": 0.2, "trained_rows": 0, "samples_per_s": None}),
    line("test", "best", changes={"ndcg@10": 0.2125, "trained_rows": 0, "samples_per_s": None}),
]


def page_of(folder: str) -> Elements:
    return Elements(Path(write_report(folder)).read_text(encoding="utf-8"))


def test_a_page_of_epochs_has_the_best_validation_and_the_tests(tmp_path: Path):
    page = page_of(write_run(tmp_path, EPOCHS, {"name": "beauty", "status": "finished"}))
    assert ["trained", "validation, epoch-001", "0.2500", "0.3125", "0.2500", *["0.2500"] * 4] in page.rows
    assert ["trained", "test", "0.2500", "0.2000", "0.2500", *["0.2500"] * 4] in page.rows
    assert ["best", "test", "0.2500", "0.2125", "0.2500", *["0.2500"] * 4] in page.rows
    assert [
        "epoch-000",
        "trained",
        "100",
        "200",
        "0.2500",
        "0.0100",
        "0.2500",
        *["0.2500"] * 4,
        "1,000",
        "2,000",
    ] in page.rows
    text = " ".join(page.texts)
    assert "Epoch by epoch" in text
    assert "Validation: of the epoch with the best NDCG@10." in text
    assert "by arm best with the weights of the epoch that is best by early_stop's metric" in text
    assert "NDCG@10 among all items, higher is better" in text
    assert "1,000" in page.texts or "1.00 k" in page.texts  # rows that were learned in two epochs


def test_a_page_of_epochs_that_go_on_has_the_best_so_far(tmp_path: Path):
    warm_up = line("epoch-000", changes={"warm_up": True, "ndcg@10": 0.9})
    page = page_of(write_run(tmp_path, [warm_up, EPOCHS[1], line("epoch-002", changes={"ndcg@10": 0.3})]))
    assert ["trained", "validation, epoch-001", "0.2500", "0.3125", "0.2500", *["0.2500"] * 4] in page.rows
    text = " ".join(page.texts)
    assert "Epoch by epoch" in text
    assert "Validation: of the epoch with the best NDCG@10. Ranks are among all items." in text
    assert "Shaded: 1 warm-up epoch, learned but not scored" in text
    assert "day" not in text.lower()
    tile = page.texts.index("epochs")
    assert [part for part in page.texts[tile + 1 : tile + 6] if part][:2] == ["3", "learned"]


def test_a_stream_of_days_is_weighed_by_its_targets(tmp_path: Path):
    days = [
        line("2030-01-01", changes={"warm_up": True}),
        line("2030-01-02", changes={"hr@10": 0.5}),
        line("2030-01-03", rows=300),
    ]
    page = page_of(write_run(tmp_path, days, {"name": "films", "status": "finished"}))
    assert ["trained", "0.2500", "0.2500", "0.2500", "0.2500", "0.3125", "0.2500", "0.2500"] in page.rows
    assert "Day by day" in " ".join(page.texts)


KEPT: Tree = {"macs": 4, "widths": {"heads": 1, "neurons": 4}, "groups": {"heads": 2, "neurons": 8}}
PRUNED = [
    line("2030-01-01", changes={"warm_up": True, "ndcg@10": 0.9}),
    line("2030-01-02", changes={"ndcg@10": 0.5}),
    line("2030-01-03", changes={"ndcg@10": 0.4}),
    line("2030-01-04", rows=300, changes={"ndcg@10": 0.2}),
    line("2030-01-03", "half", changes={"ndcg@10": 0.3, "swapped": False, **KEPT}),
    line("2030-01-04", "half", rows=300, changes={"ndcg@10": 0.22, "swapped": True, "churn": 0.25, **KEPT}),
    line("2030-01-04", "frozen", rows=300, changes={"ndcg@10": 0.1}),
    line("2030-01-04", "half.candidate", rows=300, changes={"shadow": True, "ndcg@10": 0.0}),
]


def test_a_pruned_arm_has_its_gap_its_size_its_swaps_and_its_churn_in_the_table(tmp_path: Path):
    page = page_of(write_run(tmp_path, PRUNED))
    titles = next(row for row in page.rows if row[0] == "arm")
    assert titles[-5:] == ["NDCG@10 gap to trained", "MACs per history", "of dense MACs", "swaps", "mean churn"]
    cells = {row[0]: row[-5:] for row in page.rows if row and row[0] in ("trained", "half", "frozen")}
    # over the two days of both, by targets: (0.3 + 3 * 0.22) / (0.4 + 3 * 0.2)
    assert cells["half"] == ["-4.000 %", "4", "57.14 %", "1", "25.00 %"]
    assert cells["frozen"] == ["-50.000 %", "7", "100.00 %", "-", "-"]
    assert cells["trained"] == ["-", "7", "100.00 %", "-", "-"]
    text = " ".join(page.texts)
    assert "NDCG@10 gap: of the means over the days that both arms have" in text
    assert "Swaps: how often a mask took another one's place." in text


def test_without_pruned_arms_the_table_speaks_of_no_swaps(tmp_path: Path):
    page = page_of(write_run(tmp_path, [line("2030-01-01"), line("2030-01-01", "frozen")]))
    assert page.rows[0][-3:] == ["NDCG@10 gap to trained", "MACs per history", "of dense MACs"]
    assert "Swaps" not in " ".join(page.texts)


def test_arms_of_epochs_are_not_compared(tmp_path: Path):
    page = page_of(write_run(tmp_path, EPOCHS))
    assert page.rows[0][-1] == "MRR@10"


def test_a_pruned_arm_has_the_charts_of_a_click_models(tmp_path: Path):
    charts = {chart.title: chart for chart in run_charts(read_run(RunFolder(write_run(tmp_path, PRUNED))).history)}
    assert list(charts) == [
        "NDCG@10 among all items, higher is better",
        "NDCG@10 gap to trained, below 0 is worse",
        "HR@10 among all items, higher is better",
        "MRR@10 among all items, higher is better",
        "Mask churn: share of all groups that a swap changed",
        "Training speed",
        "Groups kept by half",
        "The days: rows and targets",
    ]
    half, frozen, mark, reference = charts["NDCG@10 gap to trained, below 0 is worse"].legend
    np.testing.assert_allclose(half.values, [np.nan, np.nan, -0.1, 0.02])
    np.testing.assert_allclose(frozen.values, [np.nan, np.nan, np.nan, -0.1])
    assert mark.label == "mask swapped: first day under the new one"
    assert reference.label == "0: as good as trained"
    np.testing.assert_allclose(
        charts["Mask churn: share of all groups that a swap changed"].legend[0].values, [np.nan] * 3 + [25.0]
    )
    assert ">targets<" in charts["The days: rows and targets"].svg


def test_the_size_of_a_model_of_sequences_is_that_for_a_history():
    history = History(
        [DayRecord(day, "half", 1, {"targets": 1.0, "macs": macs}, False) for day, macs in (("1", 900.0), ("2", 500.0))]
    )
    chart = next(chart for chart in run_charts(history) if chart.title == "Size of the model")
    assert ">MACs per history<" in chart.svg


def test_epochs_have_charts_without_the_test(tmp_path: Path):
    charts = run_charts(read_run(RunFolder(write_run(tmp_path, EPOCHS))).history)
    assert [chart.title.split()[0] for chart in charts] == ["NDCG@10", "HR@10", "MRR@10", "Training"]
    np.testing.assert_allclose(charts[0].legend[0].values, [0.01, 0.3125, 0.3])


def test_the_console_prints_ranks_of_each_arm():
    stream = io.StringIO()
    with Console(stream, is_terminal=False) as console:
        console.day(EPOCHS[1:2])
        console.day(EPOCHS[3:])
        arms = {"trained": {"days": 2, "day": "epoch-001", **dict.fromkeys(RANKING_METRICS, 0.25)}}
        console.finish({"epochs": 3, "rows": 1_000, "arms": arms}, "run", "report.html")
    lines = stream.getvalue().splitlines()
    assert lines[1].split() == ["day", "targets", "NDCG@10", "HR@10", "MRR@10", "rows/s"]
    assert lines[2].split() == ["epoch-001", "200", "0.3125", "0.2500", "0.2500", "1,000"]
    assert lines[5].split() == ["test", "200", "0.2000", "0.2500", "0.2500", "0.2125", "0.2500", "0.2500", "-"]
    assert any(line.split()[:3] == ["trained", "validation,", "epoch-001"] for line in lines)


def test_the_console_prints_no_ranks_of_a_warm_up_day():
    stream = io.StringIO()
    with Console(stream, is_terminal=False) as console:
        warm_up = {"warm_up": True}
        console.day([line("2030-01-01", changes=warm_up), line("2030-01-01", "frozen", changes=warm_up)])
        console.day([line("2030-01-02"), line("2030-01-02", "frozen")])
    lines = stream.getvalue().splitlines()
    assert lines[2].split() == ["2030-01-01", "200", "warm-up", "warm-up", "1,000"]
    assert lines[3].split() == ["2030-01-02", "200", *["0.2500"] * 6, "1,000"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_the_console_says_how_far_arms_of_a_stream_are_from_the_dense_one():
    stream = io.StringIO()
    with Console(stream, is_terminal=False) as console:
        console.finish(summarize(PRUNED), "run", "report.html")
    rows = [text.split() for text in stream.getvalue().splitlines()]
    titles = next(row for row in rows if row and row[0] == "arm")
    assert titles[-5:] == ["NDCG@10", "gap", "of", "dense", "MACs"]
    assert next(row for row in rows if row[:1] == ["half"])[-4:] == ["-4.000", "%", "57.14", "%"]
    assert next(row for row in rows if row[:1] == ["trained"])[-3:] == ["-", "100.00", "%"]
