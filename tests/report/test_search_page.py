import json
import re
from pathlib import Path
from random import Random

import pytest

from raysparse.errors import DataError
from raysparse.report.search_page import verdict, write_search_report
from raysparse.report.search_run import JOURNAL, RESULTS, results_of
from raysparse.search.journal import Journal
from raysparse.search.population import Proposal
from raysparse.train.run_folder import JOB, SUMMARY
from tests.report.elements import HOSTILE, Elements, assert_loads_nothing
from tests.report.runs import record, write_run
from tests.report.searches import SUMMARY_TREE, row, space_of, write_journal, write_search


def page_of(run_folder: str | Path) -> str:
    path = write_search_report(str(run_folder))
    assert path == f"{run_folder}/report.html"
    return Path(path).read_text(encoding="utf-8")


def test_the_numbers_of_the_search_stand_on_the_page(tmp_path: Path):
    page = Elements(page_of(write_search(tmp_path, 60)))
    text = " ".join(page.texts)
    assert page.texts.count("clicks") == 3  # the title, on the page, and in its details
    assert "searcher evolution, generation 4" in text
    assert "full menu, 7 blocks" in text
    assert "took 1 h 12 min" in text
    tiles = [
        "trials",
        "60",
        "3 failed",
        "42",
        "trials/min, all busy",
        "15 min 12 s",
        "7 min 11 s",
        "49 min 21 s",
        "3.2 × 10³⁶",
    ]
    assert [tile for tile in tiles if tile not in page.texts] == []
    assert ["★ finalist 1", "0.001"] in [cells[:2] for cells in page.rows]
    line = ["dcn", "0.001", "798 k", "799 k", "2.5", "15.9", "-", "0.4544", "+0.0149", "0.7656", "0.4525", "+0.0154"]
    assert line in [cells[:-1] for cells in page.rows]
    assert ["best possible", "", "", "", "", "", "", "0.4395", "", "", "0.4371", "", ""] in page.rows
    assert ["xdeepfm", "0.003", "0.4570"] in [cells[:3] for cells in page.rows]
    assert ["4", "RuntimeError: out of memory"] in [cells[:2] for cells in page.rows]
    assert ["versions.torch", "2.13.0"] in page.rows


def test_every_chart_and_every_network_is_there(tmp_path: Path):
    page = page_of(write_search(tmp_path, 60))
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles[:3] == [
        "Every trial: score over size, lower left is better",
        "Trained alone: loss over size, lower left is better",
        "Best score so far",
    ]
    assert titles[3].startswith("Rank correlation over 5 finalists: Kendall&#39;s tau ")
    assert [title.split(":")[0] for title in titles[4:]] == ["★ Finalist 1, chosen", *(f"Finalist {n}" for n in "2345")]
    assert page.count("<svg ") == 9


def test_it_is_one_small_file_that_loads_nothing(tmp_path: Path):
    write_run(tmp_path / "supernet", [record("2030-01-01", "trained", ne=0.9)])
    page = page_of(write_search(tmp_path, 60))
    assert len(page.encode()) < 500_000
    assert_loads_nothing(page)


def test_what_was_not_trained_to_its_end_is_named(tmp_path: Path):
    write_search(tmp_path, 20)
    tree = json.loads((tmp_path / RESULTS).read_text())
    tree["without_score"] = [{"kind": "baseline", "name": "dcn", "reason": "learning rate 3 failed: the loss is nan"}]
    (tmp_path / RESULTS).write_text(json.dumps(tree))
    note = "Not in the table: baseline dcn: learning rate 3 failed: the loss is nan."
    assert any(note in text for text in Elements(page_of(tmp_path)).texts)


