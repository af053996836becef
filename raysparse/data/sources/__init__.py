"""Raw data sets that can be prepared: one config and one reader each."""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from raysparse.data.drift import DriftConfig
from raysparse.data.sequences.config import GeneratedSequencesConfig, SequencesConfig
from raysparse.data.sources.avazu import Avazu, AvazuConfig
from raysparse.data.sources.criteo import Criteo1tb, Criteo1tbConfig, CriteoKaggle, CriteoKaggleConfig
from raysparse.data.sources.flights import Flights, FlightsConfig
from raysparse.data.sources.kdd12 import Kdd12, Kdd12Config
from raysparse.data.sources.movielens import Movielens, MovielensConfig
from raysparse.data.sources.source import Source
from raysparse.data.sources.table import Table, TableConfig

FileConfig = (
    FlightsConfig | CriteoKaggleConfig | Criteo1tbConfig | AvazuConfig | Kdd12Config | MovielensConfig | TableConfig
)
"""Sources that read files."""

PrepareConfig = Annotated[
    FileConfig | DriftConfig | SequencesConfig | GeneratedSequencesConfig, Field(discriminator="source")
]
"""What `prepare` can make a data set of."""

SOURCES: dict[str, Callable[..., Source]] = {
    "flights": Flights,
    "criteo-kaggle": CriteoKaggle,
    "criteo-1tb": Criteo1tb,
    "avazu": Avazu,
    "kdd12": Kdd12,
    "movielens": Movielens,
    "table": Table,
}
"""Reader of each source of files, by its name; it is made of the source's config."""


def open_source(config: FileConfig) -> Source:
    """Make the reader of a config (driver); DataError where its files are not there."""
    return SOURCES[config.source](config)


__all__ = ["SOURCES", "DriftConfig", "FileConfig", "PrepareConfig", "Source", "open_source"]
