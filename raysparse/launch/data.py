"""Makes a job's data set where it is not there yet, from the driver."""

from typing import Protocol

import fsspec

from raysparse.data.dataset import MANIFEST, Dataset
from raysparse.data.selection import select_days
from raysparse.job import DataConfig


class Messages(Protocol):
    """Shows lines to a person."""

    def message(self, text: str) -> None:
        """Show a line."""
        ...


def ensure_data(data: DataConfig, display: Messages) -> Dataset:
    """Open a job's data set, and prepare it before where the job says how; driver, connected to Ray.

    ConfigError where it has not the job's days; DataError where it is not there and the job does not say how.
    """
    filesystem, root = fsspec.core.url_to_fs(data.path)
    if data.prepare is not None and not filesystem.exists(f"{root}/{MANIFEST}"):
        from raysparse.launch.prepare import prepare

        display.message(f"preparing {data.prepare.source} into {data.path}")
        manifest = prepare(data.prepare, data.path)
        display.message(f"prepared {sum(day.rows for day in manifest.days):,} rows of {len(manifest.days)} days")
    dataset = Dataset.open(data.path)
    select_days(dataset, data.first_day, data.last_day, data.epochs)
    return dataset
