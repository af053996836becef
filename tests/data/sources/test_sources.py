from typing import Any

import fsspec
import pytest

from raysparse.config import Config, check
from raysparse.data.sources import SOURCES, PrepareConfig
from raysparse.data.sources.criteo import CriteoKaggleConfig
from raysparse.errors import ConfigError
from tests.data.sources.reading import read_source
from tests.data.sources.test_criteo import ROW, SPARSE_ROW


class AnyPrepare(Config):
    """What the command reads."""

    prepare: PrepareConfig


def parse(tree: dict[str, Any]) -> Any:
    return check(AnyPrepare, {"prepare": tree}, "the test").prepare


MAPPING = {"label": {"column": "y"}, "day": {"column": "d"}, "ids": [{"column": "u"}]}


@pytest.mark.parametrize("name", [*SOURCES, "drift"])
def test_each_source_has_its_config(name: str) -> None:
    tree = {"source": name}
    if name not in ("flights", "drift"):
        tree["input"] = "somewhere"
    config = parse(tree | (MAPPING if name == "table" else {}))
    assert config.source == name
    assert parse(config.model_dump(mode="json")) == config


def test_wrong_keys_are_named() -> None:
    with pytest.raises(ConfigError, match="prepare.source: found 'criteo'; allowed: .*'criteo-kaggle'"):
        parse({"source": "criteo", "input": "x"})
    with pytest.raises(ConfigError, match="prepare.max_bad_row: unknown key.*did you mean 'max_bad_rows'"):
        parse({"source": "avazu", "input": "x", "max_bad_row": 3})


def test_files_of_an_object_store() -> None:
    store = fsspec.filesystem("memory")
    text = f"{ROW}\n{SPARSE_ROW}\n" * 3
    store.pipe_file("/raw/train.txt", text.encode())
    try:
        reading = read_source(CriteoKaggleConfig(input="memory://raw/train.txt", num_days=2))
        assert reading.column("label") == [1, 0] * 3
        store.pipe_file("/raw/train.txt", text.replace("68fd", "68\t", 1).encode())
        rejected = read_source(CriteoKaggleConfig(input="memory://raw", num_days=2)).rejects
        assert [(row.file, row.line) for row in rejected] == [("memory:///raw/train.txt", 1)]
    finally:
        store.rm("/raw", recursive=True)