def test_the_page_says_what_finalists_began_with(tmp_path: Path):
    write_search(tmp_path, 20)
    assert any("over all days from drawn weights" in text for text in Elements(page_of(tmp_path)).texts)
    (tmp_path / JOB).write_text("kind: search\nfinalists: {weights: inherited, inherited_days: 2}\n")
    text = "Finalists begin with the supernet's weights and see 2 training days once more"
    assert any(text in found for found in Elements(page_of(tmp_path)).texts)


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path):
    write_search(tmp_path, 20)
    (tmp_path / SUMMARY).write_text(json.dumps(SUMMARY_TREE | {"name": HOSTILE}))
    (tmp_path / JOB).write_text(f"name: '{HOSTILE}'\n")
    tree = json.loads((tmp_path / RESULTS).read_text())
    tree["rows"] = [line | {"name": HOSTILE, "key": HOSTILE} for line in tree["rows"]]
    (tmp_path / RESULTS).write_text(json.dumps(tree))
    space = space_of()
    with Journal.open(tmp_path / JOURNAL, {"seed": 7}) as journal:
        choice = space.full_path(Random(3))
        journal.record(Proposal(20, 3, HOSTILE, choice), HOSTILE, 0.1)
    elements = Elements(page_of(tmp_path))
    assert not [tag for tag, _ in elements.elements if tag in ("script", "img")]
    assert not [name for _, attributes in elements.elements for name in attributes if name.startswith("on")]


def test_a_search_under_way_shows_what_is_there(tmp_path: Path):
    assert "journal.jsonl is missing: no choice has been scored yet." in Elements(page_of(tmp_path)).texts
    write_journal(tmp_path, space_of(), 12)
    page = page_of(tmp_path)
    texts = Elements(page).texts
    assert "not ended" in texts
    assert "results.json is missing: finalists and baselines have not all been trained yet." in texts
    assert {"12", "0 failed", "best score"} <= set(texts)
    assert page.count("<svg ") == 2
    assert "Finalists and baselines" not in page
    assert "networks" not in page


def test_all_trials_may_have_failed(tmp_path: Path):
    write_journal(tmp_path, space_of(), 3, failing=(0, 1, 2))
    page = page_of(tmp_path)
    assert "<svg" not in page
    assert "3 failed" in Elements(page).texts


def test_without_a_teacher_no_column_speaks_of_it(tmp_path: Path):
    page = page_of(write_search(tmp_path, 30, teacher=False))
    assert "best possible" not in page
    header = next(cells for cells in Elements(page).rows if cells and cells[0] == "network")
    assert len(header) == 11


def test_the_same_search_gives_the_same_page(tmp_path: Path):
    run_folder = write_search(tmp_path, 30)
    assert page_of(run_folder) == page_of(run_folder)


def test_damaged_results_leave_the_old_page_alone(tmp_path: Path):
    before = page_of(write_search(tmp_path, 20))
    (tmp_path / RESULTS).write_text('{"rows": [{}]}')
    with pytest.raises(DataError, match="results"):
        write_search_report(str(tmp_path))
    assert (tmp_path / "report.html").read_text() == before


CHOSEN = row("finalist", "3", 0.45, 0.44, chosen=True, macs=300_000)


@pytest.mark.parametrize(
    ("baselines", "said"),
    [
        ([], "Test log loss 0.4400."),
        (
            [("dlrm", 0.46, 0.44)],
            "0.4400, as much as dlrm, the best baseline by validation (0.4400), at 3 times its MACs.",
        ),
        # the baseline that is best on the test days was not picked by them
        ([("dlrm", 0.46, 0.5), ("dcn", 0.47, 0.4)], "0.4400, 12.00 % less than dlrm, the best baseline by validation"),
        ([("dlrm", 0.46, 0.4)], "0.4400, 10.00 % more than dlrm"),
        ([("dlrm", None, None)], "Test log loss 0.4400."),
    ],
)
def test_the_verdict_compares_with_the_best_baseline_by_validation(
    baselines: list[tuple[str, float | None, float | None]], said: str
):
    rows = [CHOSEN, *(row("baseline", name, validation, test) for name, validation, test in baselines)]
    text = verdict(results_of({"rows": rows}, "results.json"))
    assert text.startswith("Chosen by validation log loss: finalist 3. Test log loss 0.4400")
    assert said in text


def test_without_a_chosen_one_there_is_no_verdict():
    assert verdict(results_of({"rows": [row("baseline", "dlrm", 0.4, 0.4)]}, "results.json")) == ""
