"""Optimizers: FBGEMM's fused ones for the tables, and the same rules for tables that every rank copies."""

from typing import Annotated, Any, Literal

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from pydantic import Field
from torch import Tensor

from raysparse.config import Config


class _SparseOptimizerConfig(Config):
    learning_rate: float = Field(default=0.02, gt=0)
    """Step size, before the schedule's factor."""
    clip_value: float | None = Field(default=None, gt=0)
    """Largest absolute value of a component of a pooled embedding's gradient, before those of a row are summed; null:
    not clipped."""


class RowWiseAdagradConfig(_SparseOptimizerConfig):
    """Adagrad with one sum per row: the mean of the row's squared gradients."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    eps: float = Field(default=1e-8, gt=0)


class AdagradConfig(_SparseOptimizerConfig):
    """Adagrad with a sum per weight."""

    kind: Literal["adagrad"] = "adagrad"
    eps: float = Field(default=1e-8, gt=0)


class SparseAdamConfig(_SparseOptimizerConfig):
    """Adam on the rows of a batch; rows that are not looked up keep their moments.

    FBGEMM fuses it on GPUs only; on the CPU the gradients of whole tables are made: for small tables.
    """

    kind: Literal["adam"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size, before the schedule's factor."""
    eps: float = Field(default=1e-8, gt=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)


class SparseSGDConfig(_SparseOptimizerConfig):
    """Plain gradient descent."""

    kind: Literal["sgd"] = "sgd"


SparseOptimizerConfig = Annotated[
    RowWiseAdagradConfig | AdagradConfig | SparseAdamConfig | SparseSGDConfig, Field(discriminator="kind")
]


class DenseOptimizerConfig(Config):
    """The optimizer of everything but the tables."""

    kind: Literal["adam", "adagrad", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size, before the schedule's factor."""
    weight_decay: float = Field(default=0.0, ge=0)
    eps: float | None = Field(default=None, gt=0)
    """Added to the root of the sum of squares; null: 1e-8 for adam, 1e-10 for adagrad."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of all dense gradients together; null: not clipped."""


STATE_NAMES: dict[str, tuple[str, ...]] = {
    "rowwise_adagrad": ("row_sum",),
    "adagrad": ("sum",),
    "adam": ("first_moment", "second_moment"),
    "sgd": (),
}
"""Names of a table's optimizer states, in FBGEMM's order. `row_sum` has one entry per row and column shard."""

_FUSED_KIND = {
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "adam": EmbOptimType.ADAM,
    "sgd": EmbOptimType.EXACT_SGD,
}


def is_fused(config: SparseOptimizerConfig, device: torch.device) -> bool:
    """Whether FBGEMM has the optimizer as part of its backward kernels on this device."""
    return config.kind != "adam" or device.type == "cuda"


def fused_parameters(config: SparseOptimizerConfig) -> dict[str, Any]:
    """What TorchRec hands to FBGEMM's kernels."""
    parameters = config.model_dump(exclude={"kind", "clip_value"})
    parameters["optimizer"] = _FUSED_KIND[config.kind]
    if config.clip_value is not None:
        parameters |= {"gradient_clipping": True, "max_gradient": config.clip_value}
    return parameters


def state_bytes_per_row(config: SparseOptimizerConfig, width: int) -> int:
    """Bytes of optimizer state for a row of `width` columns."""
    return sum(4 if name == "row_sum" else 4 * width for name in STATE_NAMES[config.kind])


def build_dense_optimizer(config: DenseOptimizerConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The dense optimizer; fused, since the unfused one launches a kernel per parameter."""
    kinds = {"adam": torch.optim.AdamW, "adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}
    eps = {} if config.eps is None or config.kind == "sgd" else {"eps": config.eps}
    return kinds[config.kind](parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True, **eps)


class UnfusedTableOptimizer:
    """Updates a table from its dense gradient by the rule of the fused kernels.

    TorchRec's data-parallel tables have no fused optimizer, and FBGEMM has no fused Adam on the CPU. Rows without
    a gradient are left alone, as the kernels leave rows that no one looked up: the plan does not change the result.
    """

    def __init__(self, config: SparseOptimizerConfig, weight: Tensor) -> None:
        self.config = config
        self.states: dict[str, Tensor] = {
            name: torch.zeros(weight.shape[:1] if name == "row_sum" else weight.shape, device=weight.device)
            for name in STATE_NAMES[config.kind]
        }
        self._weight = weight

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float, num_steps: int) -> None:
        """Apply `gradient` `[rows, dim]`; `num_steps` counts this step, from 1."""
        rows = gradient.any(dim=1).nonzero().squeeze(1)
        change = gradient[rows]
        match self.config:
            case RowWiseAdagradConfig(eps=eps):
                self.states["row_sum"][rows] += change.square().mean(1)
                scale = self.states["row_sum"][rows].sqrt_().add_(eps).unsqueeze(1)
                change = change / scale
            case AdagradConfig(eps=eps):
                self.states["sum"][rows] += change.square()
                change = change / self.states["sum"][rows].sqrt_().add_(eps)
            case SparseAdamConfig(eps=eps, beta1=beta1, beta2=beta2):
                first, second = self.states["first_moment"], self.states["second_moment"]
                first[rows] = first[rows].lerp(change, 1 - beta1)
                second[rows] = second[rows].lerp(change.square(), 1 - beta2)
                unbiased = first[rows] / (1 - beta1**num_steps)
                scale = (second[rows] / (1 - beta2**num_steps)).sqrt_().add_(eps)
                change = unbiased / scale
            case SparseSGDConfig():
                pass
        self._weight[rows] -= learning_rate * change
