import dataclasses
from collections.abc import Callable
from random import Random

import pytest
import torch
from torch import Tensor, nn

from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.export import export_subnet
from raysparse.models.nasrec.masked import MaskedNetwork
from raysparse.models.nasrec.network import NASRec, NASRecNetwork
from raysparse.models.nasrec.operators import Attention
from raysparse.models.nasrec.shape import SupernetShape, supernet_shape
from tests.models.nasrec.draws import SHAPE, draw_choice, draw_head, draw_network, draw_rows
from tests.models.nasrec.winners import WINNERS

NETWORK = draw_network(seed=1)
ROWS = draw_rows(seed=2)
DENSE, POOLED = ROWS


def one_block(**fields: object) -> NASRecConfig:
    block = BlockChoice.model_validate({"dense_width": 8, "num_tokens": 4, **fields})
    return NASRecConfig(embedding_dim=4, blocks=(block,), layer_norm=False)


def weight(network: NASRec, name: str) -> Tensor:
    return network.network.get_parameter(f"blocks.0.{name}.weights.whole").detach()


def bias(network: NASRec, name: str) -> Tensor:
    return network.network.get_parameter(f"blocks.0.{name}.bias").detach()


@torch.no_grad()
def outputs(network: NASRec) -> tuple[Tensor, Tensor]:
    """What the last block gives to the head: dense `[B, W]`, tokens `[B, T, 4]`."""
    features, columns = network.network.features(*ROWS, network.choice)
    width = columns[0][1]
    return features[:, :width], features[:, width:].unflatten(1, (-1, 4))


def test_sliced_and_masked_networks_are_equal():
    masked, random = MaskedNetwork(NETWORK), Random(3)
    for _ in range(200):
        choice = draw_choice(random)
        with torch.no_grad():
            torch.testing.assert_close(NETWORK(*ROWS, choice), masked(*ROWS, choice), rtol=1e-9, atol=1e-9)


