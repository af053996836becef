import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from raysparse.config import check
from raysparse.cost.encoder import encoder_macs
from raysparse.errors import ConfigError
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.models.sasrec.relaxed import Weights, weights_of
from raysparse.search.pressure import DualPressure, DualPressureConfig, PaperPressure
from raysparse.search.relaxation import DifferentiableConfig, Found, Relaxation, relax, temperature_at

TREE: dict[str, Any] = {
    "widths": [8, 16],
    "head_dim": 4,
    "heads": [1, 2],
    "ffn_ratios": [1, 3],
    "depths": [1, 3],
    "lengths": [5, 70],
    "attentions": ["softmax", "linear"],
}
SPACE = check(SASRecSpaceConfig, TREE, "the space")
LARGEST = encoder_macs(SPACE.largest, 70)


def all_choices() -> list[tuple[SASRecConfig, list[tuple[int, ...]]]]:
    """Every choice, and the places of its options: width, depth, then heads, ratio and kind of each block."""
    options = list(itertools.product(range(2), repeat=3))
    found: list[tuple[SASRecConfig, list[tuple[int, ...]]]] = []
    for width, (depth_place, depth) in itertools.product(range(2), enumerate(SPACE.depths)):
        for blocks in itertools.product(options, repeat=depth):
            choice = SPACE.network(
                SPACE.widths[width],
                70,
                [SPACE.heads[heads] for heads, _, _ in blocks],
                [SPACE.ffn_ratios[ratio] for _, ratio, _ in blocks],
                [SPACE.attentions[kind] for _, _, kind in blocks],
            )
            found.append((choice, [(width,), (depth_place,), *blocks]))
    return found


def probability(weights: Weights, places: list[tuple[int, ...]]) -> float:
    (width,), (depth,), *blocks = places
    product = weights.width[width] * weights.depth[depth]
    for layer, (heads, ratio, kind) in enumerate(blocks):
        product = product * weights.heads[layer, heads] * weights.ratios[layer, ratio] * weights.kinds[layer, kind]
    return float(product)


def drawn_relaxation(seed: int) -> Relaxation:
    relaxation = Relaxation(SPACE, seed)
    generator = torch.Generator().manual_seed(seed)
    for logits in relaxation.logits:
        logits.data = torch.randn(logits.shape, generator=generator)
    return relaxation


def test_the_expected_cost_is_the_mean_over_all_choices():
    relaxation = drawn_relaxation(1)
    weights = relaxation.probabilities
    parts = [(probability(weights, places), encoder_macs(choice, 70)) for choice, places in all_choices()]
    assert sum(share for share, _ in parts) == pytest.approx(1.0, rel=1e-5)
    expected = sum(share * macs for share, macs in parts)
    assert relaxation.expected_macs(weights).item() == pytest.approx(expected, rel=1e-5)
    relaxation.expected_macs(weights).backward()
    assert all(logits.grad is not None and logits.grad.abs().sum() > 0 for logits in relaxation.logits)


def test_where_one_choice_has_all_weight_its_cost_is_expected():
    relaxation = Relaxation(SPACE, 1)
    for choice, _ in all_choices()[::7]:
        weights = weights_of(SPACE, choice)
        assert relaxation.expected_macs(weights).item() == encoder_macs(choice, 70)
        assert relaxation.choice_of(weights) == choice


@pytest.mark.parametrize("seed", range(5))
def test_the_last_choice_is_the_most_probable_one_close_below_the_budget(seed: int):
    relaxation = drawn_relaxation(seed)
    weights = relaxation.probabilities
    for share in (0.08, 0.3, 0.7, 1.0):
        budget = int(share * LARGEST)
        within = [
            (probability(weights, places), choice)
            for choice, places in all_choices()
            if encoder_macs(choice, 70) <= budget
        ]
        close = [one for one in within if encoder_macs(one[1], 70) >= 0.95 * budget]
        assert relaxation.best_within(budget) == max(close or within, key=lambda one: one[0])[1]


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_a_budget_is_met_where_there_are_millions_of_networks(share: float):
    space = SASRecSpaceConfig(widths=(64,), depths=(8,), attentions=("softmax",))  # 9^8
    relaxation = Relaxation(space, 1)
    torch.manual_seed(1)
    with torch.no_grad():
        for logits in relaxation.logits:
            logits.normal_(0.0, 0.5)
    budget = int(share * relaxation.most)
    found = encoder_macs(relaxation.best_within(budget), max(space.lengths))
    assert 0.95 * budget <= found <= budget


