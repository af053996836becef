from random import Random

import pytest
import torch

from raysparse.cost.record import cost_of
from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.errors import ConfigError
from raysparse.models import build_model
from raysparse.models.nasrec.canonical import uses_of
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.shape import supernet_shape
from raysparse.search.ctr_space import CTRSpace, CTRSpaceConfig
from raysparse.search.population import Crossing
from raysparse.search.space import Space
from tests.models.nasrec.winners import WINNERS

CRITEO = Schema(
    dense=tuple(DenseFeature(name=f"I{i}") for i in range(13)),
    ids=tuple(IdFeature(name=f"C{i}", rows=10 + i) for i in range(26)),
)
SHARED = Schema(
    dense=(DenseFeature(name="x"),),
    ids=(
        IdFeature(name="a", rows=10, table="item"),
        IdFeature(name="b", rows=20),
        IdFeature(name="c", rows=10, table="item", multi_valued=True),
    ),
)
SMALL = CTRSpaceConfig(menu="wide", num_blocks=3, dense_widths=(4, 8, 16), token_counts=(4, 6), embedding_dim=16)


def space_of(schema: Schema = SHARED, config: CTRSpaceConfig = SMALL, **changes: object) -> CTRSpace:
    return CTRSpace(config.model_copy(update=changes), schema)


def test_the_published_sizes_are_counted():
    full = CTRSpace(CTRSpaceConfig(menu="full"), CRITEO).size()
    small = CTRSpace(CTRSpaceConfig(menu="small"), CRITEO).size()
    assert full.published == 2**112
    assert small.published == 2**98
    assert [f"{size:.1e}" for size in (full.sampled, small.sampled)] == ["3.2e+36", "1.9e+32"]
    assert [f"{size:.1e}" for size in (full.sampled_with_gates, small.sampled_with_gates)] == ["8.1e+43", "4.9e+39"]


def test_the_size_is_that_of_a_space_that_is_listed():
    config = CTRSpaceConfig(menu="small", num_blocks=2, dense_widths=(4,), token_counts=(4,))
    space = CTRSpace(config, SHARED)
    random = Random(1)
    seen = {space.sample(random).model_dump_json() for _ in range(40_000)}
    # Block 1: 2 operators, 4 mergers. Block 2: the same, 3 x 3 sets, 2 x 2 gates.
    assert len(seen) == 8 * 8 * 9 * 4 == space.size().sampled_with_gates
    assert space.size().sampled == 8 * 8 * 9


def test_samples_are_drawn_as_published():
    space, random = CTRSpace(CTRSpaceConfig(menu="full"), CRITEO), Random(3)
    choices = [space.sample(random) for _ in range(1500)]
    last = [choice.blocks[-1] for choice in choices]
    # 1 + Binomial(3, 1/2), any of 7 predecessors.
    assert sum(len(block.dense_inputs) for block in last) / len(last) == pytest.approx(2.5, abs=0.1)
    assert sum(3 in block.sparse_inputs for block in last) / len(last) == pytest.approx(2.5 / 7, abs=0.05)
    for key, value, share in (("dense_op", "sum", 1 / 4), ("sparse_op", "efc", 1 / 2), ("dense_width", 768, 1 / 8)):
        assert sum(getattr(block, key) == value for block in last) / len(last) == pytest.approx(share, abs=0.05)
    live = [sum(use.live for use in uses_of(choice)) for choice in choices]
    assert sum(live) / len(live) == pytest.approx(6.0, abs=0.15)
    assert sum(count == 7 for count in live) / len(live) == pytest.approx(0.40, abs=0.05)


@pytest.mark.parametrize("config", [SMALL, CTRSpaceConfig(menu="small"), CTRSpaceConfig(max_inputs=2)])
def test_a_mutation_is_another_network_of_the_space(config: CTRSpaceConfig):
    space, random = CTRSpace(config, SHARED), Random(5)
    choice = space.sample(random)
    for _ in range(100):
        mutated = space.mutate(choice, random)
        assert space.key(mutated) != space.key(choice)
        assert space.parse(mutated.model_dump(mode="json")) == mutated
        choice = mutated


def test_mutations_reach_every_field():
    space, random = space_of(), Random(6)
    changed: set[str] = set()
    choice = space.sample(random)
    for _ in range(400):
        mutated = space.mutate(choice, random)
        changed |= {key for key in NASRecConfig.model_fields if getattr(mutated, key) != getattr(choice, key)}
        for old, new in zip(choice.blocks, mutated.blocks, strict=True):
            changed |= {key for key in type(old).model_fields if getattr(old, key) != getattr(new, key)}
        choice = mutated
    blocks = {"dense_op", "sparse_op", "dense_width", "num_tokens", "dense_inputs", "sparse_inputs", "left", "right"}
    assert changed == blocks | {"dense_to_sparse", "fm", "layer_norm", "flat_tokens", "field_dims", "blocks"}