def test_sliced_masked_and_exported_networks_are_equal_at_full_size():
    shape = SupernetShape(13, 26, embedding_dim=16, num_blocks=7, dense_width=1024, num_tokens=64, layer_norms=(False,))
    torch.manual_seed(1)
    network = NASRecNetwork(supernet_shape(shape))
    draw_head(network)
    rows = draw_rows(3, shape, num_rows=2, dtype=torch.float32)
    masked = MaskedNetwork(network)
    for name in ("criteo-small", "criteo-full"):
        choice = WINNERS[name].choice
        with torch.no_grad():
            logits = network(*rows, choice)
            torch.testing.assert_close(masked(*rows, choice), logits, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(export_subnet(network, choice)(*rows), logits, rtol=1e-6, atol=1e-6)


def squared_gradients(network: nn.Module) -> float:
    return sum(float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None)


def test_a_choice_alone_learns_as_it_does_in_the_supernet():
    random = Random(11)
    for _ in range(20):
        choice = draw_choice(random)
        alone = export_subnet(NETWORK, choice)
        inputs = [POOLED.clone().requires_grad_() for _ in range(2)]
        NETWORK.zero_grad()
        NETWORK(DENSE, inputs[0], choice).square().sum().backward()
        alone(DENSE, inputs[1]).square().sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
        assert squared_gradients(NETWORK) == pytest.approx(squared_gradients(alone))
        assert all(parameter.grad is not None for parameter in alone.parameters())


def test_a_shorter_choice_takes_the_last_blocks():
    random = Random(4)
    for _ in range(10):
        choice = draw_choice(random, num_blocks=3)
        dead = BlockChoice(dense_width=8, num_tokens=4)
        moved = [
            block.model_copy(
                update={
                    "dense_inputs": tuple(n + 2 if n else 0 for n in block.dense_inputs),
                    "sparse_inputs": tuple(n + 2 if n else 0 for n in block.sparse_inputs),
                    "left": block.left + 2 if block.left else 0,
                    "right": block.right + 2 if block.right else 0,
                }
            )
            for block in choice.blocks
        ]
        longer = choice.model_copy(update={"blocks": (dead, dead, *moved)})
        torch.testing.assert_close(NETWORK(*ROWS, choice), NETWORK(*ROWS, longer), rtol=0, atol=0)


@pytest.mark.parametrize(("operator", "factor"), [("gating", torch.sigmoid), ("cross", torch.positive)])
def test_gating_and_cross_are_the_formula_with_zeros_filled_up(operator: str, factor: Callable[[Tensor], Tensor]):
    # Left is 8 wide, right 5: A would be 8 x 8, P 16 x 8; the network has what meets no zero.
    first = BlockChoice(dense_width=8, num_tokens=4)
    last = first.model_copy(update={"dense_op": operator, "dense_width": 16, "left": 1})
    network = large(NASRec(NASRecConfig(embedding_dim=4, blocks=(first, last), layer_norm=False), 5, 6))
    blocks = network.network.get_submodule("blocks.1")
    gate, gate_bias, project = (
        blocks.get_parameter(f"dense_ops.{operator}.{name}").detach()
        for name in ("gate.weights.whole", "gate.bias", "project.weights.whole")
    )
    assert gate.shape == (5, 8)
    assert project.shape == (16, 5)
    left = torch.relu(DENSE @ weight(network, "dense_ops.fc.project").T + bias(network, "dense_ops.fc.project"))
    full_gate, full_project, right = torch.randn(8, 8).double(), torch.randn(16, 8).double(), torch.zeros(5, 8).double()
    full_gate[:5], full_project[:, :5], right[:, :5] = gate, project, DENSE
    full_bias = torch.cat([gate_bias, torch.randn(3).double()])
    gated = factor(left @ full_gate.T + full_bias) * right
    expected = gated @ full_project.T + blocks.get_parameter(f"dense_ops.{operator}.project.bias").detach()
    torch.testing.assert_close(outputs(network)[0], expected)


def test_sum_adds_and_skips_its_map_where_the_width_is_right():
    network = large(NASRec(one_block(dense_op="sum", dense_width=5), 5, 6))
    torch.testing.assert_close(outputs(network)[0], 2 * DENSE)
    network = large(NASRec(one_block(dense_op="sum", dense_width=8), 5, 6))
    project = "dense_ops.sum.project"
    torch.testing.assert_close(outputs(network)[0], 2 * DENSE @ weight(network, project).T + bias(network, project))


def test_dot_projects_the_products_of_all_pairs():
    network = large(NASRec(one_block(dense_op="dot", dense_width=8), 5, 6))
    vector, compress, project = (f"dense_ops.dot.{name}" for name in ("vector", "compress", "project"))
    first = DENSE @ weight(network, vector).T + bias(network, vector)
    tokens = torch.einsum("kt,btd->bkd", weight(network, compress), POOLED) + bias(network, compress).unsqueeze(1)
    vectors = torch.cat([first.unsqueeze(1), tokens], dim=1)
    assert vectors.shape[1] == 1 + 4  # round(sqrt(2 * 8))
    pairs = [(vectors[:, i] * vectors[:, j]).sum(1) for i in range(5) for j in range(i)]
    expected = torch.stack(pairs, dim=1) @ weight(network, project).T + bias(network, project)
    torch.testing.assert_close(outputs(network)[0], expected)


def test_efc_maps_across_the_tokens():
    network = large(NASRec(one_block(), 5, 6))
    project = "sparse_ops.efc.project"
    mapped = torch.einsum("nt,btd->bnd", weight(network, project), POOLED) + bias(network, project).unsqueeze(1)
    torch.testing.assert_close(outputs(network)[1], torch.relu(mapped))


def test_attention_is_that_of_torch_with_heads_of_two():
    network = large(NASRec(one_block(sparse_op="attention", num_tokens=3), 5, 6))
    operator = network.network.get_submodule("blocks.0.sparse_ops.attention")
    assert isinstance(operator, Attention)
    attention = nn.MultiheadAttention(4, num_heads=2, batch_first=True).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            attention.get_parameter(f"in_proj_{name}").copy_(operator.query_key_value.get_parameter(name))
        attention.out_proj.load_state_dict(operator.out.state_dict())
        project = "sparse_ops.attention.project"
        tokens = torch.einsum("nt,btd->bnd", weight(network, project), POOLED) + bias(network, project).unsqueeze(1)
        attended = operator.attended_norm(tokens + attention(tokens, tokens, tokens)[0])
        expected = operator.feed_forward_norm(attended + operator.feed_forward(attended))
    torch.testing.assert_close(outputs(network)[1], expected)


def test_the_first_weights_are_as_published_but_for_the_head():
    torch.manual_seed(1)
    block = BlockChoice(sparse_op="attention", dense_width=1024, num_tokens=64)
    network = NASRec(NASRecConfig(blocks=(block,), layer_norm=False), 13, 26).network
    operator = network.get_submodule("blocks.0.sparse_ops.attention")
    assert isinstance(operator, Attention)
    for norm in (operator.attended_norm, operator.feed_forward_norm):
        assert torch.equal(norm.weight, torch.full((16,), 0.17))
    fully = network.get_parameter("blocks.0.dense_ops.fc.project.weights.whole").detach()
    bound = (6 / (13 + 1024)) ** 0.5
    assert float(fully.abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(fully.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not any(weight.any() for weight in network.logit.weights.values())
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert biases
    assert not any(p.any() for p in biases)


def test_the_factorization_machine_stays_out_of_the_merged_tokens():
    # 32 outputs are 8 tokens of 4 as they stand: the dense output and the merged tokens are the same numbers.
    network = large(NASRec(one_block(dense_width=32, dense_to_sparse=True, fm=True), 5, 6))
    dense, tokens = outputs(network)
    project = "dense_ops.fc.project"
    operator = torch.relu(DENSE @ weight(network, project).T + bias(network, project))
    torch.testing.assert_close(tokens[:, 4:].flatten(1), operator)
    kept = tokens[:, :4]
    products = kept.sum(1).square() - kept.square().sum(1)
    torch.testing.assert_close(
        dense, operator + products @ weight(network, "fm.project").T + bias(network, "fm.project")
    )


def test_layer_norm_is_over_the_active_part():
    choice = one_block(dense_op="sum", dense_width=16).model_copy(update={"layer_norm": True})
    alone = export_subnet(NETWORK, choice)
    with torch.no_grad():
        alone.network.get_parameter("blocks.0.dense_ops.sum.project.norm_weight").fill_(1.0)
        alone.network.get_parameter("blocks.0.dense_ops.sum.project.norm_bias").fill_(0.0)
    dense = outputs(alone)[0]
    torch.testing.assert_close(dense.mean(1), torch.zeros(5).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(dense.var(1, correction=0), torch.ones(5).double(), rtol=1e-3, atol=1e-3)


def test_a_narrow_field_is_its_first_columns():
    choice = draw_choice(Random(8), num_blocks=3)
    narrow = choice.model_copy(update={"embedding_dim": 8, "field_dims": (4, 8, 4, 8, 8, 8)})
    wide = dataclasses.replace(SHAPE, embedding_dim=8)
    network, (dense, pooled) = draw_network(5, wide), draw_rows(6, wide)
    cut = pooled.clone()
    cut[:, [0, 2], 4:] = 0.0
    logits = network(dense, pooled, narrow)
    torch.testing.assert_close(logits, network(dense, cut, narrow.model_copy(update={"field_dims": None})))
    assert not torch.allclose(logits, network(dense, pooled, narrow.model_copy(update={"field_dims": None})))
    torch.testing.assert_close(MaskedNetwork(network)(dense, pooled, narrow), logits)
    torch.testing.assert_close(export_subnet(network, narrow)(dense, pooled), logits)


def test_flat_tokens_are_raw_dense_inputs_as_well():
    choice = draw_choice(Random(8), num_blocks=3).model_copy(update={"flat_tokens": True})
    plain = choice.model_copy(update={"flat_tokens": False})
    alone = NASRec(choice, 5, 6).double()
    beside = NASRec(plain, 5 + 6 * 4, 6).double()
    draw_head(alone.network)
    beside.load_state_dict(alone.state_dict())
    joined = torch.cat([DENSE, POOLED.flatten(1)], dim=1)
    torch.testing.assert_close(alone(DENSE, POOLED), beside(joined, POOLED), rtol=0, atol=0)
    assert not torch.allclose(NETWORK(*ROWS, choice), NETWORK(*ROWS, plain))


def test_no_dense_features_are_possible():
    shape = dataclasses.replace(SHAPE, num_dense=0)
    network, rows, random = draw_network(7, shape), draw_rows(8, shape), Random(9)
    for _ in range(30):
        choice = draw_choice(random, shape)
        logits = network(*rows, choice)
        assert logits.isfinite().all()
        torch.testing.assert_close(export_subnet(network, choice)(*rows), logits)


def test_an_export_has_weights_of_its_own():
    choice = draw_choice(Random(2))
    alone = export_subnet(NETWORK, choice)
    before = NETWORK(*ROWS, choice).detach()
    with torch.no_grad():
        for parameter in alone.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(NETWORK(*ROWS, choice), before, rtol=0, atol=0)


def large(network: NASRec) -> NASRec:
    """A network with weights far from zero, in double precision."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.double().parameters():
            parameter.normal_(std=0.5)
    return network
