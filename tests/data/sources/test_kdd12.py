from pathlib import Path

import pytest

from raysparse.data.sources import open_source
from raysparse.data.sources.kdd12 import Kdd12Config
from raysparse.errors import DataError
from tests.data.sources.reading import cut_spans, id_of, read_source


def row(user: str, click: str = "0", impression: str = "2") -> str:
    return "\t".join(
        [click, impression, "4298118681424644510", "7686695", "385", "3", "3", "1601", "5521", "7709", "576", user]
    )


def write(folder: Path, rows: list[str], profiles: list[str]) -> str:
    (folder / "training.txt").write_text("\n".join(rows) + "\n")
    (folder / "userid_profile.txt").write_text("\n".join(profiles) + "\n")
    return str(folder)


def test_rows_are_joined_with_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = ["490234", "0", "12", "77"]
    folder = write(tmp_path, [row(user, click) for user, click in zip(users, "0121", strict=True)],
                   ["490234\t1\t5", "12\t2\t0", "1\t0\t3"])  # fmt: skip
    for num_bytes in (10**6, 60):
        cut_spans(monkeypatch, num_bytes)
        reading = read_source(Kdd12Config(input=folder, num_days=2))
        assert reading.rejects == []
        assert reading.column("label") == [0, 1, 1, 1]
        assert reading.column("user_id") == [id_of("490234", 100_000), 0, id_of("12", 100_000), id_of("77", 100_000)]
        assert reading.column("gender") == [id_of("1", 1000), 0, id_of("2", 1000), 0]
        assert reading.column("age") == [id_of("5", 1000), 0, 0, 0]
        assert reading.column("display_url") == [id_of("4298118681424644510", 100_000)] * 4
        assert reading.days == ["000", "000", "001", "001"]


def test_bad_rows_of_both_files(tmp_path: Path) -> None:
    rows = [row("1"), row("1", "3", "2"), row("u1"), row("1", "0", "0"), row("1", "-1"), row("1") + "\t", row("1")]
    folder = write(tmp_path, rows, ["1\t1\t5", "2\t3\t1", "3\t1"])
    reading = read_source(Kdd12Config(input=folder, num_days=1))
    beside, rows_at_fault = reading.faults()[:2], reading.faults()[2:]
    assert beside == [(2, "gender is not between 0 and 2"), (3, "2 instead of 3 columns")]
    assert rows_at_fault == [
        (2, "more clicks than impressions"),
        (3, "user_id is not a whole number"),
        (4, "impression is below 1"),
        (5, "click is below 0"),
        (6, "13 instead of 12 columns"),
    ]
    assert reading.table.num_rows == 2
    assert reading.column("gender") == [id_of("1", 1000)] * 2


def test_missing_profiles_are_named(tmp_path: Path) -> None:
    (tmp_path / "training.txt").write_text(row("1"))
    with pytest.raises(DataError, match="userid_profile"):
        open_source(Kdd12Config(input=str(tmp_path)))
