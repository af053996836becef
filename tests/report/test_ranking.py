import io
from pathlib import Path

from raysparse.config import Tree
from raysparse.report.console import Console
from raysparse.report.page import write_report
from raysparse.train.ranking_summary import RANKING_METRICS
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


def test_a_stream_of_days_is_weighed_by_its_targets(tmp_path: Path):
    days = [
        line("2030-01-01", changes={"warm_up": True}),
        line("2030-01-02", changes={"hr@10": 0.5}),
        line("2030-01-03", rows=300),
    ]
    page = page_of(write_run(tmp_path, days, {"name": "films", "status": "finished"}))
    assert ["trained", "0.2500", "0.2500", "0.2500", "0.2500", "0.3125", "0.2500", "0.2500"] in page.rows
    assert "Day by day" in " ".join(page.texts)


def test_the_console_prints_ranks_of_each_arm():
    stream = io.StringIO()
    with Console(stream, is_terminal=False) as console:
        console.day(EPOCHS[1:2])
        console.day(EPOCHS[3:])
        arms = {"trained": {"days": 2, "day": "epoch-001", **dict.fromkeys(RANKING_METRICS, 0.25)}}
        console.finish({"days": 3, "rows": 1_000, "arms": arms}, "run", "report.html")
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
