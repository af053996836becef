import json
from pathlib import Path

import pytest

from raysparse.data.rejects import (
    Reject,
    Rejects,
    TooManyRejectsError,
    check_limit,
    count_by_reason,
    read_rejects,
    readable,
)
from raysparse.errors import DataError


def some(number: int) -> Reject:
    return Reject("train.txt", number, "an empty line" if number % 2 else "the label is not 0 or 1", "text")


def test_written_and_read_back_in_order(tmp_path: Path) -> None:
    for name, numbers in (("00001", (7, 8)), ("00000", (1, 2, 3))):
        rejects = Rejects(10)
        for number in numbers:
            rejects.add(some(number))
        rejects.write(str(tmp_path), name)
    found = read_rejects(str(tmp_path))
    assert [row.line for row in found] == [1, 2, 3, 7, 8]
    assert count_by_reason(found) == {"an empty line": 3, "the label is not 0 or 1": 2}
    first = json.loads((tmp_path / "rejects" / "part-00000.jsonl").read_text().splitlines()[0])
    assert first == {"file": "train.txt", "line": 1, "reason": "an empty line", "text": "text", "day": ""}


def test_nothing_is_written_without_rejects(tmp_path: Path) -> None:
    Rejects(10).write(str(tmp_path), "00000")
    assert list(tmp_path.iterdir()) == []


def test_a_span_stops_one_over_the_limit() -> None:
    rejects = Rejects(2)
    rejects.add(some(1))
    rejects.add(some(2))
    with pytest.raises(TooManyRejectsError):
        rejects.add(some(3))
    assert len(rejects.rows) == 3


def test_the_message_over_the_limit_says_what_to_do(tmp_path: Path) -> None:
    check_limit([some(1)], 1, str(tmp_path))
    with pytest.raises(DataError) as caught:
        check_limit([some(number) for number in range(1, 6)], 4, str(tmp_path))
    text = str(caught.value)
    assert "more than 4 rows" in text
    assert "train.txt:1: an empty line" in text
    assert "train.txt:4" not in text
    assert str(tmp_path / "rejects") in text
    assert "`max_bad_rows`" in text


def test_text_is_escaped_and_cut() -> None:
    assert readable(b"caf\xc3\xa9 \xff") == "café \\xff"
    assert len(readable(b"x" * 10_000)) == 500
    assert len(readable(b"\xff" * 10_000)) == 500
