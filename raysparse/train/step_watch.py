"""Looks after the losses of all ranks, one step behind, without making a step wait."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from raysparse.errors import NonFiniteLossError


@dataclass(frozen=True)
class _Step:
    values: Tensor
    work: "dist.Work | None"
    day: str
    batch: int
    arms: tuple[str, ...]


class StepWatch:
    """Sums each step's losses over the ranks while the backward pass runs and looks at them a step later.

    So every rank finds a loss that is not finite at the same step and names the same batch, and rank 0's wish
    to save reaches all of them at the same step.
    """

    def __init__(self) -> None:
        self._pending: _Step | None = None

    def send(self, losses: dict[str, Tensor], day: str, batch: int, *, save_requested: bool) -> None:
        """Start the exchange of a step's loss sums, per arm."""
        request = torch.tensor(float(save_requested), device=next(iter(losses.values())).device)
        values = torch.stack([*(loss.detach() for loss in losses.values()), request])
        work = dist.all_reduce(values, async_op=True) if dist.get_world_size() > 1 else None
        self._pending = _Step(values, work, day, batch, tuple(losses))

    def check(self) -> bool:
        """Look at the step that was sent last; whether rank 0 asked to save. Raises NonFiniteLossError."""
        step, self._pending = self._pending, None
        if step is None:
            return False
        if step.work is not None:
            step.work.wait()
        *losses, request = step.values.tolist()
        for arm, loss in zip(step.arms, losses, strict=True):
            if not torch.isfinite(torch.tensor(loss)):
                raise NonFiniteLossError(
                    f"the loss of arm {arm!r} is {loss} on day {step.day}, batch {step.batch} (from 0). Lower "
                    "sparse.learning_rate or dense.learning_rate under optimizer (in a search supernet.optimizer or "
                    "finalists.optimizer, in a tune run job.optimizer), set its dense.clip_norm or "
                    "schedule.warm_up_steps, or look at that day's dense values. Another optimizer is another run: "
                    "start_from in it takes this one's last checkpoint, which is good"
                )
        return request > 0
