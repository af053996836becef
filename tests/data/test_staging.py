from pathlib import Path
from typing import Any

import fsspec
import pytest

from raysparse.data.staging import UNFINISHED, claim
from raysparse.errors import DataError


def write_data_set(folder: Path, content: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(content)
    (folder / "day=000").mkdir()
    (folder / "day=000" / "part-00000.parquet").write_text(content)


def test_a_new_folder_is_marked_until_it_is_finished(tmp_path: Path) -> None:
    output = tmp_path / "sub" / "out"
    staging = claim(str(output), overwrite=False)
    assert staging.path == str(output)
    assert (output / UNFINISHED).exists()
    write_data_set(output, "new")
    staging.finish()
    assert sorted(path.name for path in output.iterdir()) == ["dataset.json", "day=000"]


def test_a_finished_data_set_is_refused(tmp_path: Path) -> None:
    write_data_set(tmp_path / "out", "old")
    with pytest.raises(DataError, match="holds a finished data set.*--overwrite"):
        claim(str(tmp_path / "out"), overwrite=False)


def test_an_unfinished_folder_is_cleaned(tmp_path: Path) -> None:
    output = tmp_path / "out"
    claim(str(output), overwrite=False)
    (output / "day=000").mkdir()
    (output / "day=000" / "part-00000.parquet").write_text("half")
    claim(str(output), overwrite=False)
    assert [path.name for path in output.iterdir()] == [UNFINISHED]


@pytest.mark.parametrize("overwrite", [False, True])
def test_any_other_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=f"{tmp_path} is not empty"):
        claim(str(tmp_path), overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(DataError, match="is a file"):
        claim(str(tmp_path / "thesis.txt"), overwrite)


def test_the_old_data_set_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_data_set(output, "old")
    (output / "day=001").mkdir()
    staging = claim(str(output) + "/", overwrite=True)
    write_data_set(Path(staging.path), "new")
    assert (output / "dataset.json").read_text() == "old"
    staging.finish()
    assert (output / "dataset.json").read_text() == "new"
    assert not (output / "day=001").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_swap_that_broke_off_is_undone(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_data_set(tmp_path / "out.replaced", "old")
    with pytest.raises(DataError, match="finished data set"):
        claim(str(output), overwrite=False)
    assert (output / "dataset.json").read_text() == "old"


@pytest.mark.parametrize("left", ["dataset.json", UNFINISHED])
def test_the_rest_of_a_swap_is_cleaned(tmp_path: Path, left: str) -> None:
    output = tmp_path / "out"
    write_data_set(output, "new")
    (tmp_path / "out.replaced").mkdir()
    (tmp_path / "out.replaced" / left).write_text("")
    claim(str(output), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.preparing"]


def test_of_two_preparations_the_later_one_has_the_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = claim(str(output), overwrite=False)
    write_data_set(output, "first")
    (output / "dataset.json").unlink()
    second = claim(str(output), overwrite=False)
    for step in (first.require_ownership, first.finish):
        with pytest.raises(DataError, match="was taken over by another preparation"):
            step()
    write_data_set(output, "second")
    second.finish()
    with pytest.raises(DataError, match="was taken over by another preparation"):
        first.finish()
    assert (output / "dataset.json").read_text() == "second"


def test_without_renaming_the_manifest_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    for name in ("dataset.json", "day=000/part", "day=001/part"):
        store.pipe_file(f"/sets/out/{name}", b"old")
    staging = claim("memory://sets/out", overwrite=True)
    for name in ("dataset.json", "day=000/part"):
        store.pipe_file(f"/sets/out.preparing/{name}", b"new")
    seen: list[tuple[str, bool]] = []
    copy = type(store).cp_file

    def noted(filesystem: Any, path: str, target: str, **own: Any) -> None:
        seen.append((target.rpartition("/")[2], filesystem.exists("/sets/out/dataset.json")))
        copy(filesystem, path, target, **own)

    monkeypatch.setattr(type(store), "cp_file", noted)
    staging.finish()
    assert seen == [("part", False), ("dataset.json", False)]
    assert store.find("/sets") == ["/sets/out/dataset.json", "/sets/out/day=000/part"]
    assert store.cat_file("/sets/out/dataset.json") == b"new"
    store.rm("/sets", recursive=True)
