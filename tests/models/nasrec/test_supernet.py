from random import Random

import pytest
import torch

from raysparse.data.schema import DenseFeature, IdFeature, Schema
from raysparse.models import build_model
from raysparse.models.nasrec.canonical import uses_of
from raysparse.models.nasrec.menu import CTRSpaceConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.shape import supernet_shape
from raysparse.models.nasrec.supernet import NASRecSupernet, NASRecSupernetConfig, shape_of, widest_path
from raysparse.search.ctr_space import CTRSpace
from tests.models.nasrec.draws import draw_head

SPACE = CTRSpaceConfig(menu="wide", num_blocks=3, dense_widths=(4, 8), token_counts=(4, 8), embedding_dim=8)
SCHEMA = Schema(
    dense=(DenseFeature(name="x"), DenseFeature(name="y", optional=True)),
    ids=tuple(IdFeature(name=name, rows=10) for name in ("a", "b", "c", "d")),
)


def supernet(space: CTRSpaceConfig = SPACE) -> NASRecSupernet:
    torch.manual_seed(1)
    head = NASRecSupernet(NASRecSupernetConfig(space=space), num_dense=3, num_features=4)
    draw_head(head.network)
    return head


def test_the_widest_path_is_a_choice_of_the_space_that_uses_all_blocks_at_full_width():
    for space in (SPACE, CTRSpaceConfig(), CTRSpaceConfig(menu="small", num_blocks=6, max_inputs=2)):
        choice = widest_path(space)
        assert CTRSpace(space, SCHEMA).parse(choice.model_dump(mode="json")) == choice
        assert len(choice.blocks) == space.num_blocks
        assert all(use.dense_read and use.sparse_read for use in uses_of(choice))
        last = choice.blocks[-1]
        assert (last.dense_width, last.num_tokens) == (max(space.choices.dense_widths), max(space.choices.token_counts))
        inputs = tuple(range(max(0, space.num_blocks - space.max_inputs), space.num_blocks))
        assert last.dense_inputs == last.sparse_inputs == inputs


def test_a_supernet_predicts_with_the_choice_that_is_set():
    head, space = supernet(), CTRSpace(SPACE, SCHEMA)
    dense, pooled = torch.randn(5, 3), torch.randn(5, 4, 8)
    assert head.choices == (widest_path(SPACE),)
    for seed in range(5):
        head.choices = (space.sample(Random(seed)),)
        torch.testing.assert_close(head(dense, pooled), head.network(dense, pooled, head.choices[0]), rtol=0, atol=0)
    first = head(dense, pooled)
    head.choices = (space.sample(Random(99)),)
    assert not torch.equal(head(dense, pooled), first)


def test_its_shape_has_weights_for_every_choice_of_the_space():
    head, space = supernet(), CTRSpace(SPACE, SCHEMA)
    parameters = dict(head.named_parameters())
    used: set[str] = set()
    for seed in range(200):
        head.choices = (space.sample(Random(seed)),)
        for name, part in head.active_slices().items():
            assert all(cut.stop <= size for cut, size in zip(part, parameters[name].shape, strict=False))
            used.add(name)
    # And none for nothing.
    assert used == set(parameters)


@pytest.mark.parametrize("num_choices", [1, 3])
def test_active_slices_are_what_gets_a_gradient(num_choices: int):
    head, space = supernet(), CTRSpace(SPACE, SCHEMA)
    dense, pooled = torch.randn(16, 3), torch.randn(16, 4, 8)
    for seed in range(40):
        head.choices = tuple(space.sample(Random(f"{seed}/{number}")) for number in range(num_choices))
        head.zero_grad()
        torch.stack([head(dense, pooled, choice) for choice in head.choices]).square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}
        slices = head.active_slices()
        assert set(gradients) == set(slices)
        for name, part in slices.items():
            gradients[name][part] = 0
            assert not gradients[name].any()


def test_narrow_tables_are_no_wider_than_a_token():
    assert SPACE.choices.field_dims == (4, 8)
    assert CTRSpaceConfig(menu="full").choices.field_dims == ()


def test_a_supernet_is_a_model_of_a_job():
    model = build_model(NASRecSupernetConfig(space=SPACE), SCHEMA, seed=1)
    assert isinstance(model.head, NASRecSupernet)
    assert {config.embedding_dim for config in model.tables.embedding_bag_configs()} == {8}
    shape = supernet_shape(shape_of(SPACE, SCHEMA.num_dense_inputs, 4))
    expected = {name: p.shape for name, p in NASRecNetwork(shape).named_parameters(prefix="network")}
    assert {name: p.shape for name, p in model.head.named_parameters()} == expected
