import pytest
import torch
from torch import Tensor

from raysparse.models.sasrec.full_softmax import full_softmax
from raysparse.models.sasrec.losses import (
    bce,
    divergence,
    gbce,
    sampled_logits,
    sampled_softmax,
    sampled_softmax_teacher,
)

NUM_ITEMS, WIDTH, COUNT = 9, 4, 6
TARGETS = torch.tensor([1, 9, 3, 3, 7, 2])


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(COUNT, WIDTH, generator=generator, dtype=torch.float64),
        torch.randn(NUM_ITEMS + 1, WIDTH, generator=generator, dtype=torch.float64),
    )


def cross_entropy(encoded: Tensor, items: Tensor) -> Tensor:
    """Of each target among all items."""
    return torch.nn.functional.cross_entropy(encoded @ items[1:].T, TARGETS - 1, reduction="none")


def test_sampled_softmax_over_all_items_is_the_full_one(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    ids = torch.arange(1, NUM_ITEMS + 1)
    # Each target is among the negatives too, and does not count twice.
    sampled = sampled_softmax(sampled_logits(encoded, items[TARGETS], TARGETS, items[ids], ids, None))
    torch.testing.assert_close(sampled, cross_entropy(encoded, items))


@pytest.mark.parametrize(
    "counts", [torch.arange(1, NUM_ITEMS + 1), torch.full((NUM_ITEMS,), 3)], ids=["uneven", "even"]
)
def test_items_drawn_as_often_as_expected_give_full_softmax(drawn: tuple[Tensor, Tensor], counts: Tensor):
    encoded, items = (part.requires_grad_() for part in drawn)
    ids = torch.repeat_interleave(torch.arange(1, NUM_ITEMS + 1), counts)
    log_expected = counts.double().log()[ids - 1]
    corrected = sampled_softmax(sampled_logits(encoded, items[TARGETS], TARGETS, items[ids], ids, log_expected))
    full = cross_entropy(encoded, items)
    torch.testing.assert_close(corrected, full, rtol=0, atol=1e-6)
    gradients = (torch.autograd.grad(losses.sum(), (encoded, items)) for losses in (corrected, full))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_corrected_losses_of_few_draws_are_those_of_full_softmax_in_the_mean(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    shares = torch.arange(1, NUM_ITEMS + 1).double() / sum(range(1, NUM_ITEMS + 1))
    generator = torch.Generator().manual_seed(1)
    sums = torch.zeros(COUNT, dtype=torch.float64)
    for _ in range(2_000):
        ids = 1 + torch.multinomial(shares, 64, replacement=True, generator=generator)
        log_expected = (64 * shares[ids - 1]).log()
        logits = sampled_logits(encoded, items[TARGETS], TARGETS, items[ids], ids, log_expected)
        # The sum of the softmax, of which the estimate has no bias; its logarithm has a small one.
        sums += torch.exp(sampled_softmax(logits)) / 2_000
    torch.testing.assert_close(sums, cross_entropy(encoded, items).exp(), rtol=0.03, atol=0)


@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_gbce_is_the_papers_formula(drawn: tuple[Tensor, Tensor], t: float):
    encoded, items = drawn
    ids = torch.tensor([4, 5, 6])
    alpha = 3 / (NUM_ITEMS - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    assert t != 0.0 or beta == 1.0
    positive = torch.sigmoid((encoded * items[TARGETS]).sum(1))
    negative = torch.sigmoid(encoded @ items[ids].T)
    expected = -(torch.log(positive**beta) + torch.log(1 - negative).sum(1))
    torch.testing.assert_close(gbce(encoded, items[TARGETS], TARGETS, items[ids], ids, NUM_ITEMS, t), expected)


def test_a_negative_that_is_the_target_does_not_count(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    with_it, without = torch.tensor([3, 5]), torch.tensor([5])
    targets = torch.full((COUNT,), 3)
    own = items[targets]
    torch.testing.assert_close(
        sampled_softmax(sampled_logits(encoded, own, targets, items[with_it], with_it, None)),
        sampled_softmax(sampled_logits(encoded, own, targets, items[without], without, None)),
    )
    # At t = 0 the power is 1, however many are drawn.
    torch.testing.assert_close(
        gbce(encoded, own, targets, items[with_it], with_it, NUM_ITEMS, 0.0),
        gbce(encoded, own, targets, items[without], without, NUM_ITEMS, 0.0),
    )


def test_bce_takes_negatives_of_each_targets_own(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    own = torch.tensor([[4, 5], [1, 2], [9, 9], [1, 1], [2, 3], [5, 6]])
    positive = torch.sigmoid((encoded * items[TARGETS]).sum(1)).log()
    negative = torch.stack([torch.log(1 - torch.sigmoid(items[own[i]] @ encoded[i])).sum() for i in range(COUNT)])
    torch.testing.assert_close(bce(encoded, items[TARGETS], TARGETS, items[own], own), -(positive + negative))


def test_a_target_is_no_negative_of_its_own_in_bce(drawn: tuple[Tensor, Tensor]):
    encoded, items = drawn
    own = torch.tensor([[4, 5], [1, 2], [9, 9], [1, 1], [2, 3], [5, 6]])
    with_it = torch.cat([own, TARGETS.unsqueeze(1)], dim=1)
    torch.testing.assert_close(
        bce(encoded, items[TARGETS], TARGETS, items[with_it], with_it),
        bce(encoded, items[TARGETS], TARGETS, items[own], own),
    )


def test_extreme_scores_have_finite_losses_and_gradients(drawn: tuple[Tensor, Tensor]):
    encoded, items = (1e4 * drawn[0].float()).requires_grad_(), drawn[1].float()
    ids = torch.tensor([4, 5, 6])
    for found in (
        full_softmax(encoded, items, TARGETS),
        sampled_softmax(sampled_logits(encoded, items[TARGETS], TARGETS, items[ids], ids, None)),
        gbce(encoded, items[TARGETS], TARGETS, items[ids], ids, NUM_ITEMS, 0.75),
        bce(encoded, items[TARGETS], TARGETS, items[ids].expand(COUNT, 3, WIDTH), ids.expand(COUNT, 3)),
    ):
        (gradient,) = torch.autograd.grad(found.sum(), encoded)
        assert found.isfinite().all()
        assert gradient.isfinite().all()


def test_the_divergence_is_that_of_the_probabilities_and_teaches_one_side(drawn: tuple[Tensor, Tensor]):
    logits, teacher = (part @ drawn[1].T for part in (drawn[0], drawn[0].flip(0)))
    teacher[:, 2] = -torch.inf
    places = torch.arange(COUNT)
    found = divergence(logits.requires_grad_(), sampled_softmax_teacher(teacher.requires_grad_())(places))
    of_teacher, student = torch.softmax(teacher, dim=1), torch.softmax(logits, dim=1)
    kept = [column for column in range(NUM_ITEMS + 1) if column != 2]
    expected = (of_teacher * (of_teacher.log() - student.log()))[:, kept].sum(1)
    torch.testing.assert_close(found, expected)
    assert (found > 0).all()
    found.sum().backward()
    assert teacher.grad is None
    assert logits.grad is not None
    # Of the divergence of softmax: the difference of the probabilities.
    torch.testing.assert_close(logits.grad, student - of_teacher)
    assert divergence(logits, sampled_softmax_teacher(logits)(places)).abs().max() < 1e-12
