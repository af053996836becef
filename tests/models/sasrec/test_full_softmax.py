import pytest
import torch
from torch import Tensor

from raysparse.models.sasrec import full_softmax as module
from raysparse.models.sasrec.full_softmax import full_softmax, full_softmax_teacher
from raysparse.models.sasrec.losses import divergence

NUM_ITEMS, WIDTH, COUNT = 9, 4, 6
TARGETS = torch.tensor([1, 9, 3, 3, 7, 2])
PLACES = torch.tensor([0, 2, 3, 5, 8, 11])
"""Of the targets among a teacher's, which has more of them."""


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(COUNT, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True),
        torch.randn(NUM_ITEMS + 1, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True),
    )


@pytest.fixture(params=["whole", "parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores at once, or those of two targets at a time, of one in the end."""
    if request.param == "parts":
        monkeypatch.setattr(module, "_SCORES_AT_A_TIME", {"cpu": 20})
        monkeypatch.setattr(module, "_TARGETS_AT_A_TIME", 1)
        monkeypatch.setattr(module, "_TEACHER_SCORES", 25)


def plain(encoded: Tensor, items: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(encoded @ items[1:].T, TARGETS - 1, reduction="sum")


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    """Of a multiple of the loss."""
    return torch.autograd.grad(0.25 * loss, of)


@pytest.mark.usefixtures("parts")
def test_losses_and_gradients_are_those_of_the_cross_entropy(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    found, expected = full_softmax(encoded, items, TARGETS), plain(encoded, items)
    torch.testing.assert_close(found, expected)
    of_encoded, of_items = gradients(found, *drawn)
    assert not of_items[0].any()
    for one, other in zip((of_encoded, of_items), gradients(expected, *drawn), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("parts")
def test_a_teacher_adds_its_divergence_and_learns_nothing(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    with torch.no_grad():
        of_teacher, its_items = torch.cat([encoded.flip(0), encoded]), items.flip(0)
    teacher = full_softmax_teacher(of_teacher.requires_grad_(), its_items.requires_grad_())
    assert not teacher(PLACES).requires_grad
    found = full_softmax(encoded, items, TARGETS, (teacher, PLACES), 0.5)
    log_probabilities = torch.log_softmax(of_teacher[PLACES] @ its_items[1:].T, dim=1).detach()
    expected = plain(encoded, items) + 0.5 * divergence(encoded @ items[1:].T, log_probabilities).sum()
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, *drawn), gradients(expected, *drawn), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("parts")
def test_gradients_are_worked_out_for_what_needs_them(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    of_both = gradients(plain(encoded, items), encoded, items)
    for needs, expected in zip((encoded, items), of_both, strict=True):
        others = [one if one is needs else one.detach() for one in drawn]
        (found,) = gradients(full_softmax(others[0], others[1], TARGETS), needs)
        torch.testing.assert_close(found, expected)
    assert not full_softmax(encoded.detach(), items.detach(), TARGETS).requires_grad


def test_no_target_has_no_loss_and_no_gradient(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    none = full_softmax(encoded[:0], items, TARGETS[:0])
    assert none == 0.0
    (of_items,) = torch.autograd.grad(none, items)
    assert not of_items.any()
