"""What the networks of an elastic SASRec may choose from."""

from collections.abc import Callable, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from raysparse.config import Config
from raysparse.models.sasrec.config import (
    Attention,
    FullSoftmaxConfig,
    LossConfig,
    Positive,
    SampledSoftmaxConfig,
    SASRecConfig,
)


class SASRecSpaceConfig(Config):
    """SASRec networks, each a part of the largest one: the first channels, heads, neurons and blocks of it."""

    kind: Literal["sasrec"] = "sasrec"
    widths: tuple[Positive, ...] = Field(default=(16, 32, 64), min_length=1)
    """Widths of table and encoder."""
    head_dim: int = Field(default=16, ge=1)
    """Width of a head, in all networks the same."""
    heads: tuple[Positive, ...] = Field(default=(1, 2, 4), min_length=1)
    """Attention heads of a block."""
    ffn_ratios: tuple[Positive, ...] = Field(default=(1, 2, 4), min_length=1)
    """Inner widths of a block's feed-forward network, in widths of the encoder."""
    depths: tuple[Positive, ...] = Field(default=(1, 2, 3, 4), min_length=1)
    """Numbers of blocks, ascending."""
    lengths: tuple[Positive, ...] = Field(default=(50,), min_length=1)
    """Items of a history that are read, the last ones."""
    attentions: tuple[Attention, ...] = Field(default=("softmax",), min_length=1)
    """Kinds of a block's attention; the first one is that of the largest and the smallest network."""
    max_macs: int | None = Field(default=None, ge=1)
    """Multiply-adds of a network's encoder for a history of its length, at most; null: any."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Of every network, as the keys below."""
    norm: Literal["pre", "post"] = "pre"
    gate: Literal["none", "paper", "context"] = "none"
    loss: LossConfig = SampledSoftmaxConfig()

    @property
    def largest(self) -> SASRecConfig:
        """The network that all others are parts of, but for the kinds of attention."""
        return self._of_one_size(max)

    @property
    def smallest(self) -> SASRecConfig:
        """The network that is a part of all others, but for the kinds of attention."""
        return self._of_one_size(min)

    def network(
        self, width: int, length: int, heads: Sequence[int], ratios: Sequence[int], kinds: Sequence[Attention]
    ) -> SASRecConfig:
        """Return a network of as many blocks as there are numbers of heads, `ratios` and `kinds`."""
        return SASRecConfig(
            embedding_dim=width,
            num_layers=len(heads),
            num_heads=tuple(heads),
            head_dim=self.head_dim,
            ffn_width=tuple(ratio * width for ratio in ratios),
            max_length=length,
            dropout=self.dropout,
            norm=self.norm,
            attention=tuple(kinds),
            gate=self.gate,
            loss=self.loss,
        )

    def _of_one_size(self, extreme: Callable[[Sequence[int]], int]) -> SASRecConfig:
        depth = extreme(self.depths)
        return self.network(
            extreme(self.widths),
            extreme(self.lengths),
            [extreme(self.heads)] * depth,
            [extreme(self.ffn_ratios)] * depth,
            self.attentions[:1] * depth,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("widths", "heads", "ffn_ratios", "depths", "lengths", "attentions"):
            values: tuple[object, ...] = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} of different values; found {', '.join(map(str, values))}")
        if list(self.depths) != sorted(self.depths):
            raise ValueError(f"depths in ascending order; found {', '.join(map(str, self.depths))}")
        odd = [width for width in self.widths if width % 4]
        if odd:
            raise ValueError(f"widths that are multiples of 4; found {', '.join(map(str, odd))}")
        if not isinstance(self.loss, FullSoftmaxConfig | SampledSoftmaxConfig):
            raise ValueError(
                "loss.kind full_softmax or sampled_softmax, since smaller networks learn the probabilities of the "
                f"largest; found {self.loss.kind}"
            )
        return self
