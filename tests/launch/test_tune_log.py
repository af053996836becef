from pathlib import Path

import pytest

from raysparse.errors import CheckpointError, RunTakenError
from raysparse.launch.tune_log import TrialLog, TrialRecord, read_trials
from raysparse.train.run_folder import RunFolder


def record(number: int, **fields: object) -> TrialRecord:
    return TrialRecord.model_validate({"number": number, "values": {"seed": number}, "run_folder": "x", **fields})


def test_a_log_keeps_what_began_and_what_ended(tmp_path: Path):
    folder = RunFolder(str(tmp_path / "run"))
    log = TrialLog(folder)
    assert log.records == []
    lines = [
        record(0, status="started"),
        record(1, status="started"),
        record(1, status="stopped", means=(0.5, 0.25)),
        record(0, status="failed", error="no\nsuch row"),
    ]
    for line in lines:
        log.add(line)
    again = TrialLog(folder)
    assert again.records == lines
    assert [line.number for line in again.done()] == [1, 0]
    assert again.values() == {0: {"seed": 0}, 1: {"seed": 1}}
    assert len((tmp_path / "run" / "trials.jsonl").read_text().splitlines()) == 4
    # The first one lost the folder to the second.
    with pytest.raises(RunTakenError, match="taken over"):
        log.add(record(2, status="started"))
    assert read_trials(folder) == lines


def test_a_damaged_line_is_named(tmp_path: Path):
    folder = RunFolder(str(tmp_path))
    log = TrialLog(folder)
    log.add(record(0, status="started"))
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"number": 1, "values": {}, "run_folder": "x", "status": "lost"}\n')
    with pytest.raises(CheckpointError, match=r"trials.jsonl, line 2 is damaged: status: Input should be 'started'"):
        TrialLog(folder)
