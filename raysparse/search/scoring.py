"""Scores a choice with the supernet's weights, at the price of its own network alone. Any process, no ranks."""

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.cost.latency import latency_us
from raysparse.errors import CheckpointError
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.export import export_subnet
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.projection import Columns
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.feature_cache import FeatureCache, Rows, batches_of

OBJECTIVES = ("log_loss", "macs", "parameters", "embedding_bytes", "latency_us")
"""What a trial can measure; all are made small."""

_LATENCY_BATCH = 64
_WARM_UP_SHARE = 0.1


class ScoringConfig(Config):
    """How a choice is scored; the head's tuning is that of arXiv 2207.07187, section 4.2."""

    tuning_rows: int = Field(default=65_536, ge=0)
    """Rows of the last training days on which a trial tunes the head."""
    tuning_steps: int = Field(default=500, ge=0)
    """Steps of that; 0: the head stays as it is in the supernet."""
    tuning_batch_size: int = Field(default=512, ge=1)
    tuning_learning_rate: float = Field(default=0.04, gt=0)
    """Of Adagrad, after a tenth of the steps; it then falls to nothing along a cosine."""
    validation_rows: int | None = Field(default=None, ge=1)
    """Rows of the validation days that are scored; null: all."""
    batch_size: int = Field(default=4096, ge=1)
    """Rows that are computed together."""


@dataclass
class _Head:
    weight: Tensor
    """`[W]`"""
    bias: Tensor
    """`[]`"""


class Scorer:
    """Scores choices one after the other on the rows of a cache; the weights are loaded once."""

    def __init__(
        self, cache: FeatureCache, space: CTRSpace, config: ScoringConfig, seed: int, device: torch.device | None = None
    ) -> None:
        """Map the rows and load the weights; CheckpointError where they belong to another space."""
        if space.shape != cache.shape:
            raise CheckpointError(
                f"the cache in {cache.folder} belongs to {cache.shape}; the space on this data set has {space.shape}; "
                "run the search with the job that made the cache, or start anew with --fresh"
            )
        self._device = device or torch.device("cpu")
        self._config = config
        self._space = space
        self._seed = seed
        self._network: NASRecNetwork = cache.network(self._device)
        self._tuning = cache.rows("tuning", config.tuning_rows) if config.tuning_steps else []
        self._validation = cache.rows("validation", config.validation_rows)

    def score(self, choice: NASRecConfig, objectives: tuple[str, ...] = ("log_loss",)) -> dict[str, float]:
        """Return the objectives of a choice by name, with its log loss and counts in any case."""
        cost = self._space.cost(choice)
        scores = {"log_loss": self._log_loss(choice), **{name: float(n) for name, n in cost.model_dump().items()}}
        if "latency_us" in objectives:
            subnet = export_subnet(self._network, choice)
            shape = self._network.shape
            scores["latency_us"] = latency_us(
                subnet, _LATENCY_BATCH, (shape.num_dense, shape.num_features, shape.embedding_dim)
            )
        return scores

    @torch.no_grad()
    def _log_loss(self, choice: NASRecConfig) -> float:
        head = self._tuned_head(choice)
        total, rows = torch.zeros((), dtype=torch.float64, device=self._device), 0
        for batch in batches_of(self._validation, self._config.batch_size):
            features, columns = self._features(batch, choice)
            head = head or self._shared_head(columns)
            logits = features @ head.weight + head.bias
            labels = batch.labels.to(self._device)
            total += nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum").double()
            rows += len(batch)
        return total.item() / rows if rows else math.nan

    def _features(self, batch: Rows, choice: NASRecConfig) -> tuple[Tensor, Columns]:
        return self._network.features(batch.dense.to(self._device), batch.pooled.to(self._device), choice)

    def _shared_head(self, columns: Columns) -> _Head:
        logit = self._network.logit
        assert logit.bias is not None
        return _Head(logit.sliced(columns, 1)[0].clone(), logit.bias[0].clone())

    def _tuned_head(self, choice: NASRecConfig) -> _Head | None:
        """Tune the head on features that are computed once; None where there is nothing to tune on."""
        if not self._tuning:
            return None
        num_rows = sum(map(len, self._tuning))
        features, labels = torch.empty(0), torch.empty(num_rows, device=self._device)
        columns: Columns = ()
        for batch in batches_of(self._tuning, self._config.batch_size):
            computed, columns = self._features(batch, choice)
            if not len(features):
                features = computed.new_empty(num_rows, computed.shape[1])
            # In the order of their numbers: which rows a step has does not depend on the ranks that wrote them.
            numbers = batch.numbers.to(self._device)
            features[numbers] = computed
            labels[numbers] = batch.labels.to(self._device)
        head = self._shared_head(columns)
        self._tune(head, features, labels)
        return head

    def _tune(self, head: _Head, features: Tensor, labels: Tensor) -> None:
        # The gradient of a logistic regression, written out: autograd would take several times as long as the products.
        config = self._config
        generator = torch.Generator().manual_seed(self._seed)
        order = _epochs(len(labels), config.tuning_steps * config.tuning_batch_size, generator).to(self._device)
        squares = _Head(torch.zeros_like(head.weight), torch.zeros_like(head.bias))
        for step, rows in enumerate(order.split(config.tuning_batch_size)):
            inputs = features[rows]
            error = ((inputs @ head.weight + head.bias).sigmoid() - labels[rows]) / len(rows)
            rate = config.tuning_learning_rate * _factor(step, config.tuning_steps)
            _adagrad(head.weight, inputs.T @ error, squares.weight, rate)
            _adagrad(head.bias, error.sum(), squares.bias, rate)


_EPS = 1e-2
"""Of Adagrad, as in NASRec's recipe."""


def _adagrad(weight: Tensor, gradient: Tensor, squares: Tensor, rate: float) -> None:
    squares.addcmul_(gradient, gradient)
    weight.addcdiv_(gradient, squares.sqrt().add_(_EPS), value=-rate)


def _factor(step: int, num_steps: int) -> float:
    warm_up = max(1.0, _WARM_UP_SHARE * num_steps)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1.0, num_steps - warm_up)))


def _epochs(num_rows: int, total: int, generator: torch.Generator) -> Tensor:
    """Draw `total` rows: each once before any comes again."""
    orders = [torch.randperm(num_rows, generator=generator) for _ in range(-(-total // num_rows))]
    return torch.cat(orders)[:total]
