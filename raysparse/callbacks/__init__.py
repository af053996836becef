"""What happens at the events of the training loop."""

from typing import Annotated, assert_never

from pydantic import Field

from raysparse.callbacks.checkpointing import CheckpointConfig, Checkpointing
from raysparse.callbacks.early_stop import EarlyStop, EarlyStopConfig
from raysparse.callbacks.feature_cache import FeatureCacheConfig, FeatureCaching
from raysparse.callbacks.frozen_arm import FrozenArm, FrozenArmConfig
from raysparse.callbacks.history import History
from raysparse.callbacks.mask_age import MaskAge, MaskAgeConfig
from raysparse.callbacks.memory import ReturnMemory
from raysparse.callbacks.path_sampling import PathSampling, PathSamplingConfig
from raysparse.callbacks.progress import Progress
from raysparse.callbacks.row_pruning import RowPruning, RowPruningConfig
from raysparse.callbacks.sandwich import Sandwich, SandwichConfig
from raysparse.callbacks.sequence_cache import SequenceCacheConfig, SequenceCaching
from raysparse.callbacks.small_dense import SmallDense, SmallDenseConfig
from raysparse.callbacks.sparsity import Sparsity, SparsityConfig
from raysparse.data.schema import Schema
from raysparse.errors import ConfigError
from raysparse.models import ModelConfig
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.supernet import NASRecSupernetConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.supernet import SASRecSupernetConfig
from raysparse.train.callback import Callback

ArmConfig = FrozenArmConfig | MaskAgeConfig | SmallDenseConfig | SparsityConfig
"""Callbacks that add arms; each has a name."""

CallbackConfig = Annotated[
    ArmConfig
    | EarlyStopConfig
    | FeatureCacheConfig
    | PathSamplingConfig
    | RowPruningConfig
    | SandwichConfig
    | SequenceCacheConfig,
    Field(discriminator="kind"),
]
"""The callbacks that a job may list."""


def build_callback(config: CallbackConfig, seed: int, model: ModelConfig, schema: Schema) -> Callback:
    """Build a listed callback; `seed` and `model` are the job's, `schema` the data set's.

    ConfigError where the callback does not fit the model.
    """
    match config:
        case EarlyStopConfig():
            return EarlyStop(config)
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
        case FeatureCacheConfig() | PathSamplingConfig() | SandwichConfig() | SequenceCacheConfig():
            return _of_supernet(config, seed, model, schema)
        case _:
            assert_never(config)


def _of_supernet(
    config: FeatureCacheConfig | PathSamplingConfig | SandwichConfig | SequenceCacheConfig,
    seed: int,
    model: ModelConfig,
    schema: Schema,
) -> Callback:
    match config:
        case FeatureCacheConfig():
            return FeatureCaching(config, _space_of(model, config.kind))
        case PathSamplingConfig():
            return PathSampling(config, _space_of(model, config.kind), schema, seed)
        case SandwichConfig():
            return Sandwich(config, _sasrec_space_of(model, config.kind), schema, seed)
        case SequenceCacheConfig():
            return SequenceCaching(config, _sasrec_space_of(model, config.kind))
        case _:
            assert_never(config)


def _space_of(model: ModelConfig, kind: str) -> CTRSpaceConfig:
    if not isinstance(model, NASRecSupernetConfig):
        raise ConfigError(f"callbacks: {kind} needs model.kind: nasrec_supernet; found {model.kind}")
    return model.space


def _sasrec_space_of(model: ModelConfig, kind: str) -> SASRecSpaceConfig:
    if not isinstance(model, SASRecSupernetConfig):
        raise ConfigError(f"callbacks: {kind} needs model.kind: sasrec_supernet; found {model.kind}")
    return model.space


__all__ = [
    "ArmConfig",
    "CallbackConfig",
    "CheckpointConfig",
    "Checkpointing",
    "EarlyStop",
    "EarlyStopConfig",
    "FeatureCacheConfig",
    "FeatureCaching",
    "FrozenArm",
    "FrozenArmConfig",
    "History",
    "MaskAge",
    "MaskAgeConfig",
    "PathSampling",
    "PathSamplingConfig",
    "Progress",
    "ReturnMemory",
    "RowPruning",
    "RowPruningConfig",
    "Sandwich",
    "SandwichConfig",
    "SequenceCacheConfig",
    "SequenceCaching",
    "SmallDense",
    "SmallDenseConfig",
    "Sparsity",
    "SparsityConfig",
    "build_callback",
]
