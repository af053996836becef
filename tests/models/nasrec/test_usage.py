from random import Random

from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.usage import used_slices
from tests.models.nasrec.draws import draw_choice, draw_network, draw_rows

NETWORK = draw_network(seed=1)
ROWS = draw_rows(seed=2)


def test_only_what_a_choice_uses_gets_a_gradient():
    last = BlockChoice(dense_width=8, num_tokens=4, dense_inputs=(0, 2), sparse_inputs=(0,))
    dead = BlockChoice(dense_width=8, num_tokens=4)
    choice = NASRecConfig(embedding_dim=4, layer_norm=True, blocks=(dead, dead, dead, dead, last))
    NETWORK.zero_grad()
    NETWORK(*ROWS, choice).sum().backward()
    learned = {name: p.grad for name, p in NETWORK.named_parameters() if p.grad is not None}
    fc, efc = "dense_ops.fc.project", "sparse_ops.efc.project"
    assert set(learned) == {
        f"blocks.1.{fc}.weights.0",
        f"blocks.1.{fc}.norm_weight",
        f"blocks.1.{fc}.norm_bias",
        f"blocks.4.{fc}.weights.0",
        f"blocks.4.{fc}.weights.2",
        f"blocks.4.{fc}.norm_weight",
        f"blocks.4.{fc}.norm_bias",
        f"blocks.4.{efc}.weights.0",
        f"blocks.4.{efc}.norm_weight",
        f"blocks.4.{efc}.norm_bias",
        "logit.weights.dense",
        "logit.weights.tokens",
        "logit.bias",
    }
    gradient = learned[f"blocks.4.{fc}.weights.2"]
    assert gradient.shape == (32, 32)
    assert gradient[:8, :8].any()
    assert not gradient[8:].any()
    assert not gradient[:, 8:].any()


def test_the_used_slices_are_those_that_get_a_gradient():
    random = Random(12)
    for _ in range(60):
        choice = draw_choice(random)
        NETWORK.zero_grad()
        NETWORK(*ROWS, choice).square().sum().backward()
        gradients = {name: p.grad for name, p in NETWORK.named_parameters() if p.grad is not None}
        slices = used_slices(NETWORK, choice)
        assert set(gradients) == set(slices)
        for name, part in slices.items():
            inside = gradients[name][part]
            assert inside.shape == tuple(
                size if cut >= len(part) else part[cut].stop for cut, size in enumerate(gradients[name].shape)
            )
            inside.zero_()
            assert not gradients[name].any()
