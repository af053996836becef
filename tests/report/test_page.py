import math
import re
from datetime import date, timedelta
from pathlib import Path

import pytest

from raysparse.errors import DataError
from raysparse.report.page import write_report
from tests.report.elements import HOSTILE, Elements, assert_loads_nothing
from tests.report.runs import record, table, write_run

SUMMARY = {
    "name": "flights",
    "status": "finished",
    "started": "2026-11-03T10:12:44+00:00",
    "seconds": 437.2,
    "num_workers": 2,
    "threads_per_worker": 1,
    "model": "dlrm",
    "commit": "1234abc",
    "versions": {"torch": "2.13.0"},
}


def year(arms: tuple[str, ...], num_days: int = 365) -> list[dict[str, object]]:
    days = [(date(2013, 1, 1) + timedelta(i)).isoformat() for i in range(num_days)]
    return [
        record(day, arm, ne=0.85 + 0.03 * math.sin(i * 7.3 + k), auc=0.7 + 0.02 * math.sin(i * 3.1 + k))
        for i, day in enumerate(days)
        for k, arm in enumerate(arms)
    ]


def page_of(run_folder: str) -> str:
    path = write_report(run_folder)
    assert path == f"{run_folder}/report.html"
    return Path(path).read_text(encoding="utf-8")


def test_the_numbers_of_the_run_stand_on_the_page(tmp_path: Path):
    history = [
        record("2013-01-01", "trained", ne=0.9, auc=0.61, rows=12_345),
        record("2013-01-01", "frozen", ne=0.99, auc=0.55, rows=12_345),
    ]
    page = Elements(page_of(write_run(tmp_path, history, SUMMARY, [table("carrier")], "kind: train\nname: flights\n")))
    text = " ".join(page.texts)
    assert "finished" in page.texts
    assert "2 workers with 1 thread each" in text
    assert "7 min 17 s" in page.texts
    assert "12.3 k" in page.texts
    # NE, its gap to the first arm on all days and in the last half, stream NE, AUC, log loss, calibration, MACs, days
    scores = ["0.8891", "0.6100", "0.5000", "1.010", "18,000", "100.00 %", "1"]
    assert ["trained", "0.9000", "-", "-", *scores] in page.rows
    scores = ["0.8891", "0.5500", "0.5000", "1.010", "18,000", "100.00 %", "1"]
    assert ["frozen", "0.9900", "+10.000 %", "+10.000 %", *scores] in page.rows
    assert ["carrier", "1,024", "16", "0.1", "<0.1", "table_wise", "fused", "0"] in page.rows
    assert ["versions.torch", "2.13.0"] in page.rows
    day = ["2013-01-01", "frozen", "12,345", "25.00 %", "0.9900", "0.5500", "0.5000", "1.010", "18,000"]
    assert [*day, "50,000", "90,000"] in page.rows
    assert "kind: train\nname: flights" in page.texts


@pytest.mark.parametrize("resumed", [True, False])
def test_the_time_of_a_resumed_run_is_that_since_then(tmp_path: Path, resumed: bool):
    page = page_of(write_run(tmp_path, [record("2013-01-01", "trained")], {**SUMMARY, "resumed": resumed}))
    assert ("since it was resumed" in Elements(page).texts) == resumed


def test_a_year_of_three_arms_stays_small_and_loads_nothing(tmp_path: Path):
    page = page_of(write_run(tmp_path, year(("trained", "frozen", "pruned")), SUMMARY))
    assert len(page.encode()) < 1_500_000
    assert_loads_nothing(page)


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path):
    history = [record("<b>1</b>", HOSTILE), record("<b>1</b>", "$x_{$")]
    job = f"name: '{HOSTILE}'\n"
    elements = Elements(page_of(write_run(tmp_path, history, SUMMARY | {"name": HOSTILE}, [table(HOSTILE)], job)))
    assert not [tag for tag, _ in elements.elements if tag in ("script", "img")]
    assert [tag for tag, _ in elements.elements].count("b") == 1  # the status
    assert not [name for _, attributes in elements.elements for name in attributes if name.startswith("on")]
    assert elements.texts.count(HOSTILE) >= 3
    assert f"name: '{HOSTILE}'" in elements.texts