def test_a_budget_below_the_smallest_network_is_refused():
    # Of linear attention, which is the cheaper kind for histories that are so long.
    smallest = encoder_macs(SPACE.network(8, 70, [1], [1], ["linear"]), 70)
    with pytest.raises(ConfigError, match=rf"budgets: found 100; .* takes {smallest:,} .* Allowed: {smallest:,}"):
        relax(SPACE, config_of(budgets=[100]), 1, lambda: (prefers_large, None))


def config_of(**constraint: Any) -> DifferentiableConfig:
    tree = {"num_steps": 300, "constraint": {"kind": "dual", **constraint}}
    return check(DifferentiableConfig, tree, "the searcher")


def prefers_large(weights: Weights, step: int) -> Tensor:
    """A loss that falls with every option that is larger."""
    large = weights.width[1] + weights.depth[1] + (weights.heads[:, 1] + weights.ratios[:, 1]).sum() / 3
    return 2.0 - 0.3 * large + 0.01 * (step % 3)


def search(**constraint: Any) -> list[Found]:
    return relax(SPACE, config_of(**constraint), 1, lambda: (prefers_large, None))


def test_the_dual_constraint_meets_its_budgets():
    budgets = [int(share * LARGEST) for share in (0.25, 0.5, 0.8)]
    for found, budget in zip(search(budgets=budgets), budgets, strict=True):
        assert 0.95 * budget <= encoder_macs(found.choice, 70) <= budget
        # The expectation swings around the budget; of a space as coarse as this one it may stay below.
        last = [step["macs"] for step in found.trace[-60:]]
        assert sum(last) / len(last) < 1.3 * budget
        assert max(step["macs"] for step in found.trace) > budget
        assert found.trace[0]["budget"] == 1.0
        assert found.trace[-1]["budget"] == pytest.approx(budget / Relaxation(SPACE, 1).most)


