"""A head that every rank copies, with its optimizer and the exchange of its gradients."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysparse.sharding.global_tensor import GlobalTensor, replicated
from raysparse.sharding.optimizer import DenseOptimizerConfig, build_dense_optimizer
from raysparse.sharding.tables import ReadTensors

ReadShapes = Callable[[str], dict[str, tuple[tuple[int, ...], torch.dtype]]]
"""Shapes and types of the checkpoint's tensors whose names start so, by the rest of the name."""


@runtime_checkable
class PartlyUsed(Protocol):
    """A head of which a step uses a part that changes from step to step, the same on all ranks."""

    def active_slices(self) -> dict[str, tuple[slice, ...]]:
        """Return by name the part of each parameter that gets a gradient; `()` is the whole of one."""
        ...


class TrainedHead:
    """A head and what it learns with. Every rank.

    Its gradients are averaged in one flat exchange after the backward pass: its order never changes, which makes
    a resumed run add in the same order (DDP rebuilds its buckets after the first step). Of a head that is partly used,
    the part alone is exchanged and changed. Masks have gradients, but are not learned.
    """

    def __init__(self, head: nn.Module, config: DenseOptimizerConfig, device: torch.device) -> None:
        self.module = head.to(device)
        self._config = config
        masks = {name for name, _ in head.named_parameters() if name.endswith("mask")}
        self._masks = [parameter for name, parameter in head.named_parameters() if name in masks]
        self._parameters = {name: parameter for name, parameter in head.named_parameters() if name not in masks}
        self.optimizer = build_dense_optimizer(config, list(self._parameters.values()))
        self._world_size = dist.get_world_size()

    def zero_grad(self) -> None:
        """Forget the last step's gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        for mask in self._masks:
            mask.grad = None

    def step(self, others: Iterable[Tensor] = ()) -> None:
        """Average the gradients, with those of `others`, over the ranks and learn; all ranks together."""
        parts = self.module.active_slices() if isinstance(self.module, PartlyUsed) else None
        learned = self._gradients(parts)
        beside = [parameter.grad for parameter in (*self._masks, *others) if parameter.grad is not None]
        self._average([*learned.values(), *beside])
        if self._config.clip_norm is not None:
            _clip(list(learned.values()), self._config.clip_norm)
        if parts is None:
            self.optimizer.step()
        else:
            self._step_parts(parts, learned)

    def _gradients(self, parts: dict[str, tuple[slice, ...]] | None) -> dict[str, Tensor]:
        """The gradients of what is learned, or of the parts that are used, by name; they are views."""
        if parts is None:
            return {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        gradients: dict[str, Tensor] = {}
        for name, part in parts.items():
            gradient = self._parameters[name].grad
            assert gradient is not None, f"{name} is said to be used, and has no gradient"
            gradients[name] = gradient[part]
        return gradients

    def _average(self, gradients: Sequence[Tensor]) -> None:
        if self._world_size == 1:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self._world_size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def _step_parts(self, parts: dict[str, tuple[slice, ...]], gradients: dict[str, Tensor]) -> None:
        # The optimizer's own step would go over all weights of the space: 82 M in NASRec's on Criteo.
        group = self.optimizer.param_groups[0]
        for name, gradient in gradients.items():
            parameter, part = self._parameters[name], parts[name]
            weight = parameter[part]
            if self._config.kind == "adam":
                weight.mul_(1.0 - group["lr"] * group["weight_decay"])
                weight.add_(self._adam_direction(parameter, part, gradient, group), alpha=-group["lr"])
                continue
            if group["weight_decay"]:
                gradient = gradient.add(weight, alpha=group["weight_decay"])
            if self._config.kind == "adagrad":
                squares = self.optimizer.state[parameter]["sum"][part]
                squares.addcmul_(gradient, gradient)
                weight.addcdiv_(gradient, squares.sqrt().add_(group["eps"]), value=-group["lr"])
            else:
                weight.add_(gradient, alpha=-group["lr"])

    def _adam_direction(
        self, parameter: nn.Parameter, part: tuple[slice, ...], gradient: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """Adam's step over the part that is used; a weight's moments rest while it is not.

        So each weight has a number of uses of its own, which corrects its moments' bias as the number of steps does
        where all are used.
        """
        state = self.optimizer.state[parameter]
        if not state:
            state.update({key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq", "uses")})
        first, second, uses = (state[key][part] for key in ("exp_avg", "exp_avg_sq", "uses"))
        beta1, beta2 = group["betas"]
        uses.add_(1.0)
        first.lerp_(gradient, 1.0 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        root = second.div(1.0 - torch.pow(beta2, uses)).sqrt_().add_(group["eps"])
        return first.div(1.0 - torch.pow(beta1, uses)).div_(root)

    def set_learning_rate_factor(self, factor: float) -> None:
        """Scale the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._config.learning_rate * factor

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """The optimizer's state, live, by parameter and name; empty before the first step."""
        return {name: self.optimizer.state[parameter] for name, parameter in self._parameters.items()}

    def set_moments(self, moments: dict[str, dict[str, Tensor]]) -> None:
        """Take over an optimizer's state; the tensors are used as they are."""
        for name, parameter in self._parameters.items():
            self.optimizer.state[parameter] = dict(moments.get(name, {}))

    def state(self) -> dict[str, GlobalTensor]:
        """Everything learned, by name: `head/...`, `head_optimizer/...`."""
        tensors = {f"head/{name}": replicated(tensor) for name, tensor in self.module.state_dict().items()}
        for name, moments in self.moments().items():
            for key, value in moments.items():
                tensors[f"head_optimizer/{name}/{key}"] = replicated(value)
        return tensors

    def load(self, read: ReadTensors, shapes: ReadShapes) -> None:
        """Restore what `state` gave."""
        for name, parameter in self._parameters.items():
            # torch creates an optimizer's state at its first step only; the checkpoint says what there is.
            for key, (shape, dtype) in shapes(f"head_optimizer/{name}/").items():
                # A fused optimizer keeps its number of steps, too, where the parameter is.
                self.optimizer.state[parameter][key] = torch.empty(shape, dtype=dtype, device=parameter.device)
        read(self.state())


def _clip(gradients: Sequence[Tensor], largest: float) -> None:
    norm = nn.utils.get_total_norm(gradients)
    # As clip_grad_norm_ has it: no branch on the norm, which would wait for the device.
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