def test_every_arm_has_one_colour_and_its_entry_in_the_legends(tmp_path: Path):
    page = page_of(write_run(tmp_path, year(("trained", "frozen"), 5)))
    swatches = re.findall(r'<span class="swatch" style="border-top: 3px (\w+) ([^"]*)"></span>([^<]*)', page)
    assert {(dash, colour) for dash, colour, label in swatches if label == "trained"} == {("solid", "#0072B2")}
    assert {(dash, colour) for dash, colour, label in swatches if label == "frozen"} == {("solid", "#D55E00")}
    assert [label for *_, label in swatches].count("frozen") == 4  # table of arms, NE, gap, AUC


def test_the_axis_of_normalized_entropy_says_what_one_is(tmp_path: Path):
    texts = Elements(page_of(write_run(tmp_path, year(("main",), 3)))).texts
    assert "normalized entropy" in texts
    assert "(1 = predicting the base rate)" in texts


def test_without_values_the_page_still_stands(tmp_path: Path):
    page = Elements(page_of(write_run(tmp_path, [record("7", "main", ne=None, auc=None, calibration=None)])))
    assert "no values" in page.texts
    assert "plan.json is missing: the sharding table is left out." in page.texts
    assert ["7", "main", "1,000", "25.00 %", "-", "-", "0.5000", "-", "18,000", "50,000", "90,000"] in page.rows


def test_warm_up_days_are_counted_and_marked(tmp_path: Path):
    history = [record("1", "main", warm_up=True), record("2", "main", warm_up=True), record("3", "main", ne=0.8)]
    page = Elements(page_of(write_run(tmp_path, history)))
    assert "1 scored" in page.texts
    assert "Shaded: 2 warm-up days, learned but not scored; no mean counts them." in page.texts
    assert [row[4] for row in page.rows if row[:1] in (["1"], ["2"], ["3"])] == ["warm-up", "warm-up", "0.8000"]


def test_many_equal_tables_share_a_line_and_have_theirs_below(tmp_path: Path):
    plan = [table(f"c{i:02d}", ranks=[i % 2]) for i in range(26)]
    rows = Elements(page_of(write_run(tmp_path, [record("1", "main")], plan=plan))).rows
    assert ["26 tables c00..c25", "26,624", "16", "1.6", "0.1", "table_wise", "fused", "0-1"] in rows
    assert ["c17", "1,024", "16", "0.1", "<0.1", "table_wise", "fused", "1"] in rows


def test_the_best_possible_ne_has_its_row_and_its_line(tmp_path: Path):
    history = [record("1", "main", best_ne=0.7), record("2", "main", best_ne=0.72)]
    page = Elements(page_of(write_run(tmp_path, history)))
    assert ["best possible (the generating teacher)", "0.7100", "", "", "", "", ""] in page.rows
    assert "best possible: NE of the generating teacher" in page.texts


def test_the_same_run_gives_the_same_page(tmp_path: Path):
    run_folder = write_run(tmp_path, year(("trained", "frozen"), 70), SUMMARY)
    assert page_of(run_folder) == page_of(run_folder)


def test_a_broken_history_leaves_the_old_page_alone(tmp_path: Path):
    run_folder = write_run(tmp_path, [record("1", "main")])
    before = page_of(run_folder)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(DataError, match="line 2"):
        write_report(run_folder)
    assert (tmp_path / "report.html").read_text() == before


