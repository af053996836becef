import json
import os
from pathlib import Path

import pytest

from raysparse.errors import CheckpointError, RunTakenError
from raysparse.search.journal import Journal, read_journal
from raysparse.search.population import Proposal
from tests.search.toy_space import HEADER, Bits

CHOICE = Bits(bits=(0, 1, 1))


def proposal_of(number: int) -> Proposal[Bits]:
    return Proposal(number, generation=0, key=f"key-{number}", choice=CHOICE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of three trials, one of which failed."""
    path = tmp_path / "search" / "journal.jsonl"
    with Journal.open(path, HEADER) as journal:
        journal.record(proposal_of(1), {"log_loss": 0.1 + 0.2, "macs": 5}, 1.5)
        journal.record(proposal_of(0), "out of memory\nat layer 3", 2.0)
        journal.record(proposal_of(2), {"log_loss": 0.25, "macs": 4}, 0.0)
    return path


def test_a_journal_is_readable_lines(path: Path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"journal": 1, "search": HEADER}
    assert lines[1] == {
        "number": 1,
        "generation": 0,
        "key": "key-1",
        "choice": {"bits": [0, 1, 1]},
        "seconds": 1.5,
        "objectives": {"log_loss": 0.30000000000000004, "macs": 5.0},
    }
    assert lines[2]["error"] == "out of memory\nat layer 3"
    assert "objectives" not in lines[2]
    assert len(lines) == 4


def test_what_was_written_is_read_back(path: Path):
    header, entries = read_journal(path)
    assert header == HEADER
    with Journal.open(path, HEADER) as journal:
        assert journal.entries == entries
        added = journal.record(proposal_of(3), {"log_loss": 0.125}, 1.0)
        assert journal.entries == [*entries, added]
    assert read_journal(path)[1] == [*entries, added]


def test_a_line_is_on_the_disk_when_its_entry_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    with Journal.open(path, HEADER) as journal:
        journal.record(proposal_of(3), {"log_loss": 0.5}, 1.0)
        assert sizes == [path.stat().st_size]


def test_a_score_that_is_not_finite_is_an_error(path: Path):
    with Journal.open(path, HEADER) as journal:
        entry = journal.record(proposal_of(3), {"log_loss": float("nan"), "macs": 3.0}, 1.0)
    assert entry.objectives is None
    assert entry.error == "not finite: log_loss = nan"


def test_a_trial_is_recorded_once(path: Path):
    with Journal.open(path, HEADER) as journal, pytest.raises(ValueError, match="trial 2 stands in"):
        journal.record(proposal_of(2), {"log_loss": 0.5}, 1.0)


def test_a_journal_cut_anywhere_loses_its_last_line_alone(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of times; no power is lost here
    content = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with Journal.open(path, HEADER) as journal:
            num_whole = sum(end <= length for end in ends)
            assert len(journal.entries) == max(0, num_whole - 1)
        assert path.read_bytes() == content[: ends[max(num_whole, 1) - 1]]


def test_a_reader_leaves_the_torn_line_to_the_writer(path: Path):
    torn = path.read_bytes() + b'{"number": 3, "gen'
    path.write_bytes(torn)
    assert [entry.number for entry in read_journal(path)[1]] == [1, 0, 2]
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    ("line_number", "text", "message"),
    [
        (3, '{"number": 0, "gen', "line 3 is damaged: Invalid JSON"),
        (2, "", "line 2 is damaged: Invalid JSON"),
        (2, '{"number": 1}', "line 2 is damaged: generation: Field required"),
        (1, '{"number": 1}', "line 1 is damaged: it does not say which search this is"),
        (1, "journal", "line 1 is damaged: Expecting value"),
    ],
)
def test_a_damaged_line_is_refused_by_file_and_line(path: Path, line_number: int, text: str, message: str):
    lines = path.read_text().splitlines()
    lines[line_number - 1] = text
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=message) as caught:
        Journal.open(path, HEADER)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 1}, "line 5 is damaged: it scores the choice of line 2 again"),
        ({"key": "key-0"}, "line 5 is damaged: it scores the choice of line 3 again"),
        ({"objectives": None}, "line 5 is damaged: Value error, either objectives or error, and not both"),
        ({"error": "out of memory"}, "either objectives or error"),
        ({"score": 0.5}, "line 5 is damaged: score: Extra inputs"),
        ({"objectives": {"log_loss": "low"}}, "line 5 is damaged: objectives.log_loss: "),
    ],
)
def test_a_line_that_cannot_be_is_refused(path: Path, change: dict[str, object], message: str):
    line = {"number": 9, "generation": 0, "key": "key-9", "choice": {}, "seconds": 1.0, "objectives": {"log_loss": 0.5}}
    with path.open("a") as file:
        file.write(json.dumps({**line, **change}) + "\n")
    with pytest.raises(CheckpointError, match=message):
        read_journal(path)


def test_the_journal_of_another_search_is_refused_with_the_keys(path: Path):
    header = {**HEADER, "space": {"num_bits": 8}, "checkpoint": "day-4", "searcher": "evolution"}
    del header["seed"]
    with pytest.raises(CheckpointError) as caught:
        Journal.open(path, header)
    assert f"{path} is the journal of another search" in str(caught.value)
    assert str(caught.value).splitlines()[1:5] == [
        '  checkpoint: "day-3" there, "day-4" here',
        '  searcher: nothing there, "evolution" here',
        "  seed: 1 there, nothing here",
        "  space.num_bits: 6 there, 8 here",
    ]


def test_a_header_may_hold_tuples(path: Path):
    Journal.open(path, {**HEADER, "objectives": ("log_loss", "macs")}).close()


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk")
    with pytest.raises(CheckpointError, match="is no journal of this search"):
        Journal.open(path, HEADER)
    assert path.read_text() == "remember the milk"
    with pytest.raises(CheckpointError, match="holds no journal"):
        read_journal(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_journal(tmp_path / "missing.jsonl")
    with pytest.raises(CheckpointError, match="cannot open"):
        Journal.open(path / "journal.jsonl", HEADER)


def test_a_journal_of_a_later_version_is_refused(path: Path):
    path.write_text(path.read_text().replace('{"journal": 1', '{"journal": 2', 1))
    with pytest.raises(CheckpointError, match="has version 2; this one reads version 1"):
        Journal.open(path, HEADER)


def test_two_searches_do_not_write_one_journal(path: Path):
    with Journal.open(path, HEADER), pytest.raises(RunTakenError, match="is written by another search"):
        Journal.open(path, HEADER)
    Journal.open(path, HEADER).close()


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch):
    before = path.read_bytes()
    write = os.write

    def write_a_little(descriptor: int, line: bytes) -> int:
        if len(line) < 40:
            raise OSError(28, "No space left on device")
        return write(descriptor, line[:10])

    with Journal.open(path, HEADER) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_a_little)
            with pytest.raises(CheckpointError, match="No space left on device"):
                journal.record(proposal_of(3), {"log_loss": 0.5}, 1.0)
        assert path.read_bytes() == before
        assert [entry.number for entry in journal.entries] == [1, 0, 2]
        journal.record(proposal_of(3), {"log_loss": 0.5}, 1.0)
    assert len(read_journal(path)[1]) == 4


def test_objectives_come_back_to_the_last_bit(tmp_path: Path):
    values = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 123456789.123456789]
    with Journal.open(tmp_path / "journal.jsonl", HEADER) as journal:
        for number, value in enumerate(values):
            journal.record(proposal_of(number), {"log_loss": value}, 1.0)
    found = [entry.objectives for entry in read_journal(tmp_path / "journal.jsonl")[1]]
    assert found == [{"log_loss": value} for value in values]
