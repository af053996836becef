from pathlib import Path
from typing import Any

import pytest

from raysparse.data.dataset import Dataset, write_manifest
from raysparse.errors import ConfigError
from raysparse.job import DataConfig
from raysparse.launch.data import ensure_data
from tests.data.datasets import PLAIN, write_dataset

AVAZU: dict[str, Any] = {"source": "avazu", "input": "raw/train.csv", "unit": "day", "rows": {"device_id": 500}}


class Screen:
    """Notes what is shown."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A data set that says that it was made of Avazu's file."""
    path = str(tmp_path / "set")
    write_dataset(tmp_path / "set", PLAIN, [[60]])
    source = {**config_of(path).model_dump(mode="json")["prepare"], "notes": "hours are UTC"}
    del source["rows_per_table"]  # an older version had no such key
    write_manifest(path, Dataset.open(path).manifest.model_copy(update={"source": source}))
    return path


def config_of(path: str, prepare: dict[str, Any] | None = AVAZU, **changes: Any) -> DataConfig:
    return DataConfig.model_validate({"path": path, "prepare": prepare and {**prepare, **changes}})


def test_a_data_set_that_was_made_as_the_job_says_is_taken(path: str):
    screen = Screen()
    more: list[dict[str, Any]] = [{}, {"rows_per_table": 77}, {"max_bad_rows": 3}]
    for changes in more:
        assert ensure_data(config_of(path, **changes), screen).path == path
    assert ensure_data(config_of(path, None), screen).path == path
    assert screen.messages == []


def test_raw_files_that_were_moved_are_told_of(path: str):
    screen = Screen()
    ensure_data(config_of(path, input="/mnt/x.csv"), screen)
    assert screen.messages == [
        'data.prepare.input: "raw/train.csv" in the data set, "/mnt/x.csv" in the job; the data set is taken as it is'
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"unit": "hour"}, '  data.prepare.unit: "day" in the data set, "hour" in the job'),
        ({"rows": {}}, '  data.prepare.rows: {"device_id": 500} in the data set, {} in the job'),
        (
            {"rows": {"device_id": 501}},
            '  data.prepare.rows: {"device_id": 500} in the data set, {"device_id": 501}',
        ),
    ],
)
def test_a_data_set_that_was_made_otherwise_is_refused(path: str, changes: dict[str, Any], line: str):
    with pytest.raises(ConfigError) as caught:
        ensure_data(config_of(path, input="/mnt/train.csv", **changes), Screen())
    first, second, last = str(caught.value).splitlines()
    assert first == f"the data set {path} was made in another way than the job says:"
    assert second.startswith(line)
    assert last == "Delete the folder, choose another data.path, or take it as it is with data.prepare=null"


def test_a_data_set_of_another_source_is_refused(path: str):
    prepare = {"source": "criteo-kaggle", "input": "raw/train.txt"}
    with pytest.raises(ConfigError, match=r'data.prepare.source: "avazu" in the data set, "criteo-kaggle" in the job'):
        ensure_data(config_of(path, prepare), Screen())


def test_where_raw_files_are_now_is_no_place_where_there_were_none(path: str):
    source = {"source": "kdd12", "input": "raw", "user_profile": "raw/userid_profile.txt"}
    write_manifest(path, Dataset.open(path).manifest.model_copy(update={"source": source}))
    screen = Screen()
    config = {"source": "kdd12", "input": "raw"}
    ensure_data(config_of(path, config, user_profile="/mnt/users.txt"), screen)
    assert screen.messages == [
        'data.prepare.user_profile: "raw/userid_profile.txt" in the data set, "/mnt/users.txt" in the job; the data '
        "set is taken as it is"
    ]
    with pytest.raises(ConfigError, match="data.prepare.user_profile"):
        ensure_data(config_of(path, config), screen)
