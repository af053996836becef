"""The pruners that a job can name."""

from typing import Annotated

from pydantic import Field

from raysparse.sparsity.compensation import Training
from raysparse.sparsity.gates import GatesConfig, GatesPruner
from raysparse.sparsity.greedy import GreedyConfig, GreedyPruner
from raysparse.sparsity.hard_concrete import HardConcreteConfig, HardConcretePruner
from raysparse.sparsity.layout import Layout
from raysparse.sparsity.pruner import Pruner
from raysparse.sparsity.umec import UmecConfig, UmecPruner

PrunerConfig = Annotated[GreedyConfig | GatesConfig | HardConcreteConfig | UmecConfig, Field(discriminator="kind")]


def build_pruner(
    config: PrunerConfig, layout: Layout, budget: float, num_steps: int, seed: int, training: Training | None = None
) -> Pruner:
    """Build a pruner for a window of `num_steps` steps; ConfigError where the budget cannot be met. Every rank."""
    match config:
        case GreedyConfig():
            return GreedyPruner(config, layout, budget, num_steps, seed, training)
        case GatesConfig():
            return GatesPruner(config, layout, budget, num_steps, seed)
        case HardConcreteConfig():
            return HardConcretePruner(config, layout, budget, num_steps, seed)
        case UmecConfig():
            return UmecPruner(config, layout, budget, num_steps, seed)
