"""Data-aware gates: factors in (0, 2) on the channels of a feed-forward network, made of what the table gave."""

import torch
from torch import Tensor, nn

from raysparse.models.sasrec.jagged import Bucket, by_bucket


class Gate(nn.Module):
    """Two layers to a factor per channel; they start as exactly 1, so that a gated network starts as one without."""

    def __init__(self, width: int, hidden: int, num_channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.channels = nn.Linear(hidden, num_channels)
        self.close()

    def close(self) -> None:
        """Set the last layer to 0, whatever its first weights were: the factor is 1."""
        nn.init.zeros_(self.channels.weight)
        nn.init.zeros_(self.channels.bias)

    def forward(self, context: Tensor) -> Tensor:
        """Return factors `[T, C]` of contexts `[T, W]`."""
        return 2.0 * torch.sigmoid(self.channels(torch.relu(self.hidden(context))))


def build_gate(kind: str, width: int, num_channels: int) -> Gate:
    """Make a gate: EASRec's, as wide inside as outside, or one of a quarter of the width that also reads a mean."""
    if kind == "paper":
        return Gate(width, num_channels, num_channels)
    return Gate(2 * width, max(1, width // 4), num_channels)


def context_of(kind: str, inputs: Tensor, buckets: list[Bucket]) -> Tensor:
    """Return what gates read of the encoder's inputs `[T, D]`: themselves, or with the mean of all so far `[T, 2D]`."""
    if kind == "paper":
        return inputs
    mean = prefix_mean(inputs, buckets) if buckets else inputs
    return torch.cat([inputs, mean], dim=1)


def prefix_mean(inputs: Tensor, buckets: list[Bucket]) -> Tensor:
    """Return the mean of each sequence's items up to each of them, `[T, D]`."""
    return by_bucket(buckets, inputs, lambda padded, _: padded.cumsum(1) / _counts(padded))


def _counts(padded: Tensor) -> Tensor:
    return torch.arange(1, padded.shape[1] + 1, device=padded.device).unsqueeze(1)