def test_a_run_on_an_object_store_is_read_and_written_there():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/report-test/run/history.jsonl", b'{"day": "1", "arm": "a", "rows": 1}\n')
    with pytest.raises(DataError, match=r"memory://report-test/run/history\.jsonl, line 1: base_rate"):
        write_report("memory://report-test/run")
    line = b'{"day": "1", "arm": "a", "rows": 7, "base_rate": 0.5, "log_loss": 0.6, "ne": 0.8656}\n'
    memory.pipe_file("/report-test/run/history.jsonl", line)
    assert write_report("memory://report-test/run/") == "memory://report-test/run/report.html"
    assert b"0.8656" in memory.cat_file("/report-test/run/report.html")


def test_a_pruned_arm_has_its_size_its_swaps_and_its_churn_in_the_table(tmp_path: Path):
    history = [record(f"{i}", "trained", ne=0.8) for i in range(5)]
    kept = {"widths": {"top.0": 3}, "groups": {"top.0": 12}, "macs": 4500}
    history += [
        record("1", "adaptive", ne=0.88, swapped=False, **kept),
        record("2", "adaptive", ne=0.84, **kept),
        record("3", "adaptive", ne=0.808, swapped=True, churn=0.25, **kept),
        record("4", "adaptive", ne=0.816, swapped=True, churn=0.125, **kept),
        record("4", "adaptive.candidate", ne=0.123, shadow=True, **kept),
    ]
    page = page_of(write_run(tmp_path, history))
    rows = Elements(page).rows
    arm = next(row for row in rows if row[0] == "adaptive")
    # gaps of 10, 5, 1 and 2 %; the last half of five days are the last three
    assert arm[1:4] == ["0.8360", "+4.500 %", "+2.667 %"]
    assert arm[-5:] == ["4,500", "25.00 %", "2", "18.75 %", "4"]
    assert next(row for row in rows if row[0] == "trained")[-5:] == ["18,000", "100.00 %", "-", "-", "5"]
    assert "candidate" not in page
    assert "0.1230" not in page
    assert '<span class="symbol" style="color: var(--ink)">◆</span>mask swapped' in page


def test_without_pruned_arms_the_table_speaks_of_no_swaps(tmp_path: Path):
    rows = Elements(page_of(write_run(tmp_path, year(("trained", "frozen"), 3)))).rows
    assert rows[0][-3:] == ["MACs per row", "of dense MACs", "days scored"]


@pytest.mark.parametrize("num_days", [1, 1000])
def test_pruned_arms_fit_on_a_page_whatever_the_number_of_days(tmp_path: Path, num_days: int):
    history = year(("trained",), num_days)
    for i, dense in enumerate(year(("adaptive",), num_days)):
        widths = {f"top.{k}": 1 + (i * 7 + k) % 20 for k in range(8)}
        groups = dict.fromkeys(widths, 20)
        history.append(dense | {"widths": widths, "groups": groups, "swapped": i > 0, "churn": 0.2 if i else None})
    page = page_of(write_run(tmp_path, history))
    assert "Groups kept by adaptive" in Elements(page).texts
    assert ("a column is the mean of 4 days" in page) is (num_days == 1000)
    assert len(page.encode()) < 3_000_000


def test_what_heads_were_measured_to_take_stands_beside_their_arms(tmp_path: Path):
    history = [record("2013-01-01", "trained"), record("2013-01-01", "small"), record("2013-01-01", "gone")]
    heads = {
        "trained": {"parameters": 9000, "bytes": 36_864, "latency_us": {"1024": 5000.4, "1": 61.0}},
        "small": {"parameters": 900, "bytes": 4096, "latency_us": {"1024": 612.0, "1": 40.0}},
    }
    page = Elements(page_of(write_run(tmp_path, history, SUMMARY | {"heads": heads})))
    titles = next(row for row in page.rows if "head KiB" in row)
    first = titles.index("head KiB")
    assert titles[first : first + 3] == ["head KiB", "us for 1 row", "us for 1,024 rows"]
    of_arm = {row[0]: row[first : first + 3] for row in page.rows if row and row[0] in ("trained", "small", "gone")}
    assert of_arm["trained"] == ["36", "61", "5,000"]
    assert of_arm["small"] == ["4", "40", "612"]
    assert of_arm["gone"] == ["-", "-", "-"]
