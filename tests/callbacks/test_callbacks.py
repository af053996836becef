from typing import Any, cast

import pytest

from raysparse.callbacks import (
    CallbackConfig,
    EarlyStop,
    EarlyStopConfig,
    FeatureCacheConfig,
    FeatureCaching,
    FrozenArm,
    FrozenArmConfig,
    MaskAge,
    MaskAgeConfig,
    PathSampling,
    PathSamplingConfig,
    RowPruning,
    RowPruningConfig,
    Sandwich,
    SandwichConfig,
    SequenceCacheConfig,
    SequenceCaching,
    SmallDense,
    SmallDenseConfig,
    Sparsity,
    SparsityConfig,
    build_callback,
)
from raysparse.data.schema import sequence_schema
from raysparse.errors import ConfigError
from raysparse.models import ModelConfig
from raysparse.models.dlrm import DLRMConfig
from raysparse.models.nasrec.supernet import NASRecSupernetConfig
from raysparse.models.sasrec.supernet import SASRecSupernetConfig
from raysparse.train.callback import Callback
from tests.data.datasets import PLAIN

DLRM, CLICK_SUPERNET, SEQUENCE_SUPERNET = DLRMConfig(), NASRecSupernetConfig(), SASRecSupernetConfig()


def build(config: CallbackConfig, model: ModelConfig) -> Callback:
    return build_callback(config, 1, model, sequence_schema(30) if model is SEQUENCE_SUPERNET else PLAIN)


@pytest.mark.parametrize(
    ("config", "model", "expected"),
    [
        (EarlyStopConfig(), DLRM, EarlyStop),
        (FrozenArmConfig(), DLRM, FrozenArm),
        (MaskAgeConfig(budget=0.5), DLRM, MaskAge),
        (RowPruningConfig(budget=0.5), DLRM, RowPruning),
        (SmallDenseConfig(budget=0.5), DLRM, SmallDense),
        (SparsityConfig(budget=0.5), DLRM, Sparsity),
        (FeatureCacheConfig(folder="cache"), CLICK_SUPERNET, FeatureCaching),
        (PathSamplingConfig(), CLICK_SUPERNET, PathSampling),
        (SandwichConfig(), SEQUENCE_SUPERNET, Sandwich),
        (SequenceCacheConfig(folder="cache"), SEQUENCE_SUPERNET, SequenceCaching),
    ],
)
def test_each_config_builds_its_callback(config: CallbackConfig, model: ModelConfig, expected: type[Callback]):
    assert type(build(config, model)) is expected


def test_a_config_without_a_case_is_named():
    with pytest.raises(AssertionError, match="DLRMConfig"):
        build(cast(Any, DLRM), DLRM)


def test_a_callback_of_a_supernet_is_refused_without_one():
    with pytest.raises(ConfigError, match=r"path_sampling needs model\.kind: nasrec_supernet; found dlrm"):
        build(PathSamplingConfig(), DLRM)
    with pytest.raises(ConfigError, match=r"sandwich needs model\.kind: sasrec_supernet; found nasrec_supernet"):
        build(SandwichConfig(), CLICK_SUPERNET)
