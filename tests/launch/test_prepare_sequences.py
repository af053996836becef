import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from raysparse.cli import main
from raysparse.data.dataset import ITEM_NAMES, Dataset
from raysparse.data.schema import sequence_schema
from raysparse.data.sequences import GeneratedSequencesConfig, SequencesConfig
from raysparse.data.sequences import generated as generated_module
from raysparse.errors import DataError
from raysparse.launch import prepare as prepare_module
from raysparse.launch.prepare import prepare

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

LINES = "u1 a b c d e\nu2 c\nu3 b a d\nu4 e a b c d a\n"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_items(folder: Path) -> dict[str, int]:
    items = pq.read_table(folder / ITEM_NAMES)
    return dict(zip(items["item"].to_pylist(), items["count"].to_pylist(), strict=True))


def test_text(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(LINES)
    config = SequencesConfig(input=str(tmp_path / "lines.txt"), format="text")
    manifest = prepare(config, str(tmp_path / "out"))
    dataset = Dataset.open(str(tmp_path / "out"))
    assert dataset.manifest == manifest
    assert dataset.schema == sequence_schema(5)
    assert [(day.day, day.rows, day.positives) for day in dataset.days] == [
        ("train", 2, 2),
        ("validation", 3, 3),
        ("test", 3, 3),
    ]
    assert manifest.protocol == "leave_one_out"
    assert manifest.left_out == {"users with fewer than 3 events": 1}
    assert manifest.source == config.model_dump(mode="json")
    assert read_items(tmp_path / "out") == {"a": 2, "b": 3, "c": 2, "d": 0, "e": 1}
    prepare(config, str(tmp_path / "again"))
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


def test_a_missing_input_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no file"):
        prepare(SequencesConfig(input=str(tmp_path / "nowhere"), format="text"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_too_many_bad_rows_leave_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(LINES + "u5\nu6\n")
    config = SequencesConfig(input=str(tmp_path / "lines.txt"), format="text", max_bad_rows=1)
    with pytest.raises(DataError, match=r"more than 1 rows(?s:.*)lines\.txt:5: a user without items"):
        prepare(config, str(tmp_path / "out"))
    with pytest.raises(DataError, match="no finished data set"):
        Dataset.open(str(tmp_path / "out"))
    assert prepare(config.model_copy(update={"max_bad_rows": 2}), str(tmp_path / "out")).rejected == {
        "a user without items": 2
    }


@pytest.mark.parametrize("num_days", [None, 3])
def test_generated_is_the_same_whatever_the_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_days: int | None
) -> None:
    config = GeneratedSequencesConfig(num_users=500, num_items=300, mean_length=12.0, max_length=40, num_days=num_days)
    monkeypatch.setattr(generated_module, "EVENTS_PER_PART", 12 * 200)
    manifest = prepare(config, str(tmp_path / "out"))
    dataset = Dataset.open(str(tmp_path / "out"))
    assert dataset.manifest == manifest
    assert dataset.schema == sequence_schema(300)
    assert [len(day.files) for day in dataset.days] == [3, 3, 3]
    names = ["train", "validation", "test"] if num_days is None else [f"2030-01-0{day}" for day in (1, 2, 3)]
    assert [day.day for day in dataset.days] == names
    users = generated_module.generate_histories(config, 0, 500)
    trained = len(users.items) - (2 * 500 if num_days is None else 0)
    counts = read_items(tmp_path / "out")
    assert list(counts) == [str(row) for row in range(1, 301)]
    assert sum(counts.values()) == trained
    column = [pq.ParquetFile(tmp_path / "out" / file.path).read()["targets"] for file in dataset.days[-1].files]
    targets = [items for chunk in column for items in chunk.to_pylist()]
    if num_days is None:
        assert targets == [[int(users.items[end - 1])] for end in users.offsets[1:]]
    run = prepare_module.run_tasks
    monkeypatch.setattr(prepare_module, "run_tasks", lambda *call: iter(list(run(*call))[::-1]))
    prepare(config, str(tmp_path / "backwards"))
    assert digests(tmp_path / "out") == digests(tmp_path / "backwards")


def test_many_generated_items_have_no_counts(tmp_path: Path) -> None:
    prepare(GeneratedSequencesConfig(num_users=50, num_items=2**31 - 2), str(tmp_path / "out"))
    assert not (tmp_path / "out" / ITEM_NAMES).exists()
    (file,) = Dataset.open(str(tmp_path / "out")).days[0].files
    items = pq.ParquetFile(tmp_path / "out" / file.path).read()["targets"].combine_chunks().flatten().to_numpy()
    assert np.max(items) > 2**30


def test_the_command_tells_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(LINES)
    arguments = ["prepare", "sequences", "--input", str(tmp_path / "lines.txt"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, "format=text"])
    assert result.exit_code == 0
    assert "5 items" in result.stdout
    assert "train" in result.stdout
    assert "1 users with fewer than 3 events" in result.stdout
    result = CliRunner().invoke(main, [*arguments, "format=text", "split=days"])
    assert result.exit_code == 1
    assert "prepare.split: found \"days\"; allowed: 'leave_one_out'" in result.stderr
