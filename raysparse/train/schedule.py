"""How the learning rates change with the steps."""

import math
from typing import Literal

from pydantic import Field

from raysparse.config import Config


class ScheduleConfig(Config):
    """A factor on all learning rates, from the number of steps made."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up: no change, or a decay to `final_factor`."""
    warm_up_steps: int = Field(default=0, ge=0)
    """Steps over which the factor rises from 0 to 1."""
    decay_steps: int | None = Field(default=100_000, ge=1)
    """Steps of the decay, after the warm-up; null: up to the last step of the run, whose days then stay."""
    final_factor: float = Field(default=0.1, ge=0, le=1)
    """Factor at the end of the decay and after it."""

    def over(self, num_steps: int) -> "ScheduleConfig":
        """Return the schedule of a run of so many steps, in which `decay_steps` is a number."""
        if self.decay_steps is not None:
            return self
        return self.model_copy(update={"decay_steps": max(1, num_steps - self.warm_up_steps)})


def learning_rate_factor(config: ScheduleConfig, num_steps: int) -> float:
    """Factor for the step that follows `num_steps` steps, of a schedule whose `decay_steps` are known."""
    if num_steps < config.warm_up_steps:
        return (num_steps + 1) / config.warm_up_steps
    if config.kind == "constant":
        return 1.0
    assert config.decay_steps is not None
    progress = min(1.0, (num_steps - config.warm_up_steps) / config.decay_steps)
    share = 1.0 - progress if config.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_factor + (1.0 - config.final_factor) * share