def test_all_follows_from_the_random_numbers():
    first, second = (
        [(choice := space.sample(random)), space.mutate(choice, random)]
        for space, random in ((space_of(), Random(1)), (space_of(), Random(1)))
    )
    assert first == second


def test_a_crossover_takes_each_block_from_a_parent():
    space, random = space_of(), Random(2)
    assert isinstance(space, Crossing)
    first, second = space.sample(random), space.sample(random)
    children = [space.crossover(first, second, random) for _ in range(50)]
    for child in children:
        assert all(block in pair for block, *pair in zip(child.blocks, first.blocks, second.blocks, strict=True))
    assert len({space.key(child) for child in children}) > 2


def test_what_the_published_space_draws_does_not_depend_on_what_the_wide_menu_adds():
    space = CTRSpace(CTRSpaceConfig(menu="full", num_blocks=2), CRITEO)
    assert (
        space.key(space.sample(Random("rank_correlation/0")))
        == "d16 ln | sum16(L0 R0) efc16(0) | sum64(L0 R1) efc48(0)+ds"
    )


def test_the_full_path_is_as_wide_as_the_supernet():
    space = CTRSpace(CTRSpaceConfig(menu="full"), CRITEO)
    choice = space.full_path(Random(1))
    for number, block in enumerate(choice.blocks, start=1):
        assert (block.dense_width, block.num_tokens, block.dense_to_sparse, block.fm) == (1024, 64, True, True)
        assert len(block.dense_inputs) == len(block.sparse_inputs) == min(number, 4)
    assert not choice.flat_tokens
    assert all(space_of().full_path(Random(seed)).flat_tokens for seed in range(5))


def test_warming_up_tosses_one_coin_for_connections_and_one_per_block_for_widths():
    space, random = CTRSpace(CTRSpaceConfig(menu="full"), CRITEO), Random(4)
    choices = [space.sample_warm_up(random, 0.5) for _ in range(400)]

    def all_inputs(choice: NASRecConfig) -> bool:
        blocks = enumerate(choice.blocks, start=1)
        return all(len(block.dense_inputs) == len(block.sparse_inputs) == min(number, 4) for number, block in blocks)

    assert sum(map(all_inputs, choices)) / 400 == pytest.approx(0.5, abs=0.08)
    wide = [block.dense_width == 1024 and block.num_tokens == 64 for choice in choices for block in choice.blocks]
    assert sum(wide) / len(wide) == pytest.approx(0.5 + 0.5 / 32, abs=0.05)
    assert any(0 < sum(wide[start : start + 7]) < 7 for start in range(0, len(wide), 7))


def test_the_cost_is_that_of_the_built_model():
    space, random = space_of(), Random(7)
    for _ in range(20):
        choice = space.sample(random)
        assert space.cost(choice) == cost_of(build_model(choice, SHARED, seed=1), SHARED)
        assert space.cost(choice) == space.cost(space.canonical(choice))


def test_the_supernet_runs_every_choice():
    space, random = space_of(), Random(8)
    network = NASRecNetwork(supernet_shape(space.shape))
    dense, pooled = torch.randn(2, 1), torch.randn(2, 3, 16)
    for choice in [space.full_path(random), *(space.sample(random) for _ in range(30))]:
        assert network(dense, pooled, choice).isfinite().all()
        assert network(dense, pooled, space.canonical(choice)).isfinite().all()


@pytest.mark.parametrize("max_macs", [800, 1500, 20_000])
def test_a_budget_is_kept_however_tight(max_macs: int):
    space, random = space_of(max_macs=max_macs), Random(9)
    choices = [space.sample(random) for _ in range(30)]
    choices += [space.mutate(choice, random) for choice in choices]
    choices += [space.crossover(choices[0], choice, random) for choice in choices[1:]]
    assert max(space.cost(choice).macs for choice in choices) <= max_macs
    assert len({space.key(choice) for choice in choices}) > 20


def test_a_budget_below_the_smallest_network_is_refused_with_its_size():
    everything = space_of()
    least = min(everything.cost(everything.sample(Random(seed))).macs for seed in range(300))
    with pytest.raises(
        ConfigError, match="max_macs: found 10; the smallest network of the space takes ([0-9,]+)"
    ) as raised:
        space_of(max_macs=10)
    smallest = int(str(raised.value).split("takes ")[1].split()[0].replace(",", ""))
    # One raw number summed to 4 columns; 3 tokens to 4; a logit of 4 + 4 x 16.
    assert smallest == 1 * 4 + 16 * 3 * 4 + 4 + 4 * 16
    assert smallest == everything.cost(everything.cheapest).macs
    assert smallest <= least
    assert space_of(max_macs=smallest).cost(space_of(max_macs=smallest).sample(Random(1))).macs == smallest


