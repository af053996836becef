"""Makes a job's data set where it is not there yet, from the driver."""

import json
from typing import Protocol

import fsspec

from raysparse.data.dataset import MANIFEST, Dataset
from raysparse.data.selection import select_days
from raysparse.data.sources import PrepareConfig
from raysparse.errors import ConfigError
from raysparse.job import DataConfig

_PLACES = ("input", "weather", "user_profile")
"""Keys that say where raw files lie, which may be elsewhere by now; none at all is another thing."""
_LIMITS = ("max_bad_rows",)
"""Keys that change nothing of a data set that is there."""


class Messages(Protocol):
    """Shows lines to a person."""

    def message(self, text: str) -> None:
        """Show a line."""
        ...


def ensure_data(data: DataConfig, display: Messages, key: str = "data") -> Dataset:
    """Open a job's data set, and prepare it before where the job says how; driver, connected to Ray.

    `key` is where the job has `data`, for messages.
    ConfigError where it has not the job's days, or was made in another way than the job says; DataError where it is
    not there and the job does not say how. Raw files that lie elsewhere by now are a message.
    """
    filesystem, root = fsspec.core.url_to_fs(data.path)
    if data.prepare is not None and not filesystem.exists(f"{root}/{MANIFEST}"):
        from raysparse.launch.prepare import prepare

        display.message(f"preparing {data.prepare.source} into {data.path}")
        manifest = prepare(data.prepare, data.path)
        display.message(f"prepared {sum(day.rows for day in manifest.days):,} rows of {manifest.extent}")
    dataset = Dataset.open(data.path)
    if data.prepare is not None:
        _refuse_other_rows(dataset, data.prepare, display, key)
    select_days(dataset, data.first_day, data.last_day, data.epochs)
    return dataset


def _refuse_other_rows(dataset: Dataset, prepare: PrepareConfig, display: Messages, data_key: str) -> None:
    found, wanted = dataset.manifest.source, prepare.model_dump(mode="json")
    differing = [key for key in wanted if key in found and found[key] != wanted[key] and key not in _LIMITS]
    texts = {
        key: f"{data_key}.prepare.{key}: {json.dumps(found[key])} in the data set, {json.dumps(wanted[key])} in the job"
        for key in differing
    }
    moved = {key for key in _PLACES if found.get(key) and wanted.get(key) and "source" not in differing}
    refused = [f"  {text}" for key, text in texts.items() if key not in moved]
    if refused:
        raise ConfigError(
            f"the data set {dataset.path} was made in another way than the job says:\n" + "\n".join(refused) + "\n"
            f"Delete the folder, choose another {data_key}.path, or take it as it is with {data_key}.prepare=null"
        )
    for text in texts.values():
        display.message(f"{text}; the data set is taken as it is")
