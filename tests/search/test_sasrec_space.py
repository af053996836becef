from itertools import product
from random import Random
from typing import Any

import pytest

from raysparse.config import check
from raysparse.cost.encoder import encoder_macs
from raysparse.cost.record import cost_of
from raysparse.data.schema import sequence_schema
from raysparse.errors import ConfigError
from raysparse.models import build_model
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.menu import SASRecSpaceConfig
from raysparse.search.population import Crossing
from raysparse.search.sasrec_space import AXES, SASRecSpace
from raysparse.search.space import Space
from tests.train.sequence_jobs import SPACE

SCHEMA = sequence_schema(30)
SMALL: dict[str, Any] = {
    **SPACE,
    "attentions": ["softmax", "linear"],
    "dropout": 0.2,
    "loss": {"kind": "sampled_softmax"},
}


def space_of(**changes: Any) -> SASRecSpace:
    return SASRecSpace(check(SASRecSpaceConfig, {**SMALL, **changes}, "the space"), SCHEMA)


def test_it_is_a_space_that_can_join_two_choices():
    space: Space[SASRecConfig] = space_of()
    assert isinstance(space, Crossing)


def test_the_size_of_the_published_axes_is_counted():
    space = SASRecSpace(SASRecSpaceConfig(lengths=(50, 100, 200)), SCHEMA)
    assert space.size() == 66_420


def test_the_size_is_that_of_a_space_that_is_listed():
    space, random = space_of(), Random(1)
    found = {space.key(space.sample(random)) for _ in range(8_000)}
    assert len(found) == space.size() == 2 * 2 * (8 + 64)


def test_what_is_drawn_mutated_and_crossed_is_in_the_space_and_within_the_budget():
    most = 30_000
    space, random = space_of(max_macs=most), Random(2)
    choices = [space.sample(random) for _ in range(100)]
    choices += [space.mutate(choice, random) for choice in choices]
    choices += [space.crossover(one, other, random) for one, other in zip(choices, choices[1:], strict=False)]
    for choice in choices:
        assert space.parse(choice.model_dump(mode="json")) == choice
        assert encoder_macs(choice, choice.max_length) <= most
    assert len(set(map(space.key, choices))) > 30


def test_a_budget_that_samples_miss_is_reached_by_a_walk():
    smallest = space_of().config.smallest
    least = encoder_macs(smallest, smallest.max_length)
    space, random = space_of(max_macs=int(1.3 * least)), Random(1)
    found = {space.key(space.sample(random)) for _ in range(20)}
    assert 1 <= len(found) < 12


def test_a_mutation_changes_one_axis_or_one_property_of_one_block():
    space, random = space_of(), Random(3)
    places: set[str] = set()
    for _ in range(300):
        choice = space.sample(random)
        mutated = space.mutate(choice, random)
        assert mutated != choice
        before, after = choice.model_dump(), mutated.model_dump()
        changed = {key for key in before if before[key] != after[key]}
        if choice.embedding_dim != mutated.embedding_dim:
            assert changed == {"embedding_dim", "ffn_width"}
        elif choice.num_layers == mutated.num_layers:
            assert len(changed) == 1
        places |= changed
    assert places == {"embedding_dim", "ffn_width", "max_length", "num_layers", "num_heads", "attention"}


def test_axes_open_one_after_the_other():
    space, random = space_of(), Random(4)
    largest = space.config.largest
    assert space.sample_open(random, 0) == largest
    for num_open in range(1, len(AXES) + 1):
        opened = AXES[:num_open]
        drawn = [space.sample_open(random, num_open) for _ in range(60)]
        assert {choice.embedding_dim for choice in drawn} == ({8, 16} if "width" in opened else {16})
        assert {choice.num_layers for choice in drawn} == ({1, 2} if "depth" in opened else {2})
        assert {choice.max_length for choice in drawn} == ({5, 10} if "length" in opened else {10})
        assert len({choice.head_counts for choice in drawn}) > 1
    assert space.smallest_open(len(AXES)) == space.config.smallest


def test_the_cost_is_that_of_the_model_alone_and_grows_on_every_axis():
    space = space_of()
    for choice in (space.sample(Random(seed)) for seed in range(10)):
        assert space.cost(choice) == cost_of(build_model(choice, SCHEMA, 1), SCHEMA)
    config = space.config
    for width, length, heads, ratio in product((8, 16), (5, 10), (1, 2), (1, 2)):
        cost = encoder_macs(config.network(width, length, [heads], [ratio], ["softmax"]), length)
        for larger in (
            config.network(16, length, [heads], [ratio], ["softmax"]) if width == 8 else None,
            config.network(width, 10, [heads], [ratio], ["softmax"]) if length == 5 else None,
            config.network(width, length, [2], [ratio], ["softmax"]) if heads == 1 else None,
            config.network(width, length, [heads], [2], ["softmax"]) if ratio == 1 else None,
            config.network(width, length, [heads, 1], [ratio, 1], ["softmax", "softmax"]),
        ):
            assert larger is None or encoder_macs(larger, larger.max_length) > cost


def test_uniform_networks_come_in_the_order_of_their_cost():
    space = space_of(max_macs=40_000)
    found = space.uniform()
    costs = [encoder_macs(choice, choice.max_length) for choice in found]
    assert costs == sorted(costs)
    assert costs[-1] <= 40_000
    assert all(len(set(choice.head_counts)) == 1 for choice in found)
    assert len(space_of().uniform()) == 2 * 2 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"embedding_dim": 32, "ffn_width": [32]}, r"embedding_dim: found 32; allowed: \(8, 16\)"),
        ({"num_heads": [3]}, r"num_heads.0: found 3; allowed: \(1, 2\)"),
        ({"ffn_width": [24]}, r"ffn_width.0: found 24; allowed: \(8, 16\)"),
        ({"max_length": 7}, r"max_length: found 7; allowed: \(5, 10\)"),
        ({"dropout": 0.4}, "dropout: found 0.4; allowed: 0.2"),
        ({"head_dim": 8}, "head_dim: found 8; allowed: 4"),
        ({"loss": {"kind": "bce"}}, "loss: found"),
    ],
    ids=str,
)
def test_a_choice_that_is_not_in_the_space_is_refused(change: dict[str, Any], fault: str):
    tree = space_of().config.smallest.model_dump(mode="json")
    with pytest.raises(ConfigError, match=fault):
        space_of().parse({**tree, **change})


def test_a_budget_below_the_smallest_network_is_refused_with_what_is_possible():
    with pytest.raises(ConfigError, match=r"space.max_macs: found 10; .* Allowed: 1,480 or more"):
        space_of(max_macs=10)
    space = space_of(max_macs=3_000)
    with pytest.raises(ConfigError, match="the choice takes .* multiply-adds; allowed: max_macs = 3,000"):
        space.parse(space.config.largest.model_dump(mode="json"))
