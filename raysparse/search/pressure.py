"""What keeps a differentiable search cheap: a price of the expected cost, fixed, EASRec's, or one that finds a budget.

Pure; `ratio` is the expected cost over that of the largest network, a scalar with a gradient.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from raysparse.config import Config

Budgets = tuple[Annotated[int, Field(ge=1)], ...]
Strengths = tuple[Annotated[float, Field(ge=0)], ...]


class FixedPressureConfig(Config):
    """The loss and a fixed price of the cost."""

    kind: Literal["fixed"] = "fixed"
    strengths: Strengths = Field(default=(0.1, 0.3, 1.0), min_length=1)
    """Prices, of which each gives a network; where its cost comes to lie is not known before."""


class PaperPressureConfig(Config):
    """EASRec's price, which is higher while deep networks are preferred (its public code; arXiv 2402.00390).

    Of the cost as a share of the largest network's, as the other prices are. EASRec divides a block's cost by the
    difference of the dearest and the cheapest one and adds blocks up, so that its price of a space with up to K blocks
    is `K * F_max / (F_max - F_min)` times as much at the same strength.
    """

    kind: Literal["paper"] = "paper"
    strengths: Strengths = Field(default=(0.01, 0.1, 1.0), min_length=1)
    """Prices, of which each gives a network."""


class DualPressureConfig(Config):
    """A multiplier that rises while the expected cost is above a budget, which comes down to its end step by step."""

    kind: Literal["dual"] = "dual"
    budgets: Budgets = Field(min_length=1)
    """Multiply-adds of an encoder for a history, at most; each gives a network."""
    rate: float = Field(default=0.1, gt=0)
    """How fast the multiplier follows the relative excess over the budget."""
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps without a budget."""
    annealing: float = Field(default=0.5, gt=0, le=1)
    """Share of the steps in which the budget falls from the cost of the largest network, by equal factors."""

    @model_validator(mode="after")
    def _comes_to_its_end(self) -> Self:
        if self.warm_up + self.annealing > 1.0:
            raise ValueError(
                "warm_up and annealing of at most 1 together, or the steps end before the budget is reached; found "
                f"{self.warm_up} and {self.annealing}"
            )
        return self


PressureConfig = Annotated[FixedPressureConfig | PaperPressureConfig | DualPressureConfig, Field(discriminator="kind")]


class FixedPressure:
    """`strength * ratio`."""

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def term(self, ratio: Tensor, depth: Tensor, progress: float) -> Tensor:  # as the others are asked
        """Return what is added to the loss."""
        return self._strength * ratio

    def update(self, ratio: float, progress: float) -> dict[str, float]:
        """Return what is worth noting of a step."""
        return {"strength": self._strength}


class PaperPressure:
    """`strength * k / K * ratio`: k is the place, from 1, of the depth with the largest weight among K."""

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def term(self, ratio: Tensor, depth: Tensor, progress: float) -> Tensor:
        """Return what is added to the loss; no gradient goes through the place."""
        return self._strength * (1 + int(depth.argmax())) / len(depth) * ratio

    def update(self, ratio: float, progress: float) -> dict[str, float]:
        """Return what is worth noting of a step."""
        return {"strength": self._strength}


class DualPressure:
    """`mu * (ratio / budget - 1)`, and after the step `mu = max(0, mu + rate * (ratio / budget - 1))`."""

    def __init__(self, config: DualPressureConfig, budget: float) -> None:
        """`budget` as a share of the largest network's cost."""
        self._config = config
        self._budget = budget
        self.multiplier = 0.0

    def budget(self, progress: float) -> float:
        """Return the budget at a share of the steps: 1 until the warm-up is over, then down to its end."""
        passed = (progress - self._config.warm_up) / self._config.annealing
        return self._budget ** min(1.0, max(0.0, passed))

    def term(self, ratio: Tensor, depth: Tensor, progress: float) -> Tensor:
        """Return what is added to the loss."""
        return self.multiplier * (ratio / self.budget(progress) - 1.0)

    def update(self, ratio: float, progress: float) -> dict[str, float]:
        """Move the multiplier, and return what is worth noting of a step."""
        budget = self.budget(progress)
        self.multiplier = max(0.0, self.multiplier + self._config.rate * (ratio / budget - 1.0))
        return {"budget": budget, "multiplier": self.multiplier}


Pressure = FixedPressure | PaperPressure | DualPressure


def build_pressures(config: PressureConfig, most: int) -> list[Pressure]:
    """Return one pressure for each network that is searched; `most` is the cost of the largest one."""
    if isinstance(config, DualPressureConfig):
        return [DualPressure(config, min(1.0, budget / most)) for budget in config.budgets]
    kind = FixedPressure if isinstance(config, FixedPressureConfig) else PaperPressure
    return [kind(strength) for strength in config.strengths]
