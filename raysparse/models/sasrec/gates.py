"""Data-aware gates: factors in (0, 2) on the channels of a feed-forward network, made of what the table gave."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raysparse.models.sasrec.jagged import Bucket, by_bucket


@dataclass(frozen=True)
class Context:
    """What gates read."""

    items: Tensor
    """`[T, D]`: the encoder's inputs."""
    mean: Tensor
    """`[T, D]`: for each of them the mean of its sequence so far; the inputs where no gate reads it."""

    def at(self, places: Tensor) -> "Context":
        """Return what gates read of some of the items."""
        return Context(self.items[places], self.mean[places])


class Gate(nn.Module):
    """Two layers to a factor per channel; they start as exactly 1, so that a gated network starts as one without."""

    def __init__(self, width: int, hidden: int, num_channels: int, reads_mean: bool) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        # Apart from the item's, so that a narrower network's weights are a prefix of both.
        self.of_mean = nn.Linear(width, hidden, bias=False) if reads_mean else None
        self.channels = nn.Linear(hidden, num_channels)
        self.close()

    def close(self) -> None:
        """Set the last layer to 0, whatever its first weights were: the factor is 1."""
        nn.init.zeros_(self.channels.weight)
        nn.init.zeros_(self.channels.bias)

    def forward(self, context: Context, inside: Tensor | None = None) -> Tensor:
        """Return factors `[T, C]`; `inside` says how much each channel between the layers is there, all where None."""
        hidden = self.hidden(context.items)
        if self.of_mean is not None:
            hidden = hidden + self.of_mean(context.mean)
        hidden = torch.relu(hidden)
        return 2.0 * torch.sigmoid(self.channels(hidden if inside is None else hidden * inside))


def build_gate(kind: str, width: int, num_channels: int) -> Gate:
    """Make a gate: EASRec's, as wide inside as outside, or one of a quarter of the width that also reads a mean."""
    if kind == "paper":
        return Gate(width, num_channels, num_channels, reads_mean=False)
    return Gate(width, context_width(width), num_channels, reads_mean=True)


def context_width(width: int) -> int:
    """Return how wide a gate with context is inside, in an encoder of a width."""
    return max(1, width // 4)


def context_of(kind: str, inputs: Tensor, buckets: list[Bucket]) -> Context:
    """Return what gates read of the encoder's inputs `[T, D]`: themselves, and for `context` the mean of all so far."""
    return Context(inputs, prefix_mean(inputs, buckets) if kind == "context" and buckets else inputs)


def prefix_mean(inputs: Tensor, buckets: list[Bucket]) -> Tensor:
    """Return the mean of each sequence's items up to each of them, `[T, D]`."""
    return by_bucket(buckets, inputs, lambda padded, _: padded.cumsum(1) / _counts(padded))


def _counts(padded: Tensor) -> Tensor:
    return torch.arange(1, padded.shape[1] + 1, device=padded.device).unsqueeze(1)