def test_strong_pressure_gives_the_cheapest_network_and_none_the_largest():
    free, strong = search(kind="fixed", strengths=[0.0, 100.0])
    assert (free.choice.embedding_dim, free.choice.num_layers) == (16, 3)
    assert set(free.choice.head_counts) == {2}
    costs = sorted(encoder_macs(choice, 70) for choice, _ in all_choices())
    assert encoder_macs(strong.choice, 70) == costs[0]
    assert encoder_macs(free.choice, 70) > costs[len(costs) // 2]
    (paper,) = search(kind="paper", strengths=[100.0])
    assert encoder_macs(paper.choice, 70) == costs[0]


def test_the_papers_price_is_higher_while_deep_networks_are_preferred():
    ratio = torch.tensor(0.5)
    deep, shallow = (PaperPressure(2.0).term(ratio, torch.tensor(depth), 0.0) for depth in ([0.2, 0.8], [0.8, 0.2]))
    assert (deep.item(), shallow.item()) == (2.0 * 1.0 * 0.5, 2.0 * 0.5 * 0.5)


def test_a_budget_that_the_steps_would_not_reach_is_refused():
    with pytest.raises(ConfigError, match="warm_up and annealing of at most 1 together.*found 0.5 and 0.6"):
        config_of(budgets=[100], warm_up=0.5, annealing=0.6)
    assert DualPressure(DualPressureConfig(budgets=(1,), warm_up=0.5, annealing=0.5), 0.4).budget(1.0) == 0.4


def test_the_multiplier_never_pays_for_being_cheap():
    pressure = DualPressure(DualPressureConfig(budgets=(1,), rate=0.5), budget=0.4)
    for ratio in (1.0, 0.1, 0.1, 0.1):
        pressure.update(ratio, 1.0)
    assert pressure.multiplier == 0.0
    pressure.update(0.6, 1.0)
    assert pressure.multiplier == pytest.approx(0.5 * (0.6 / 0.4 - 1.0))
    assert pressure.term(torch.tensor(0.6), torch.zeros(1), 1.0).item() == pytest.approx(0.25 * 0.5)


def test_the_temperature_depends_on_the_steps_and_draws_on_seed_and_step():
    config = config_of(budgets=[10**6])
    assert temperature_at(config, 0.0) == 1.0
    assert temperature_at(config, 0.5) == pytest.approx(0.5**0.5)
    relaxation = Relaxation(SPACE, 1)
    first = relaxation.draw(3, 0.5)
    relaxation.draw(4, 0.5)
    again = relaxation.draw(3, 0.5)
    for one, other in zip(first.all, again.all, strict=True):
        assert one.equal(other)
        assert set(one.detach().round(decimals=5).flatten().tolist()) <= {0.0, 1.0}
    other = Relaxation(SPACE, 2).draw(3, 0.5)
    assert any(not one.equal(two) for one, two in zip(first.all, other.all, strict=True))


def test_the_same_seed_finds_the_same_network():
    (one,), (two,) = search(budgets=[LARGEST // 3]), search(budgets=[LARGEST // 3])
    assert one == two


def test_the_shared_weights_learn_as_the_network_that_was_drawn():
    steps: list[SASRecConfig | Weights] = []
    config = config_of(budgets=[LARGEST]).model_copy(update={"num_steps": 20})
    relax(SPACE, config, 1, lambda: (prefers_large, lambda choice, _: steps.append(choice)))
    assert len(steps) == 20
    choices = [step for step in steps if isinstance(step, SASRecConfig)]
    assert len({choice.model_dump_json() for choice in choices}) > 10
    assert all(choice.max_length == 70 for choice in choices)


def test_easrecs_way_mixes_all_options_and_has_the_weights_learn_ten_batches_for_each_choice():
    learned: list[tuple[SASRecConfig | Weights, int]] = []
    chosen: list[tuple[Weights, int]] = []

    def choose(weights: Weights, batch: int) -> Tensor:
        chosen.append((weights, batch))
        return prefers_large(weights, batch)

    tree = {
        "options": "mixed",
        "num_steps": 30,
        "weight_steps": 10,
        "constraint": {"kind": "paper", "strengths": [5.0]},
    }
    config = check(DifferentiableConfig, tree, "the searcher")
    (found,) = relax(SPACE, config, 1, lambda: (choose, lambda weights, batch: learned.append((weights, batch))))
    assert [batch for _, batch in learned] == list(range(300))
    assert [batch for _, batch in chosen] == list(range(9, 300, 10))
    uniform, batch = learned[0]
    assert isinstance(uniform, Weights)
    assert all(axis.equal(torch.full_like(axis, 0.5)) and not axis.requires_grad for axis in uniform.all)
    # What is chosen at a step is the mixture that has learned, and it goes on to one option.
    for (weights, batch), (learner, same) in zip(chosen, learned[9::10], strict=True):
        assert isinstance(learner, Weights)
        assert batch == same
        assert all(one.equal(other) for one, other in zip(weights.all, learner.all, strict=True))
    # What is priced is the same mixture: its weights, not those at a temperature of 1.
    for (weights, _), step in zip(chosen, found.trace, strict=True):
        assert step["macs"] == pytest.approx(Relaxation(SPACE, 1).expected_macs(weights).item(), rel=1e-4)
    assert found.expected_macs < 0.2 * LARGEST
    assert encoder_macs(found.choice, 70) == min(encoder_macs(choice, 70) for choice, _ in all_choices())
