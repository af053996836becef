"""Draws the networks of an elastic encoder that each step trains."""

from random import Random
from typing import Literal, cast

from pydantic import Field

from raysparse.config import Config
from raysparse.data.schema import Schema
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.supernet import SASRecSupernet
from raysparse.search.sasrec_space import AXES, SASRecSpace
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class SandwichConfig(Config):
    """The largest network in every step, and beside it the smallest and some drawn ones (Yu and Huang 2019)."""

    kind: Literal["sandwich"] = "sandwich"
    num_drawn: int = Field(default=2, ge=0)
    """Networks drawn for a step from the seed and its number, the same on all ranks."""
    opening_steps: int = Field(default=0, ge=0)
    """Steps of the largest network alone, and then after each further axis that is opened: heads and inner widths,
    depth, width, length (the order of Once-for-All, arXiv 1908.09791); 0: all are open from the start."""


class Sandwich(Callback):
    """Sets the networks of a step before it. Every rank."""

    def __init__(self, config: SandwichConfig, space: SASRecSpaceConfig, schema: Schema, seed: int) -> None:
        self._config = config
        self._seed = seed
        # What a budget excludes is trained as well: its weights are those of the members, too.
        self._space = SASRecSpace(space.model_copy(update={"max_macs": None}), schema)

    def fit_start(self, state: TrainState) -> None:
        """Where the run goes on within a day, draw the next step's."""
        if state.records:
            self._draw(state)

    def scored(self, state: TrainState) -> None:
        """Draw the first step's networks."""
        self._draw(state)

    def step_end(self, state: TrainState) -> None:
        """Draw the next step's networks."""
        self._draw(state)

    def _draw(self, state: TrainState) -> None:
        cast(SASRecSupernet, state.trained.model.head).choices = self.choices(state.position.num_steps)

    def choices(self, step: int) -> tuple[SASRecConfig, ...]:
        """Return the networks that a step trains, the largest one first; each once."""
        largest, opening = self._space.config.largest, self._config.opening_steps
        num_open = min(len(AXES), step // opening) if opening else len(AXES)
        if num_open == 0:
            return (largest,)
        random = Random(f"{self._seed}/sandwich/{step}")
        drawn = [self._space.sample_open(random, num_open) for _ in range(self._config.num_drawn)]
        return tuple(dict.fromkeys((largest, self._space.smallest_open(num_open), *drawn)))
