"""The job that tunes any keys of a train job."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raysparse.config import Config, Fault, Tree, refuse


class UniformRange(Config):
    """Numbers of a range, one as likely as another; drawn to four digits of the range's width."""

    kind: Literal["uniform"]
    low: float
    high: float


class LogUniformRange(Config):
    """Numbers of a range, each order of magnitude as likely as another; drawn to four digits."""

    kind: Literal["log_uniform"]
    low: float = Field(gt=0)
    high: float = Field(gt=0)


class IntegerRange(Config):
    """Whole numbers from `low` to `high`, both included."""

    kind: Literal["integer"]
    low: int
    high: int


class Choices(Config):
    """One of several values: numbers, texts, lists, or trees such as a whole model."""

    kind: Literal["choice"]
    values: tuple[Any, ...] = Field(min_length=1)


Domain = Annotated[UniformRange | LogUniformRange | IntegerRange | Choices, Field(discriminator="kind")]
"""What a key may be."""


class RandomConfig(Config):
    """Independent draws, each from the seed and the trial's number."""

    kind: Literal["random"] = "random"


class GridConfig(Config):
    """All combinations of choices, each once, the last key of the space fastest; ranges are not allowed."""

    kind: Literal["grid"] = "grid"


class OptunaConfig(Config):
    """Tree-structured Parzen estimator of the package optuna (extra `optuna`), which learns from finished trials."""

    kind: Literal["optuna"] = "optuna"


class ASHAConfig(Config):
    """Stops trials early whose mean metric so far is behind (Li et al. 2020, arXiv 1810.05934).

    What is stopped depends on which trial is ahead of which: with several at the same time, on the machines' speed.
    """

    grace_days: int = Field(default=1, ge=1)
    """Days past warm-up that every trial sees."""
    reduction_factor: int = Field(default=4, ge=2)
    """Of so many trials, one goes on at each rung."""


class TuneJob(Config):
    """Many train jobs that differ in some keys; the best is the one with the lowest mean metric over the last days."""

    kind: Literal["tune"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, shown in its report."""
    run_folder: str = Field(min_length=1)
    """Folder that receives everything the trials leave; each has a run folder in it."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Draws the values that are tried; the weights and the order of rows follow from the train job's own seed."""
    job: Tree
    """The train job, without `kind`, `name` and `run_folder`."""
    space: dict[str, Domain] = Field(min_length=1)
    """What is tried, by dotted key of the train job; laid over it in this order, as KEY=VALUE on a command line is."""
    searcher: Annotated[RandomConfig | GridConfig | OptunaConfig, Field(discriminator="kind")] = RandomConfig()
    num_trials: int = Field(default=16, ge=1)
    """Train jobs; a grid has as many as its combinations."""
    num_parallel: int = Field(default=1, ge=1)
    """Train jobs at the same time; each takes what its `scaling` says."""
    metric: Literal["log_loss", "ne", "1-ndcg@10"] = "log_loss"
    """What is made small, of the arm `trained`; the last is for sequence models."""
    last_days: int = Field(default=1, ge=1)
    """Days past warm-up, at the end of the stream, over whose rows the metric is taken. Of epochs the best one counts,
    by the validation part alone."""
    asha: ASHAConfig | None = None
    """Stops trials early; null: all run to their end."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self, (*self._range_faults(), *self._own_key_faults()))
        return self

    def _range_faults(self) -> Iterator[Fault]:
        for key, domain in self.space.items():
            if isinstance(domain, Choices):
                continue
            if domain.low >= domain.high:
                yield ("space", key, "low"), domain.low, f"less than high, which is {domain.high}"
            if isinstance(self.searcher, GridConfig):
                yield ("space", key, "kind"), domain.kind, "choice, since a grid has no ranges"

    def _own_key_faults(self) -> Iterator[Fault]:
        allowed = "nothing, since each trial has a {} of its own; leave it out"
        for key in ("kind", "name", "run_folder"):
            if key in self.job:
                yield ("job", key), self.job[key], allowed.format(key)
            if key in self.space:
                yield ("space", key), self.space[key].kind, allowed.format(key)