def test_winners_are_members_but_for_their_layer_norm():
    full, small = (CTRSpace(CTRSpaceConfig(menu=menu), CRITEO) for menu in ("full", "small"))
    tree = WINNERS["criteo-full"].choice.model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"layer_norm: found False; allowed: \(True,\)"):
        full.parse(tree)
    assert full.parse(tree | {"layer_norm": True}).blocks == WINNERS["criteo-full"].choice.blocks
    with pytest.raises(ConfigError) as raised:
        small.parse(tree | {"layer_norm": True})
    assert "blocks.0.dense_op: found gating; allowed: ('fc', 'dot')" in str(raised.value)
    assert "blocks.0.sparse_op: found attention; allowed: ('efc',)" in str(raised.value)


def test_tables_are_as_wide_as_the_space_says():
    choices = [space_of(field_dims=(16,)).sample(Random(seed)) for seed in range(20)]
    assert {choice.field_dims for choice in choices} == {(16, 16, 16)}
    narrow = space_of(field_dims=(4, 8))
    widths = {width for seed in range(20) for width in narrow.sample(Random(seed)).field_dims or ()}
    assert widths == {4, 8}
    tree = {"blocks": [{"dense_width": 4, "num_tokens": 4}]}
    with pytest.raises(ConfigError, match=r"field_dims: found None; allowed: \(4, 8\)"):
        narrow.parse(tree)
    assert space_of().parse(tree).field_dims is None


def test_operators_and_the_rest_of_the_menu_are_as_the_space_says():
    space = space_of(dense_ops=("cross", "sum"), sparse_ops=("attention",), layer_norms=(False,), flat_tokens=(True,))
    choices = [space.sample(Random(seed)) for seed in range(30)]
    assert {block.dense_op for choice in choices for block in choice.blocks} == {"cross", "sum"}
    assert {block.sparse_op for choice in choices for block in choice.blocks} == {"attention"}
    assert {(choice.layer_norm, choice.flat_tokens) for choice in choices} == {(False, True)}
    for choice in choices:
        assert space.parse(choice.model_dump(mode="json")) == choice
    tree = {"layer_norm": False, "flat_tokens": True, "blocks": [{"dense_width": 4, "num_tokens": 4}]}
    with pytest.raises(ConfigError, match=r"blocks.0.dense_op: found fc; allowed: \('cross', 'sum'\)"):
        space.parse(tree)


def test_the_smallest_network_of_a_budget_has_operators_of_the_space():
    block = {"dense_width": 4, "num_tokens": 4}
    by_efc, by_attention = space_of(sparse_ops=("efc",)), space_of(sparse_ops=("attention",))
    smallest = by_efc.cost(by_efc.parse({"blocks": [block]})).macs
    larger = by_attention.cost(by_attention.parse({"blocks": [block | {"sparse_op": "attention"}]})).macs
    assert smallest < larger
    with pytest.raises(ConfigError, match=f"the smallest network of the space takes {larger:,} multiply-adds"):
        space_of(sparse_ops=("attention",), max_macs=smallest)
    assert space_of(max_macs=smallest).cost(space_of(max_macs=smallest).sample(Random(1))).macs <= smallest


def test_the_canonical_form_is_a_member():
    space, random = space_of(), Random(10)
    for _ in range(50):
        form = space.canonical(space.sample(random))
        assert space.parse(form.model_dump(mode="json")) == form


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": [{"dense_width": 5, "num_tokens": 4}]}, "blocks.0.dense_width: found 5; allowed: (4, 8, 16)"),
        ({"blocks": [{"dense_width": 4, "num_tokens": 4, "left": 1}]}, "blocks.0.left: found 1"),
        ({"blocks": [{"dense_width": 4, "num_tokens": 4}] * 4}, "blocks: found 4 blocks; allowed: at most 3"),
        ({"embedding_dim": 8}, "embedding_dim: found 8; allowed: 16"),
        ({"field_dims": [4, 12, 4]}, "field_dims.1: found 12; allowed: (4, 8, 16)"),
        ({"field_dims": [4, 4]}, "field_dims: found 2 widths; allowed: one for each of the data set's 3 id features"),
        ({"field_dims": [4, 4, 8]}, "field_dims: found 8 for 'c', whose table 'item' is 4 wide"),
        ({"width": 3}, "width: unknown key"),
    ],
)
def test_what_is_no_member_is_refused_by_its_key(changes: dict[str, object], message: str):
    tree = {"blocks": [{"dense_width": 4, "num_tokens": 4}]} | changes
    with pytest.raises(ConfigError) as raised:
        space_of().parse(tree)
    assert message in str(raised.value)
    with pytest.raises(ConfigError, match="a choice is keys and values; found list"):
        space_of().parse([tree])


def test_a_choice_over_the_budget_is_refused():
    tree = {"blocks": [{"dense_width": 16, "num_tokens": 6, "dense_to_sparse": True}]}
    assert space_of().parse(tree).blocks[0].dense_to_sparse
    with pytest.raises(ConfigError, match="the choice takes .* multiply-adds; allowed: max_macs = 1,000"):
        space_of(max_macs=1000).parse(tree)


def protocol_is_met(space: CTRSpace) -> Space[NASRecConfig]:
    return space
