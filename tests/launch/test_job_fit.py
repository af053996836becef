from pathlib import Path
from typing import Any

import pytest

from raysparse.data.dataset import Dataset
from raysparse.errors import ConfigError
from raysparse.job import check_train_job
from raysparse.launch.job_fit import check_fit
from tests.data.datasets import PLAIN, write_dataset
from tests.data.sequence_sets import sequences, write_days, write_parts


class Messages:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", PLAIN, [[100]] * 3)


def said_of(dataset: Dataset, folder: Path, **changes: Any) -> list[str]:
    tree = {
        "kind": "train",
        "name": "test",
        "run_folder": str(folder),
        "data": {"path": dataset.path, "batch_size": 64},
        "model": {"kind": "dlrm", "embedding_dim": 4, "bottom": [8], "top": [8]},
        **changes,
    }
    messages = Messages()
    check_fit(check_train_job(tree, "test"), dataset, messages)
    return messages.texts


def test_a_sharded_table_that_is_not_there_is_refused_with_those_that_are(dataset: Dataset, tmp_path: Path):
    tables = ", ".join(dict.fromkeys(feature.table_name for feature in dataset.schema.ids))
    with pytest.raises(ConfigError, match=f"sharding.tables: found c02; the data set's tables are {tables}"):
        said_of(dataset, tmp_path, sharding={"tables": {"c02": {"kind": "row_wise"}}})
    name = dataset.schema.ids[0].table_name
    assert said_of(dataset, tmp_path, sharding={"tables": {name: {"kind": "table_wise"}}}) == []


def test_a_budget_below_the_floors_is_refused(dataset: Dataset, tmp_path: Path):
    callbacks = [{"kind": "sparsity", "name": "small", "budget": 0.001, "first_day": 1}]
    with pytest.raises(ConfigError, match="callbacks.0.budget"):
        said_of(dataset, tmp_path, callbacks=callbacks)


def test_a_history_that_the_data_set_does_not_keep_is_told(tmp_path: Path):
    written = write_days(tmp_path / "set", [[([1], [2])]] * 2)
    dataset = Dataset(written.path, written.manifest.model_copy(update={"source": {"max_history": 8}}))
    assert said_of(dataset, tmp_path, model={"kind": "sasrec", "max_length": 8}) == []
    assert said_of(dataset, tmp_path, model={"kind": "sasrec", "max_length": 9}) == [
        "model.max_length: 9 items are read of a history, of which the data set keeps 8 and the day's own; prepare it "
        "with a larger max_history"
    ]


def test_what_waits_for_days_that_do_not_come_is_said(dataset: Dataset, tmp_path: Path):
    callbacks = [{"kind": "frozen_arm", "after_days": 2}, {"kind": "row_pruning", "budget": 0.5, "first_day": 3}]
    assert said_of(dataset, tmp_path, callbacks=callbacks, warm_up_days=2) == [
        "callbacks.1.first_day: row_pruning begins after 3 days, and the run has 3: it does nothing"
    ]
    assert said_of(dataset, tmp_path, callbacks=callbacks[:1], warm_up_days=3) == [
        "warm_up_days: all 3 days are warm-up, so that the summary has no means"
    ]


def test_a_window_that_ends_with_the_run_and_epochs_of_warm_up_are_told(dataset: Dataset, tmp_path: Path):
    def of_window(first_day: int, days: int) -> list[str]:
        own = {"kind": "sparsity", "budget": 0.5, "first_day": first_day, "window_days": days}
        widths = {"least_groups": 1, "multiple_of": 1}
        return said_of(dataset, tmp_path, callbacks=[{**own, "refresh": {"kind": "never"}, "widths": widths}])

    assert of_window(0, 3) == []
    for first_day, days in ((0, 4), (2, 2)):
        text = f"a window of {days} days after {first_day} does not fit into 3: it does nothing"
        assert of_window(first_day, days) == [f"callbacks.0.window_days: {text}"]

    parts = write_parts(tmp_path / "parts", sequences(20))
    changes = {"data": {"path": parts.path, "epochs": 2}, "model": {"kind": "sasrec", "max_length": 5}}
    assert said_of(parts, tmp_path, warm_up_days=2, **changes) == []
    assert said_of(parts, tmp_path, warm_up_days=3, **changes) == [
        "warm_up_days: all 2 epochs are warm-up, so that no validation counts"
    ]
