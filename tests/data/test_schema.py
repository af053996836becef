import pytest
from pydantic import ValidationError

from raysparse.data.schema import IdFeature, Schema
from raysparse.models import build_model
from raysparse.models.dlrm import DLRMConfig


def test_columns_may_have_any_name():
    names = ("type", "items", "half", "user.id", "user")
    schema = Schema(ids=tuple(IdFeature(name=name, rows=10) for name in names))
    model = build_model(DLRMConfig(kind="dlrm", embedding_dim=4, bottom=(4,), top=(4,)), schema, seed=1)
    tables = [config.name for config in model.tables.embedding_bag_configs()]
    assert tables == ["type_table", "items_table", "half_table", "user_id_table", "user"]
    assert model.features == names


def test_a_shared_table_keeps_its_name_and_size():
    shared = (IdFeature(name="last", rows=10, table="item"), IdFeature(name="item", rows=10))
    assert [feature.table_name for feature in Schema(ids=shared).ids] == ["item", "item"]
    with pytest.raises(ValidationError, match="one size for the shared table 'item'"):
        Schema(ids=(shared[0], IdFeature(name="item", rows=11)))


def test_names_that_come_to_the_same_table_are_refused():
    with pytest.raises(ValidationError, match="'a_b_table' and 'a.b' come to the same"):
        Schema(ids=(IdFeature(name="a.b", rows=10), IdFeature(name="a_b_table", rows=10)))
