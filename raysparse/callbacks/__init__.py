"""What happens at the events of the training loop."""

from typing import Annotated

from pydantic import Field

from raysparse.callbacks.checkpointing import CheckpointConfig, Checkpointing
from raysparse.callbacks.frozen_arm import FrozenArm, FrozenArmConfig
from raysparse.callbacks.history import History
from raysparse.callbacks.mask_age import MaskAge, MaskAgeConfig
from raysparse.callbacks.progress import Progress
from raysparse.callbacks.row_pruning import RowPruning, RowPruningConfig
from raysparse.callbacks.small_dense import SmallDense, SmallDenseConfig
from raysparse.callbacks.sparsity import Sparsity, SparsityConfig
from raysparse.train.callback import Callback

CallbackConfig = Annotated[
    FrozenArmConfig | MaskAgeConfig | RowPruningConfig | SmallDenseConfig | SparsityConfig, Field(discriminator="kind")
]
"""The callbacks that a job may list."""


def build_callback(config: CallbackConfig, seed: int) -> Callback:
    """Build a listed callback; `seed` is the job's."""
    match config:
        case FrozenArmConfig():
            return FrozenArm(config)
        case MaskAgeConfig():
            return MaskAge(config, seed)
        case RowPruningConfig():
            return RowPruning(config)
        case SmallDenseConfig():
            return SmallDense(config, seed)
        case SparsityConfig():
            return Sparsity(config, seed)


__all__ = [
    "CallbackConfig",
    "CheckpointConfig",
    "Checkpointing",
    "FrozenArm",
    "FrozenArmConfig",
    "History",
    "MaskAge",
    "MaskAgeConfig",
    "Progress",
    "RowPruning",
    "RowPruningConfig",
    "SmallDense",
    "SmallDenseConfig",
    "Sparsity",
    "SparsityConfig",
    "build_callback",
]
