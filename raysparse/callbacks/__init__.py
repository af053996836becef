"""What happens at the events of the training loop."""

from raysparse.callbacks.checkpointing import CheckpointConfig, Checkpointing
from raysparse.callbacks.frozen_arm import FrozenArm, FrozenArmConfig
from raysparse.callbacks.history import History
from raysparse.callbacks.progress import Progress

CallbackConfig = FrozenArmConfig
"""The callbacks that a job may list; a union over `kind` as soon as there are two."""

__all__ = [
    "CallbackConfig",
    "CheckpointConfig",
    "Checkpointing",
    "FrozenArm",
    "FrozenArmConfig",
    "History",
    "Progress",
]
