import gzip
from pathlib import Path

import pytest

from raysparse.errors import DataError
from tests.data.sequences.converting import converted, shared

FILES = {
    "train_input": "a b c d\nb c\nd\na c\n",
    "test_output": "a\nd\nb\ne\n",
    "val_input": "a  c d \nb c a\n",
    "val_output": "b\nf\n",
}


def write(folder: Path, **changed: str) -> str:
    raw = folder / "raw"
    raw.mkdir()
    for name, text in {**FILES, **changed}.items():
        (raw / f"{name}.txt").write_text(text)
    return str(raw)


def test_rows(tmp_path: Path) -> None:
    result = converted(tmp_path, input=write(tmp_path), format="split", split="ready")
    assert result.rows == {
        "train": [(["a"], ["b", "c", "d"]), (["b"], ["c"]), (["a"], ["c"])],
        "validation": [(["b", "c", "a"], ["f"]), (["a", "c", "d"], ["b"])],
        "test": [
            (["a", "b", "c", "d"], ["a"]),
            (["b", "c", "a", "f"], ["d"]),
            (["d"], ["b"]),
            (["a", "c", "d", "b"], ["e"]),
        ],
    }
    assert dict(sorted(result.counts.items())) == {"a": 2, "b": 2, "c": 3, "d": 2, "e": 0, "f": 0}
    assert result.manifest.protocol == "leave_one_out"
    assert result.manifest.left_out == {"validation rows of users whose second-last item is not known": 2}
    assert "second-last item of 2 users is not known" in result.manifest.source["notes"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_output": "a\nd\nb\n"}, r"train_input\.txt has 4 lines and .*test_output\.txt has 3"),
        ({"val_output": "b\nf g\n"}, r"val_output\.txt:2: found 2 items"),
        ({"val_input": "a c d\nb d a\n"}, r"val_input\.txt:2: no line of .*train_input\.txt has these items"),
        ({"val_input": "a c d\na c b\n"}, r"train_input\.txt:4: .*val_input\.txt has several lines of this user"),
        ({"train_input": "a c\nb c\nd\na c\n"}, r"val_input\.txt:1: lines 1 and 4 of .*train_input\.txt are the same"),
        ({"train_input": "a b c d\n\nd\na c\n"}, r"train_input\.txt:2: an empty line"),
    ],
)
def test_files_that_do_not_fit_each_other(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        converted(tmp_path, input=write(tmp_path, **changed), format="split", split="ready")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (tmp_path / "raw" / "val_output.txt").unlink()
    with pytest.raises(DataError, match=r"holds no val_output\.txt \(or val_output\.txt\.gz\)"):
        converted(tmp_path, input=folder, format="split", split="ready")
    with pytest.raises(DataError, match="is not a folder"):
        converted(tmp_path / "out", input=f"{folder}/train_input.txt", format="split", split="ready")


def test_train_input_alone_is_left_one_out_of(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "train_input.txt").write_text("a b c d\n\nb c\nc  a b\nc a b\n")
    result = converted(tmp_path, input=str(raw), format="split")
    assert result.rows == {
        "train": [(["a"], ["b"])],
        "validation": [(["a", "b"], ["c"]), (["c"], ["a"]), (["c"], ["a"])],
        "test": [(["a", "b", "c"], ["d"]), (["c", "a"], ["b"]), (["c", "a"], ["b"])],
    }
    assert result.counts == {**dict.fromkeys("abcd", 0), "a": 1, "b": 1, "c": 2}
    assert result.manifest.protocol == "leave_one_out"
    assert result.manifest.left_out == {"users with fewer than 3 events": 1}
    assert result.faults == [("train_input.txt", 2, "an empty line")]


def test_real_train_input(tmp_path: Path) -> None:
    folder = shared("ml-1m")
    result = converted(tmp_path, input=folder, format="split")
    with gzip.open(f"{folder}/train_input.txt.gz", "rt") as file:
        users = [line.split() for line in file]
    assert result.rows["train"] == [(items[:1], items[1:-2]) for items in users]
    assert result.rows["validation"] == [(items[:-2], items[-2:-1]) for items in users]
    assert result.rows["test"] == [(items[:-1], items[-1:]) for items in users]


def test_real_split(tmp_path: Path) -> None:
    folder = shared("ml-1m")
    result = converted(tmp_path, input=folder, format="split", split="ready")
    assert {day.day: day.rows for day in result.manifest.days} == {"train": 6_040, "validation": 512, "test": 6_040}
    assert len(result.counts) == 3_416
    assert sum(result.counts.values()) == 987_019
    files = {}
    for name in ("train_input", "test_output", "val_input", "val_output"):
        with gzip.open(f"{folder}/{name}.txt.gz", "rt") as file:
            files[name] = [line.split() for line in file]
    assert [history + targets for history, targets in result.rows["train"]] == files["train_input"]
    assert [targets for _, targets in result.rows["test"]] == files["test_output"]
    expected = sorted(zip(files["val_input"], files["val_output"], strict=True))
    assert sorted(result.rows["validation"]) == expected
    whole = [history for history, _ in result.rows["test"]]
    assert sum(len(history) for history in whole) == 987_019 + 2 * 512
