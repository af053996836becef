"""Which days of a stream are trained on, which choose, and which judge."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from raysparse.config import Config
from raysparse.data.dataset import Day
from raysparse.errors import ConfigError


class SplitConfig(Config):
    """Which of the stream's last days are kept apart; all before them train the supernet."""

    validation_days: int = Field(default=1, ge=1)
    """Days before the test days: trials and finalists are chosen by them."""
    test_days: int = Field(default=1, ge=1)
    """Last days of the stream: they are looked at once, for what was chosen."""


@dataclass(frozen=True)
class Split:
    """The days of a stream in three parts, in order."""

    training: tuple[Day, ...]
    validation: tuple[Day, ...]
    test: tuple[Day, ...]


def split_days(days: Sequence[Day], config: SplitConfig) -> Split:
    """Cut a stream; ConfigError where nothing is left to train on."""
    kept = config.validation_days + config.test_days
    if kept >= len(days):
        raise ConfigError(
            f"split: found {config.validation_days} validation days and {config.test_days} test days; the stream has "
            f"{len(days)} days, of which at least one has to be left to train on"
        )
    last = len(days) - config.test_days
    return Split(tuple(days[: len(days) - kept]), tuple(days[len(days) - kept : last]), tuple(days[last:]))
