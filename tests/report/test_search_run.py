import json
from pathlib import Path
from random import Random

import pytest

from raysparse.errors import CheckpointError, ConfigError, DataError
from raysparse.report.search_run import JOURNAL, RESULTS, read_search, results_of
from raysparse.train.run_folder import RunFolder
from tests.report.runs import record, write_run
from tests.report.searches import finalist, row, space_of, write_journal, write_search


def read(folder: Path):
    return read_search(RunFolder(str(folder)))


def test_a_whole_search_is_read(tmp_path: Path):
    write_search(tmp_path, 40)
    write_run(tmp_path / "supernet", [record("2030-01-01", "trained", ne=0.9)])
    search = read(tmp_path)
    assert search.missing == []
    assert len(search.entries) == 40
    assert [one.label for one in search.results.finalists] == [f"finalist {rank}" for rank in range(1, 6)]
    assert [one.label for one in search.results.baselines] == ["dlrm", "deepfm", "dcn", "autoint", "xdeepfm"]
    best = min(search.results.finalists, key=lambda one: one.numbers["validation"] or 1.0)
    assert search.results.chosen is best
    assert [run.numbers["learning_rate"] for run in best.runs] == [1e-3, 3e-3]
    assert best.runs[0].numbers["validation"] == best.numbers["validation"]
    assert search.results.best_baseline is not None
    assert search.results.best_baseline.name == "dcn"
    assert search.results.days == ("2030-01-11", "2030-01-12")
    assert search.job_tree["space"] == {"kind": "ctr", "menu": "full", "num_blocks": 7}
    assert search.supernet is not None
    assert search.supernet.series("trained", "ne").tolist() == [0.9]


def test_an_empty_folder_is_a_search_that_has_done_nothing(tmp_path: Path):
    search = read(tmp_path)
    assert (search.entries, search.results.contenders, search.supernet, dict(search.summary)) == ([], (), None, {})
    assert [sentence.split(" ")[0] for sentence in search.missing] == [
        "job.yaml",
        "journal.jsonl",
        "results.json",
        "summary.json",
    ]


def test_a_damaged_journal_is_named_with_its_line(tmp_path: Path):
    write_journal(tmp_path, space_of(), 3)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"number": 1}\n')
    with pytest.raises(CheckpointError, match=r"journal\.jsonl, line 5 is damaged"):
        read(tmp_path)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path):
    write_journal(tmp_path, space_of(), 3)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"number": 3, "gener')
    assert len(read(tmp_path).entries) == 3


@pytest.mark.parametrize("rows", [[{"kind": "baseline"}], ["dlrm"], [row("baseline", "dlrm", None, None, macs="big")]])
def test_results_of_something_else_are_refused(rows: list[object]):
    with pytest.raises(DataError, match=r"results\.json is damaged, or was not written by a search"):
        results_of({"rows": rows}, "results.json")


def test_a_choice_that_is_none_is_refused_by_its_key():
    line = row("finalist", "1", 0.4, 0.4, choice={"kind": "nasrec", "blocks": []})
    with pytest.raises(ConfigError, match=r"results\.json, 1 has 1 fault.*\n.*blocks"):
        results_of({"rows": [line]}, "results.json")


def test_a_choice_of_another_space_has_no_network(tmp_path: Path):
    line = row("finalist", "1", 0.4, 0.39, choice={"kind": "sequence", "layers": 3}, key="s3")
    contender = results_of({"rows": [line]}, "results.json").contenders[0]
    assert (contender.choice, contender.key) == (None, "s3")


def test_numbers_that_are_missing_or_not_finite_are_none():
    space = space_of()
    line = finalist(space, space.sample(Random(1)), 1, 0.45, validation=None, test=float("nan"))
    numbers = results_of({"rows": [json.loads(json.dumps(line))]}, RESULTS).contenders[0].numbers
    assert numbers["validation"] is None
    assert numbers["test"] is None
    assert numbers["trial"] == 0.45
