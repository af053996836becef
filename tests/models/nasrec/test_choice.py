import pytest
import yaml

from raysparse.config import Tree, check
from raysparse.errors import ConfigError
from raysparse.job import TrainJob
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from tests.models.nasrec.winners import WINNERS

BLOCK = {"dense_width": 8, "num_tokens": 4}


@pytest.mark.parametrize("name", WINNERS)
def test_a_choice_goes_to_yaml_and_back(name: str):
    choice = WINNERS[name].choice
    text = yaml.safe_dump(choice.model_dump(mode="json"))
    assert check(NASRecConfig, yaml.safe_load(text), "choice.yaml") == choice


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            {"dense_inputs": [0, 2]},
            "blocks.1.dense_inputs: found [0, 2]; allowed: 0 (the raw input) to 1: block 2 reads only what",
        ),
        ({"sparse_inputs": [-1]}, "blocks.1.sparse_inputs: found [-1]; allowed: 0 (the raw input) to 1"),
        (
            {"dense_inputs": []},
            "blocks.1.dense_inputs: found []; allowed: at least one input, which fc of block 2 reads",
        ),
        ({"sparse_inputs": []}, "blocks.1.sparse_inputs: found []; allowed: at least one input, which efc of block 2"),
        ({"dense_inputs": [0, 0]}, "blocks.1.dense_inputs: found [0, 0]; allowed: each input of block 2 once"),
        ({"sparse_inputs": [0, 1, 2, 3, 4]}, "allowed: at most 4 inputs of block 2"),
        ({"left": 2}, "blocks.1.left: found 2; allowed: 0 (the raw input) to 1"),
        ({"dense_op": "mul"}, "blocks.1.dense_op: found \"mul\"; allowed: 'fc', 'dot', 'gating', 'sum' or 'cross'"),
        ({"dense_width": 0}, "blocks.1.dense_width: found 0; allowed: greater than or equal to 1"),
    ],
)
def test_an_impossible_block_is_refused_by_its_key(second: Tree, message: str):
    with pytest.raises(ConfigError) as raised:
        check(NASRecConfig, {"blocks": [BLOCK, BLOCK | second]}, "choice.yaml")
    assert message in str(raised.value)


def test_gates_need_no_dense_inputs():
    gates = BLOCK | {"dense_op": "gating", "dense_inputs": []}
    choice = check(NASRecConfig, {"blocks": [gates]}, "choice.yaml")
    assert choice.blocks == (BlockChoice(dense_op="gating", dense_width=8, num_tokens=4, dense_inputs=()),)


def test_every_fault_of_a_job_is_listed_with_its_key():
    model = {"kind": "nasrec", "field_dims": [16, 32, 6], "blocks": [BLOCK | {"right": 1, "sparse_inputs": [1]}]}
    with pytest.raises(ConfigError) as raised:
        check(TrainJob, {"kind": "train", "data": {"path": "data"}, "model": model}, "job.yaml")
    text = str(raised.value)
    for key in ("model.blocks.0.right", "model.blocks.0.sparse_inputs", "model.field_dims.1", "model.field_dims.2"):
        assert f"  {key}: found" in text
    assert "model.field_dims.1: found 32; allowed: a multiple of 4 of at most embedding_dim (16)" in text
    assert "model.field_dims.0" not in text
