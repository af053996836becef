from pathlib import Path

import pytest

from raysparse.errors import DataError, RunTakenError
from raysparse.train.checkpoint import CheckpointFolder
from raysparse.train.run_folder import RunFolder


def test_who_was_overtaken_writes_no_more(tmp_path: Path):
    driver = RunFolder(str(tmp_path / "run"))
    old = RunFolder(driver.path, driver.claim())
    old.write_history([{"day": "000"}])
    new = RunFolder(driver.path, driver.claim())
    with pytest.raises(RunTakenError, match="was taken over by another `raysparse train`; this one ends"):
        old.write_history([{"day": "001"}])
    with pytest.raises(RunTakenError):
        CheckpointFolder(old).finish("step-000000001", {})
    assert new.history() == [{"day": "000"}]
    new.write_history([{"day": "002"}])
    assert new.history() == [{"day": "002"}]


def test_a_broken_line_of_the_history_is_named(tmp_path: Path):
    folder = RunFolder(str(tmp_path / "run"))
    assert folder.history() == []
    folder.write("history.jsonl", '{"day": "000"}\n{"day": \n')
    with pytest.raises(DataError, match=r"history.jsonl, line 2 is no JSON"):
        folder.history()
