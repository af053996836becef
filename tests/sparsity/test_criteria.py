import pytest
import torch

from raysparse.models.groups import groups_of
from raysparse.sparsity.criteria import magnitude, mask_gradients, mix, outgoing_energies
from raysparse.sparsity.pruner import mask_open, write_masks
from tests.sparsity.heads import CASES, batch_of, head_layout, loss_of, random_masks


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pruned", [False, True])
def test_the_gradient_of_a_mask_is_the_change_of_the_loss(case: str, pruned: bool):
    head, layout = head_layout(case)
    mask_open(head)
    if pruned:
        write_masks(head, random_masks(layout, 5))
    head.double()
    batch = batch_of(*CASES[case], dtype=torch.double)
    loss_of(head, batch).backward()
    gradients = mask_gradients(head)
    step = 1e-6
    for name, place in groups_of(head).items():
        assert place.mask is not None
        for group in range(place.num_groups):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    place.mask[group] += sign * step
                    losses.append(loss_of(head, batch).item())
                    place.mask[group] -= sign * step
            assert gradients[name][group].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-7)


def test_a_head_without_a_backward_pass_has_gradients_of_zero():
    head, layout = head_layout("dcn")
    mask_open(head)
    assert all(not gradient.any() for gradient in mask_gradients(head).values())


def test_magnitude_is_the_root_of_the_norms_in_and_out():
    head, _ = head_layout("dlrm")
    scores = magnitude(head)
    incoming = head.get_parameter("top.0.0.weight")
    outgoing = head.get_parameter("top.0.3.weight")
    expected = (incoming[2].norm() * outgoing[:, 2].norm()).sqrt()
    torch.testing.assert_close(scores["top.0.2"][2], expected.detach())
    # Pair 3 is read behind the 4 outputs of the bottom network, and nothing learned makes it.
    torch.testing.assert_close(scores["pairs"][3], incoming[:, 4 + 3].norm().detach())


def test_magnitude_does_not_depend_on_where_a_neurons_scale_is():
    head, _ = head_layout("dlrm")
    before = magnitude(head)["top.0.2"]
    with torch.no_grad():
        head.get_parameter("top.0.0.weight")[2] /= 2
        head.get_parameter("top.0.3.weight")[:, 2] *= 2
    torch.testing.assert_close(magnitude(head)["top.0.2"], before)


def test_energy_of_a_field_is_that_of_its_columns():
    head, _ = head_layout("dcn")
    weight = head.get_parameter("deep.0.weight")
    # 3 dense inputs stand before the fields of 4 columns.
    torch.testing.assert_close(outgoing_energies(head)["fields"][1], weight[:, 7:11].square().sum().detach())


def test_a_mix_is_a_geometric_mean_free_of_scale():
    first = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([8.0])}
    second = {"a": torch.tensor([2.0, 2.0]), "b": torch.tensor([2.0])}
    mixed = mix(first, second, 0.5)
    assert mixed["a"].tolist() == pytest.approx([0.25**0.5, 0.75**0.5])
    assert mixed["b"].tolist() == pytest.approx([2**0.5])
    scaled = mix({place: 100 * score for place, score in first.items()}, second, 0.5)
    torch.testing.assert_close(scaled["a"], mixed["a"])
    torch.testing.assert_close(mix(first, second, 0.0)["a"], torch.ones(2))
    assert mix({"a": torch.zeros(2)}, {"a": torch.ones(2)}, 0.5)["a"].tolist() == [0.0, 0.0]
