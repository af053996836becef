import math
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from raysparse.config import check
from raysparse.errors import CheckpointError, ConfigError
from raysparse.models.nasrec.canonical import canonical
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.export import export_subnet
from raysparse.models.nasrec.network import NASRec
from raysparse.search.feature_cache import FeatureCache, Rows
from raysparse.search.scoring import Scorer, ScoringConfig
from tests.search.caches import SPACE, draw_network, draw_rows, space_of, write_cache

UNTUNED = ScoringConfig(tuning_steps=0)
TUNED = ScoringConfig(tuning_steps=30, tuning_batch_size=32)
OWN = ScoringConfig(tuned="network", tuning_steps=30, tuning_batch_size=32)
CHOICES = [space_of().sample(Random(seed)) for seed in range(12)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return write_cache(tmp_path_factory.mktemp("caches") / "one")


@pytest.fixture(scope="module")
def in_pieces(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """The same rows, as three ranks wrote them."""
    return write_cache(tmp_path_factory.mktemp("caches") / "three", num_ranks=3)


def scorer_of(cache: FeatureCache, config: ScoringConfig, seed: int = 5) -> Scorer:
    return Scorer(cache, space_of(), config, seed)


def log_loss(scorer: Scorer, choice: NASRecConfig) -> float:
    return scorer.score(choice)["log_loss"]


@torch.no_grad()
def loss_of_subnet(choice: NASRecConfig, rows: Rows) -> float:
    subnet = export_subnet(draw_network(), choice).double()
    logits = subnet(rows.dense.double(), rows.pooled.double())
    return binary_cross_entropy_with_logits(logits, rows.labels.double()).item()


def test_the_log_loss_is_that_of_the_exported_subnet(cache: FeatureCache):
    scorer, rows = scorer_of(cache, UNTUNED), draw_rows(90, 1)
    losses = [log_loss(scorer, choice) for choice in CHOICES]
    # One of them is 10.8, where neighbouring float32 are 9.5e-7 apart.
    assert losses == pytest.approx([loss_of_subnet(choice, rows) for choice in CHOICES], rel=1e-6)
    assert len(set(losses)) == len(CHOICES)
    # The choices are of all sorts.
    assert {choice.layer_norm for choice in CHOICES} == {True, False}
    assert any(choice.field_dims is not None and min(choice.field_dims) == 4 for choice in CHOICES)


def test_a_limit_scores_the_first_rows_of_any_number_of_ranks(cache: FeatureCache, in_pieces: FeatureCache):
    config = ScoringConfig(tuning_steps=0, validation_rows=37)
    for choice in CHOICES[:3]:
        expected = loss_of_subnet(choice, draw_first(37))
        assert log_loss(scorer_of(cache, config), choice) == pytest.approx(expected, abs=1e-6)
        assert log_loss(scorer_of(in_pieces, config), choice) == pytest.approx(expected, abs=1e-6)


def draw_first(count: int) -> Rows:
    rows = draw_rows(90, 1)
    return Rows(rows.dense[:count], rows.pooled[:count], rows.labels[:count], rows.numbers[:count])


# At TUNED's own rate clipped steps multiply the last digit by hundreds, as the toy networks' features are large.
SLOWLY_TUNED = TUNED.model_copy(update={"tuning_learning_rate": 4e-3})


@pytest.mark.parametrize("config", [UNTUNED, SLOWLY_TUNED, OWN], ids=["untuned", "head", "network"])
def test_the_score_depends_neither_on_batches_nor_on_pieces(
    cache: FeatureCache, in_pieces: FeatureCache, config: ScoringConfig
):
    bound = 1e-6 if config.tuned == "head" else 1e-5  # of losses up to 19, so that single precision has no more
    config = config.model_copy(update={"tuning_rows": 75})
    scorers = [
        scorer_of(of, config.model_copy(update={"batch_size": size})) for of in (cache, in_pieces) for size in (7, 4096)
    ]
    for choice in CHOICES[:4]:
        losses = [log_loss(scorer, choice) for scorer in scorers]
        assert losses == pytest.approx([losses[0]] * 4, abs=bound, rel=bound)


def test_tuning_lowers_the_loss_on_the_rows_that_it_sees(tmp_path: Path):
    cache = write_cache(tmp_path / "cache", same_rows=True)
    before, after = scorer_of(cache, UNTUNED), scorer_of(cache, TUNED)
    gains = [log_loss(before, choice) - log_loss(after, choice) for choice in CHOICES]
    assert min(gains) > 0
    assert sum(gains) / len(gains) > 0.05


def reference_head(choice: NASRecConfig, config: ScoringConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Weight and bias after tuning by torch's Adagrad on the gradients of autograd."""
    network, rows = draw_network(), draw_rows(120, 0)
    with torch.no_grad():
        features, columns = network.features(rows.dense, rows.pooled, choice)
        weight = network.logit.sliced(columns, 1)[0].clone().requires_grad_()
    assert network.logit.bias is not None
    bias = network.logit.bias.detach().clone().requires_grad_()
    optimizer = torch.optim.Adagrad([weight, bias], lr=config.resolved_tuning_learning_rate, eps=1e-2)
    generator = torch.Generator().manual_seed(seed)
    num_rows, num_steps, size = len(rows), config.tuning_steps, config.tuning_batch_size
    order = torch.cat([torch.randperm(num_rows, generator=generator) for _ in range(num_steps * size // num_rows + 1)])
    warm_up = num_steps // 10
    for step in range(num_steps):
        batch = order[step * size : (step + 1) * size]
        factor = (step + 1) / warm_up
        if step >= warm_up:
            factor = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up)))
        optimizer.param_groups[0]["lr"] = config.resolved_tuning_learning_rate * factor
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(features[batch] @ weight + bias, rows.labels[batch]).backward()
        torch.nn.utils.clip_grad_norm_([weight, bias], 5.0)
        optimizer.step()
    return weight.detach(), bias.detach()[0]


@pytest.mark.parametrize("num_steps", [10, 40])
def test_the_tuned_head_is_that_of_torchs_adagrad(in_pieces: FeatureCache, num_steps: int):
    config = ScoringConfig(tuning_steps=num_steps, tuning_batch_size=32)
    scorer = scorer_of(in_pieces, config, seed=9)
    for choice in CHOICES[:4]:
        with torch.no_grad():
            head = scorer._tuned_head(choice)
        assert head is not None
        weight, bias = reference_head(choice, config, seed=9)
        torch.testing.assert_close(head.weight, weight, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(head.bias, bias, rtol=1e-5, atol=1e-5)


def test_the_score_uses_the_tuned_head(cache: FeatureCache):
    rows = draw_rows(90, 1)
    for choice in CHOICES[:3]:
        weight, bias = reference_head(choice, TUNED, seed=5)
        with torch.no_grad():
            features, _ = draw_network().features(rows.dense, rows.pooled, choice)
            expected = binary_cross_entropy_with_logits(features @ weight + bias, rows.labels).item()
        assert log_loss(scorer_of(cache, TUNED), choice) == pytest.approx(expected, abs=1e-5)


def reference_loss(choice: NASRecConfig, num_steps: int, seed: int) -> float:
    """Of a network that learns from drawn weights on by torch's Adam."""
    torch.manual_seed(seed)
    network = NASRec(choice, 2, 3)
    rows, validation = draw_rows(120, 0), draw_rows(90, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(120, generator=generator) for _ in range(num_steps * 32 // 120 + 1)])
    warm_up = num_steps // 10
    for step in range(num_steps):
        batch = order[step * 32 : (step + 1) * 32]
        factor = (step + 1) / warm_up
        if step >= warm_up:
            factor = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up)))
        optimizer.param_groups[0]["lr"] = 2e-3 * factor
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(network(rows.dense[batch], rows.pooled[batch]), rows.labels[batch]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    with torch.no_grad():
        return binary_cross_entropy_with_logits(network(validation.dense, validation.pooled), validation.labels).item()


def test_a_network_may_be_scored_with_weights_of_its_own(in_pieces: FeatureCache):
    scorer = scorer_of(in_pieces, OWN, seed=9)
    for choice in CHOICES[:4]:
        assert log_loss(scorer, choice) == pytest.approx(reference_loss(choice, 30, seed=9), abs=1e-5)


def test_own_weights_are_those_of_the_canonical_form(cache: FeatureCache):
    scorer = scorer_of(cache, OWN)
    written_otherwise = [(choice, canonical(choice)) for choice in CHOICES if canonical(choice) != choice]
    assert len(written_otherwise) > 2
    for one, other in written_otherwise[:3]:
        assert log_loss(scorer, one) == log_loss(scorer, other)


@pytest.mark.parametrize("key", ["tuning_rows", "tuning_steps"])
def test_own_weights_that_learn_nothing_are_refused(key: str):
    with pytest.raises(ConfigError, match="tuned head where tuning_rows or tuning_steps is 0"):
        check(ScoringConfig, {"tuned": "network", key: 0}, "scoring")


@pytest.mark.parametrize("config", [TUNED, OWN], ids=["head", "network"])
def test_scores_repeat_exactly_and_leave_no_trace(cache: FeatureCache, config: ScoringConfig):
    scorer = scorer_of(cache, config)
    first = [scorer.score(choice) for choice in CHOICES]
    assert [scorer.score(choice) for choice in reversed(CHOICES)] == first[::-1]
    # Alone, in a scorer that has seen nothing else.
    assert [scorer_of(cache, config).score(choice) for choice in CHOICES[-2:]] == first[-2:]
    shared = dict(scorer._network.named_parameters())
    assert all(torch.equal(shared[name], parameter) for name, parameter in draw_network().named_parameters())
    assert torch.equal(cache.rows("tuning")[0].pooled, draw_rows(120, 0).pooled)


def test_the_rows_of_a_step_follow_from_the_seed(cache: FeatureCache):
    losses = {log_loss(scorer_of(cache, TUNED, seed), CHOICES[0]) for seed in (1, 2)}
    assert len(losses) == 2


def test_without_rows_to_tune_on_the_head_stays_as_it_is(cache: FeatureCache):
    untuned = log_loss(scorer_of(cache, UNTUNED), CHOICES[0])
    assert log_loss(scorer_of(cache, TUNED.model_copy(update={"tuning_rows": 0})), CHOICES[0]) == untuned
    assert log_loss(scorer_of(cache, TUNED), CHOICES[0]) != untuned


def test_counts_are_the_spaces_and_latency_is_measured_where_it_is_asked_for(cache: FeatureCache):
    scorer = scorer_of(cache, UNTUNED)
    scores = scorer.score(CHOICES[0], ("log_loss", "macs"))
    cost = space_of().cost(CHOICES[0])
    assert {name: value for name, value in scores.items() if name != "log_loss"} == cost.model_dump()
    timed = scorer.score(CHOICES[0], ("log_loss", "latency_us"))
    assert timed.pop("latency_us") > 0
    assert timed == scores


def test_the_weights_of_another_space_are_refused(cache: FeatureCache):
    wider = space_of(SPACE.model_copy(update={"dense_widths": (4, 8, 16)}))
    with pytest.raises(CheckpointError, match=r"dense_width=8[\s\S]*dense_width=16"):
        Scorer(cache, wider, UNTUNED, seed=1)
    # A budget is no matter of weights.
    budget = space_of(SPACE.model_copy(update={"max_macs": 10**6}))
    choice = CHOICES[0]
    assert log_loss(Scorer(cache, budget, UNTUNED, seed=1), choice) == log_loss(scorer_of(cache, UNTUNED), choice)
