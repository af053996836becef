"""Scores a choice on looked-up rows, at the price of its own network alone. Any process, no ranks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from raysparse.config import Config
from raysparse.cost.latency import head_latency
from raysparse.errors import CheckpointError
from raysparse.models.nasrec.choice import NASRecConfig
from raysparse.models.nasrec.export import export_subnet
from raysparse.models.nasrec.network import NASRec, NASRecNetwork
from raysparse.models.nasrec.projection import Columns
from raysparse.search.ctr_space import CTRSpace
from raysparse.search.feature_cache import FeatureCache, Rows, batches_of, in_order
from raysparse.search.short_training import CLIP_NORM, draw_epochs, learning_rate_factor_of, train_own_weights

OBJECTIVES = ("log_loss", "macs", "parameters", "embedding_bytes", "latency_us")
"""What a trial can measure; all are made small."""

_LATENCY_BATCH = 64


class ScoringConfig(Config):
    """How a choice is scored; the head's tuning is that of arXiv 2207.07187, section 4.2."""

    tuned: Literal["head", "network"] = "head"
    """What a trial learns: the last layer, behind the supernet's weights; or all weights of the network, drawn anew, on
    the features that the supernet has looked up. That takes several times as long, and tells networks apart."""
    tuning_rows: int = Field(default=65_536, ge=0)
    """Rows of the last training days on which a trial learns that."""
    tuning_steps: int = Field(default=500, ge=0)
    """Steps of that; 0: the head stays as it is in the supernet."""
    tuning_batch_size: int = Field(default=512, ge=1)
    tuning_learning_rate: float | None = Field(default=None, gt=0)
    """Of Adagrad for a head (null: 0.04), of Adam for a network (null: 2e-3), after a tenth of the steps; it then falls
    to nothing along a cosine."""
    validation_rows: int | None = Field(default=None, ge=1)
    """Rows of the validation days that are scored; null: all."""
    batch_size: int = Field(default=1024, ge=1)
    """Rows that are computed together. On a CPU 1,024 stay in the cache: 4,096 take 1.2 times as long, 8,192 1.5."""

    @model_validator(mode="after")
    def _network_learns(self) -> Self:
        if self.tuned == "network" and 0 in (self.tuning_rows, self.tuning_steps):
            raise ValueError("tuned head where tuning_rows or tuning_steps is 0: drawn weights that learn nothing")
        return self

    @property
    def resolved_tuning_learning_rate(self) -> float:
        """The learning rate, whose default depends on what is tuned."""
        if self.tuning_learning_rate is not None:
            return self.tuning_learning_rate
        return 0.04 if self.tuned == "head" else 2e-3


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
        self._learned = in_order(self._tuning, self._device) if config.tuned == "network" else None
        self._validation = cache.rows("validation", config.validation_rows)

    def score(self, choice: NASRecConfig, objectives: tuple[str, ...] = ("log_loss",)) -> dict[str, float]:
        """Return the objectives of a choice by name, with its log loss and counts in any case."""
        cost = self._space.cost(choice)
        scores = {"log_loss": self._log_loss(choice), **{name: float(n) for name, n in cost.model_dump().items()}}
        if "latency_us" in objectives:
            subnet = export_subnet(self._network, choice)
            shape = self._network.shape
            sizes = (shape.num_dense, shape.num_features, shape.embedding_dim)
            scores["latency_us"] = head_latency(subnet, _LATENCY_BATCH, sizes).median_us
        return scores

    def _log_loss(self, choice: NASRecConfig) -> float:
        logits_of = self._with_tuned_head(choice) if self._learned is None else self._with_own_weights(choice)
        total, rows = torch.zeros((), dtype=torch.float64, device=self._device), 0
        with torch.no_grad():
            for batch in batches_of(self._validation, self._config.batch_size):
                labels = batch.labels.to(self._device)
                logits = logits_of(batch)
                total += nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum").double()
                rows += len(batch)
        return total.item() / rows if rows else math.nan

    def _with_own_weights(self, choice: NASRecConfig) -> Callable[[Rows], Tensor]:
        assert self._learned is not None
        config, shape = self._config, self._network.shape
        # One network, however it is written, has one score: the weights of its canonical form are drawn.
        network = NASRec.from_seed(choice, shape.num_dense, shape.num_features, self._seed).to(self._device)
        order = self._order(len(self._learned))
        train_own_weights(network, self._learned, order, config.resolved_tuning_learning_rate)
        return lambda batch: network(batch.dense.to(self._device), batch.pooled.to(self._device))

    def _with_tuned_head(self, choice: NASRecConfig) -> Callable[[Rows], Tensor]:
        head = self._tuned_head(choice)

        def logits_of(batch: Rows) -> Tensor:
            features, columns = self._features(batch, choice)
            own = head or self._shared_head(columns)
            return features @ own.weight + own.bias

        return logits_of

    def _features(self, batch: Rows, choice: NASRecConfig) -> tuple[Tensor, Columns]:
        return self._network.features(batch.dense.to(self._device), batch.pooled.to(self._device), choice)

    def _shared_head(self, columns: Columns) -> _Head:
        logit = self._network.logit
        assert logit.bias is not None
        return _Head(logit.sliced(columns, 1)[0].clone(), logit.bias[0].clone())

    @torch.no_grad()
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
        order = self._order(len(labels))
        squares = _Head(torch.zeros_like(head.weight), torch.zeros_like(head.bias))
        for step, rows in enumerate(order):
            inputs = features[rows]
            error = ((inputs @ head.weight + head.bias).sigmoid() - labels[rows]) / len(rows)
            rate = self._config.resolved_tuning_learning_rate * learning_rate_factor_of(step, len(order))
            gradient = _clipped(_Head(inputs.T @ error, error.sum()))
            _adagrad(head.weight, gradient.weight, squares.weight, rate)
            _adagrad(head.bias, gradient.bias, squares.bias, rate)

    def _order(self, num_rows: int) -> Sequence[Tensor]:
        """The rows of each step, the same for every choice."""
        config, generator = self._config, torch.Generator().manual_seed(self._seed)
        order = draw_epochs(num_rows, config.tuning_steps * config.tuning_batch_size, generator).to(self._device)
        return order.split(config.tuning_batch_size)


_EPS = 1e-2
"""Of Adagrad, as in NASRec's recipe."""


def _clipped(gradient: _Head) -> _Head:
    """A gradient of at most `CLIP_NORM`, as torch clips it."""
    norm = (gradient.weight.square().sum() + gradient.bias.square()).sqrt()
    factor = (CLIP_NORM / (norm + 1e-6)).clamp(max=1.0)
    return _Head(gradient.weight * factor, gradient.bias * factor)


def _adagrad(weight: Tensor, gradient: Tensor, squares: Tensor, rate: float) -> None:
    squares.addcmul_(gradient, gradient)
    weight.addcdiv_(gradient, squares.sqrt().add_(_EPS), value=-rate)
