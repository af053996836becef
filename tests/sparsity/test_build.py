"""What every pruner keeps to."""

import pytest

from raysparse.errors import ConfigError
from raysparse.sparsity.build import PrunerConfig, build_pruner
from raysparse.sparsity.gates import GatesConfig, GatesPruner
from raysparse.sparsity.greedy import GreedyConfig
from raysparse.sparsity.hard_concrete import HardConcreteConfig, HardConcretePruner
from raysparse.sparsity.umec import UmecConfig, UmecPruner
from tests.sparsity.heads import assert_budget_is_used, larger
from tests.sparsity.windows import NUM_STEPS, assert_a_restored_window_goes_on_the_same, run_window

LEARNED: list[PrunerConfig] = [GatesConfig(), HardConcreteConfig(), UmecConfig()]
ALL: list[PrunerConfig] = [GreedyConfig(), GreedyConfig(criterion="movement"), *LEARNED]


def kind(config: PrunerConfig) -> str:
    return config.kind


@pytest.mark.parametrize("config", LEARNED, ids=kind)
@pytest.mark.parametrize("budget", [0.6, 0.3, 0.15])
@pytest.mark.parametrize("num_steps", [1, 7, NUM_STEPS])
def test_the_budget_is_met_within_one_group(config: PrunerConfig, budget: float, num_steps: int):
    _, layout, pruner, history = run_window(config, budget, num_steps)
    assert_budget_is_used(layout, history[-1], pruner.macs)


@pytest.mark.parametrize("config", LEARNED, ids=kind)
def test_a_price_brings_the_widths_near_the_budget_by_itself(config: PrunerConfig):
    _, _, pruner, _ = run_window(config, 0.3, num_steps=150)
    assert isinstance(pruner, GatesPruner | HardConcretePruner | UmecPruner)
    assert pruner.raw_share == pytest.approx(0.3, abs=0.1)
    prices = [tensor.item() for name, tensor in pruner.tensors().items() if name in ("price", "cost_price")]
    assert len(prices) == 1
    assert prices[0] > 0


@pytest.mark.parametrize("config", ALL, ids=kind)
@pytest.mark.parametrize("stop", [1, 3, 14, 23, 30])
def test_a_restored_window_goes_on_the_same(config: PrunerConfig, stop: int):
    assert_a_restored_window_goes_on_the_same(config, 0.4, stop)


@pytest.mark.parametrize("config", ALL, ids=kind)
def test_an_impossible_budget_is_refused(config: PrunerConfig):
    _, layout = larger(least_groups=10)
    with pytest.raises(ConfigError, match=r"budget: found 0.01, which is \d+ of the dense head's [\d,]+ multiply-adds"):
        build_pruner(config, layout, 0.01, 10, seed=1)
