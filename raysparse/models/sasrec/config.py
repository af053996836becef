"""The keys of a sequence model and of its loss."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysparse.config import Config

Attention = Literal["softmax", "linear"]
Positive = Annotated[int, Field(ge=1)]


class FullSoftmaxConfig(Config):
    """Cross-entropy over all items: for catalogues of up to some 100,000, since every step looks all of them up."""

    kind: Literal["full_softmax"] = "full_softmax"


class SampledSoftmaxConfig(Config):
    """Cross-entropy over the target and negatives that all targets of a step share."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    num_negatives: int = Field(default=256, ge=1)
    """Negatives of a step."""
    negatives: Literal["uniform", "popular"] = "uniform"
    """Whether they are drawn evenly, or by how often the items occur; on a stream of days evenly, since the counts go
    to its end."""
    log_q_correction: bool = True
    """Whether a negative's logit loses the log of how often its item is expected among the negatives (Bengio and
    Senecal 2008), so that the negatives stand for all other items; without it they stand for themselves alone."""


class GBCEConfig(Config):
    """Generalised binary cross-entropy, which takes overconfidence out of it (gSASRec, arXiv 2308.07192)."""

    kind: Literal["gbce"] = "gbce"
    num_negatives: int = Field(default=256, ge=1)
    """Negatives of a step, drawn evenly; all its targets share them."""
    t: float = Field(default=0.75, ge=0, le=1)
    """Calibration: 0 is plain binary cross-entropy, 1 gives probabilities as calibrated as full softmax does."""


class BCEConfig(Config):
    """Binary cross-entropy of the target and negatives of its own, drawn evenly from all items but the target.

    SASRec's own loss, but that its authors leave out all items of the user.
    """

    kind: Literal["bce"] = "bce"
    num_negatives: int = Field(default=1, ge=1)
    """Negatives of each target."""


LossConfig = Annotated[FullSoftmaxConfig | SampledSoftmaxConfig | GBCEConfig | BCEConfig, Field(discriminator="kind")]
SoftmaxConfig = Annotated[FullSoftmaxConfig | SampledSoftmaxConfig, Field(discriminator="kind")]
"""Losses whose probabilities one network can learn from another."""


class SASRecConfig(Config):
    """Self-attention over a user's history; an item's score is its row of the table times the encoding."""

    kind: Literal["sasrec"] = "sasrec"
    embedding_dim: int = Field(default=64, ge=4, multiple_of=4)
    """Width of the table and of the encoder."""
    num_layers: int = Field(default=2, ge=1)
    """Blocks of attention and feed-forward network, one after the other."""
    num_heads: Positive | tuple[Positive, ...] = 2
    """Attention heads of every block, or of each one."""
    head_dim: int | None = Field(default=None, ge=1)
    """Width of a head; null: all heads of a block together are as wide as `embedding_dim`."""
    ffn_width: Positive | tuple[Positive, ...] | None = None
    """Inner width of every block's feed-forward network, or of each one; null: four times `embedding_dim`."""
    max_length: int = Field(default=50, ge=1)
    """Items of a history that are read, the last ones."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the inputs and of each layer's outputs that training leaves out."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of softmax attention's weights that training leaves out. On a CPU it takes attention out of its fused
    kernel, which makes it 2.3 times as slow at 50 items and 13 times at 2,048."""
    norm: Literal["pre", "post"] = "pre"
    """Whether a block normalises what it reads, or what it has added to."""
    attention: Attention | tuple[Attention, ...] = "softmax"
    """Kind of every block's attention, or one per block; the cost of linear grows with the history, not its square."""
    gate: Literal["none", "paper", "context"] = "none"
    """Data-aware gates of the feed-forward networks: EASRec's (arXiv 2402.00390) of the item alone, or narrower ones
    that also read the mean of all items so far."""
    loss: LossConfig = SampledSoftmaxConfig()
    """What training descends on."""

    @property
    def attention_kinds(self) -> tuple[Attention, ...]:
        """The kind of each block's attention."""
        return self.attention if isinstance(self.attention, tuple) else (self.attention,) * self.num_layers

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Heads of each block."""
        return self.num_heads if isinstance(self.num_heads, tuple) else (self.num_heads,) * self.num_layers

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Width of each block's heads."""
        return tuple(self.head_dim or self.embedding_dim // count for count in self.head_counts)

    @property
    def inner_widths(self) -> tuple[int, ...]:
        """Inner width of each block's feed-forward network."""
        if isinstance(self.ffn_width, tuple):
            return self.ffn_width
        return (self.ffn_width or 4 * self.embedding_dim,) * self.num_layers

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, per_block in (
            ("attention", self.attention_kinds),
            ("num_heads", self.head_counts),
            ("ffn_width", self.inner_widths),
        ):
            if len(per_block) != self.num_layers:
                raise ValueError(f"{key} of one value, or of one per layer: {self.num_layers}; found {len(per_block)}")
        for count in self.head_counts:
            if self.head_dim is None and self.embedding_dim % count:
                raise ValueError(
                    f"num_heads that divide embedding_dim {self.embedding_dim}, or a head_dim; found {count}"
                )
        return self
