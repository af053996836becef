import pytest
import torch
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from raysparse.cost.record import cost_of
from raysparse.data.schema import IdFeature, Schema
from raysparse.errors import ConfigError
from raysparse.models import build_model
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.network import NASRec
from raysparse.models.recommender import embedding_tables, stack_pooled
from tests.models.nasrec.draws import draw_head

SCHEMA = Schema(
    ids=(
        IdFeature(name="a", rows=10, table="shared"),
        IdFeature(name="b", rows=20),
        IdFeature(name="c", rows=10, table="shared", multi_valued=True),
    )
)
BLOCKS = (BlockChoice(dense_op="dot", dense_width=4, num_tokens=4),)


def narrow(*field_dims: int) -> NASRecConfig:
    return NASRecConfig(embedding_dim=8, field_dims=field_dims, blocks=BLOCKS)


def test_narrow_embeddings_are_filled_up_with_zeros_whatever_the_order_of_the_look_up():
    a, b, c = torch.randn(2, 4), torch.randn(2, 8), torch.randn(2, 4)
    shuffled = KeyedTensor(["c", "a", "b"], [4, 4, 8], torch.cat([c, a, b], dim=1))
    stacked = stack_pooled(shuffled, ("a", "b", "c"), 8)
    assert stacked.shape == (2, 3, 8)
    for field, values in enumerate((a, b, c)):
        torch.testing.assert_close(stacked[:, field, : values.shape[1]], values)
        assert not stacked[:, field, values.shape[1] :].any()


def test_tables_that_are_all_narrow_are_filled_up_as_well():
    pooled = KeyedTensor(["a", "b"], [4, 4], torch.ones(1, 8))
    assert stack_pooled(pooled, ("a", "b"), 8)[0].sum(1).tolist() == [4, 4]


def test_a_model_of_narrow_tables_looks_up_and_learns():
    model = build_model(narrow(4, 8, 4), SCHEMA, seed=1)
    assert {config.name: config.embedding_dim for config in model.tables.embedding_bag_configs()} == {
        "shared": 4,
        "b": 8,
    }
    assert isinstance(model.head, NASRec)
    draw_head(model.head.network)
    model.tables = EmbeddingBagCollection(tables=model.tables.embedding_bag_configs(), device=torch.device("cpu"))
    lengths = torch.tensor([1, 1, 1, 1, 2, 0])
    ids = KeyedJaggedTensor(["a", "b", "c"], torch.tensor([1, 2, 3, 4, 1, 5]), lengths=lengths)
    pooled = model.look_up(ids)
    shared = model.tables.get_parameter("embedding_bags.shared.weight")
    torch.testing.assert_close(pooled[0, 2, :4], shared[1] + shared[5])
    assert not pooled[:, [0, 2], 4:].any()
    model(torch.zeros(2, 0), ids).sum().backward()
    assert shared.grad is not None
    assert shared.grad[[1, 2, 5]].any(1).all()
    assert not shared.grad[[0, 3, 4]].any()


def test_the_cost_counts_every_table_at_its_width():
    cost = cost_of(build_model(narrow(4, 8, 4), SCHEMA, seed=1), SCHEMA)
    assert cost.embedding_bytes == 4 * (10 * 4 + 20 * 8)
    assert cost.macs == cost_of(build_model(narrow(8, 8, 8), SCHEMA, seed=1), SCHEMA).macs


def test_widths_that_do_not_fit_the_features_are_refused():
    with pytest.raises(
        ConfigError, match=r"found 2 widths; allowed: one for each of the data set's 3 id features.*a, b"
    ):
        build_model(narrow(4, 8), SCHEMA, seed=1)
    with pytest.raises(ConfigError, match="found 8 for 'c', whose table 'shared' is 4 wide for another feature"):
        embedding_tables(SCHEMA, 8, (4, 8, 8))
