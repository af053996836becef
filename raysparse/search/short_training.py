"""A trial's short training on looked-up rows: which rows a step has, its rate, and a network that learns by it.

The tables stay as they are: what is compared is what networks make of the same features in as many steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raysparse.search.feature_cache import Rows
from raysparse.sharding.optimizer import DenseOptimizerConfig, build_dense_optimizer
from raysparse.train.schedule import ScheduleConfig, learning_rate_factor

_WARM_UP_SHARE = 0.1
CLIP_NORM = 5.0
"""Of the gradient of all that learns, as in NASRec's recipe; networks without layer norm need it."""


def train_own_weights(network: nn.Module, rows: Rows, order: Sequence[Tensor], learning_rate: float) -> None:
    """Train a network of clicks by Adam, in place; `order` has the rows `[B]` of each step."""
    parameters: list[Tensor] = list(network.parameters())
    optimizer = build_dense_optimizer(DenseOptimizerConfig(kind="adam", learning_rate=learning_rate), parameters)
    for step, of_step in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_factor_of(step, len(order))
        logits = network(rows.dense[of_step], rows.pooled[of_step])
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits, rows.labels[of_step]).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()


def learning_rate_factor_of(step: int, num_steps: int) -> float:
    """Return the factor of a step of a short training: up in a tenth of the steps, then down along a cosine."""
    warm_up = max(1, int(_WARM_UP_SHARE * num_steps))
    schedule = ScheduleConfig(kind="cosine", warm_up_steps=warm_up, decay_steps=None, final_factor=0.0)
    return learning_rate_factor(schedule.over(num_steps), step)


def draw_epochs(num_rows: int, total: int, generator: torch.Generator) -> Tensor:
    """Draw `total` rows: each once before any comes again."""
    orders = [torch.randperm(num_rows, generator=generator) for _ in range(-(-total // num_rows))]
    return torch.cat(orders)[:total]
