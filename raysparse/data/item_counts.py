"""How often each item of a data set of sequences occurs."""

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysparse.data.dataset import ITEM_NAMES, Dataset
from raysparse.errors import DataError


def read_item_counts(dataset: Dataset) -> NDArray[np.float64]:
    """Return the events of each item `[M]`, in the order of the table from row 1 on; any process.

    DataError where the data set has no counts, as a generated one of many items.
    """
    url = dataset.url(ITEM_NAMES)
    filesystem, path = fsspec.core.url_to_fs(url)
    if not filesystem.exists(path):
        raise DataError(f"{url} is missing: drawing items by popularity needs their counts; draw them evenly instead")
    try:
        with filesystem.open(path, "rb") as file:
            return pq.read_table(file, columns=["count"])["count"].to_numpy().astype(np.float64)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{url} cannot be read ({error}); prepare the data set anew") from error
