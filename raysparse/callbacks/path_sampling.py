"""Draws the networks of a supernet that each step trains."""

from random import Random
from typing import Literal, Self, cast

from pydantic import Field, model_validator

from raysparse.config import Config
from raysparse.data.schema import Schema
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.supernet import NASRecSupernet
from raysparse.search.ctr_space import CTRSpace
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class PathSamplingConfig(Config):
    """Networks of a step, drawn from the seed and the number of the step, the same on all ranks."""

    kind: Literal["path_sampling"] = "path_sampling"
    paths_per_step: int = Field(default=1, ge=1)
    """Networks that each step trains, on the same rows, which are looked up once: on a short stream more networks learn
    from each row. They count by the mean of their losses."""
    warm_up_steps: int = Field(default=0, ge=0)
    """Steps in which the share of full paths falls from 1 to 0 (arXiv 2207.07187, section 4.1)."""
    connections: Literal["any", "single"] = "any"
    """Inputs of a block that a drawn network has: any number, or one alone, for comparison."""
    widest: bool = False
    """Whether each step trains the widest network as well, before the drawn ones."""
    distillation: float = Field(default=0.0, ge=0, le=1)
    """Share of the drawn networks' target that the widest one's prediction takes, which `widest` trains beside them."""

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        if self.distillation and not self.widest:
            raise ValueError(f"distillation 0 where widest is false, or widest true; found {self.distillation}")
        return self


class PathSampling(Callback):
    """Sets the supernet's choices before each step; a day is predicted with the widest path. Every rank."""

    def __init__(self, config: PathSamplingConfig, space: CTRSpaceConfig, schema: Schema, seed: int) -> None:
        self._config = config
        self._seed = seed
        full = space if config.connections == "any" else space.model_copy(update={"max_inputs": 1})
        # What a budget excludes is trained as well: its weights are those of the members, too.
        self._space = CTRSpace(full.model_copy(update={"max_macs": None}), schema)
        self._widest: NASRecConfig | None = None

    def fit_start(self, state: TrainState) -> None:
        """Keep the widest path; where the run goes on within a day, draw the next step's."""
        (self._widest,) = _supernet(state).choices
        if state.records:
            self._draw(state)

    def day_start(self, state: TrainState) -> None:
        """Predict with the widest path."""
        assert self._widest is not None
        _supernet(state).choices = (self._widest,)

    def scored(self, state: TrainState) -> None:
        """Draw the first step's networks."""
        self._draw(state)

    def step_end(self, state: TrainState) -> None:
        """Draw the next step's networks."""
        self._draw(state)

    def fit_end(self, state: TrainState) -> None:
        """Leave the widest path, which is what the run's history tells of."""
        assert self._widest is not None
        _supernet(state).choices = (self._widest,)

    def _draw(self, state: TrainState) -> None:
        step = state.position.num_steps
        share = max(0.0, 1.0 - step / self._config.warm_up_steps) if self._config.warm_up_steps else 0.0
        random = Random(f"{self._seed}/path/{step}")
        drawn = tuple(self._space.sample_warm_up(random, share) for _ in range(self._config.paths_per_step))
        if self._config.widest:
            assert self._widest is not None
            drawn = (self._widest, *drawn)
        _supernet(state).choices = drawn


def _supernet(state: TrainState) -> NASRecSupernet:
    return cast(NASRecSupernet, state.trained.model.head)
