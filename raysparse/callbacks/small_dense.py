"""An arm that is small from its first day: what pruning has to beat."""

from typing import Any, Literal

from pydantic import Field

from raysparse.callbacks.children import (
    Parent,
    WidthsConfig,
    blank_child,
    child_of,
    facts_of,
    parent_of,
    reset_weights,
)
from raysparse.config import Config
from raysparse.sparsity.layout import Masks, open_masks
from raysparse.sparsity.projection import uniform_widths
from raysparse.train.callback import Callback
from raysparse.train.state import TrainState


class SmallDenseConfig(Config):
    """A child of the trained arm's shape, all layers narrower by one ratio, that learns from the first day on."""

    kind: Literal["small_dense"] = "small_dense"
    name: str = Field(default="small_dense", pattern=r"^[a-z0-9_]+$")
    """Name of the arm in the history."""
    budget: float = Field(gt=0.0, lt=1.0)
    """Share of the dense head's multiply-adds that it may take."""
    widths: WidthsConfig = WidthsConfig()
    """What a layer may keep."""


class SmallDense(Callback):
    """Adds the arm before the first day. Every rank."""

    def __init__(self, config: SmallDenseConfig, seed: int) -> None:
        self.state_key = f"small_dense/{config.name}"
        self._config = config
        self._seed = seed

    def day_start(self, state: TrainState) -> None:
        """Build the arm; its weights are drawn from the job's seed."""
        if state.arm(self._config.name) is None:
            self._add(state)

    def load_state_dict(self, saved: dict[str, Any], state: TrainState) -> None:
        """Build the arm again."""
        self._add(state)

    def _add(self, state: TrainState) -> None:
        parent = parent_of(state, self._config.widths)
        kept = self._kept(parent)
        arm = blank_child(state, parent, self._config.name, kept)
        arm.facts = facts_of(parent.layout, kept)
        reset_weights(child_of(arm).head, self._seed)
        state.arms.append(arm)

    def _kept(self, parent: Parent) -> Masks:
        layout = parent.layout
        widths = uniform_widths(layout, layout.budget_macs(self._config.budget), prune_inputs=False)
        masks = open_masks(layout)
        for place, width in widths.items():
            masks[place][width:] = False
        return masks
