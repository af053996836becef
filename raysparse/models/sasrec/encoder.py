"""The encoder of SASRec (arXiv 1808.09781, section 3)."""

import torch
from torch import Tensor, nn

from raysparse.models.groups import Groups, Link
from raysparse.models.sasrec.attention import CausalAttention, Projections
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.gates import Context, Gate, build_gate, context_of
from raysparse.models.sasrec.jagged import Bucket, Wanted, buckets_of, places_of

_DEVIATION = 0.02
_EPS = 1e-12
"""RecBole's."""


class FeedForward(nn.Module):
    """Two layers with GELU between, gated where the config has gates: `[T, D]` to `[T, D]`."""

    def __init__(self, config: SASRecConfig, inner: int) -> None:
        super().__init__()
        width = config.embedding_dim
        self.inner = nn.Linear(width, inner)
        self.neurons = Groups(inner)
        self.outer = nn.Linear(inner, width)
        gated = config.gate != "none"
        self.inner_gate = build_gate(config.gate, width, inner) if gated else None
        self.outer_gate = build_gate(config.gate, width, width) if gated else None

    def forward(self, values: Tensor, context: Context | None) -> Tensor:
        """Return the outputs; `context` is what the gates read."""
        inner = nn.functional.gelu(_gated(self.inner(values), self.inner_gate, context))
        outputs = self.outer(self.neurons(inner))
        return _gated(outputs, self.outer_gate, context)


class Block(nn.Module):
    """Attention and a feed-forward network, each added to what it reads: `[T, D]` to `[T, D]`, or of some `[P, D]`."""

    def __init__(self, config: SASRecConfig, layer: int) -> None:
        super().__init__()
        width = config.embedding_dim
        self.pre_norm = config.norm == "pre"
        heads = (config.head_counts[layer], config.head_dims[layer])
        self.attention = CausalAttention(width, *heads, config.attention_kinds[layer], config.attention_dropout)
        self.feed_forward = FeedForward(config, config.inner_widths[layer])
        self.attention_norm = nn.LayerNorm(width, _EPS)
        self.feed_forward_norm = nn.LayerNorm(width, _EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, values: Tensor, buckets: list[Bucket], context: Context | None, wanted: Wanted | None = None
    ) -> Tensor:
        """Return the next block's inputs, those of `wanted` alone where it is given."""
        normed = self.attention_norm(values) if self.pre_norm else values
        attended = self.dropout(self.attention(normed, buckets, wanted))
        if wanted is not None:
            values = values[wanted.places]
            context = None if context is None else context.at(wanted.places)
        values = values + attended
        if self.pre_norm:
            return values + self.dropout(self.feed_forward(self.feed_forward_norm(values), context))
        values = self.attention_norm(values)
        return self.feed_forward_norm(values + self.dropout(self.feed_forward(values, context)))


class SASRec(nn.Module):
    """Rows of items in, an encoding of each item and all before it out: `[T, D]` to `[T, D]`, or of some `[P, D]`.

    Heads, and neurons of the feed-forward networks, are groups; what gates scale is not, so that with gates there are
    none.
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(torch.empty(config.max_length, config.embedding_dim))
        self.input_norm = nn.LayerNorm(config.embedding_dim, _EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        # A block with the norm behind it has already normalised its outputs.
        self.output_norm = nn.LayerNorm(config.embedding_dim, _EPS) if config.norm == "pre" else nn.Identity()
        self.links = _links_of(config)
        if not self.positions.is_meta:
            self.draw()

    def forward(self, values: Tensor, offsets: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode sequences of at most `max_length` items; `offsets` `[B + 1]` says where each begins.

        `wanted` `[P]` int64, ascending, are the places whose encodings are returned, in their order; all without it.
        The last block works out these alone, and what they attend to.
        """
        buckets = buckets_of(offsets)
        longest = buckets[-1].places.shape[1] if buckets else 0
        assert longest <= self.config.max_length, (
            f"a sequence of {longest} items, but max_length is {self.config.max_length}: cut it to its last ones"
        )
        inputs = self.input_norm(values + self.positions[places_of(offsets)])
        context = None if self.config.gate == "none" else context_of(self.config.gate, inputs, buckets)
        encoded = self.dropout(inputs)
        *others, last = self.blocks
        for block in others:
            encoded = block(encoded, buckets, context)
        some = None if wanted is None or len(wanted) == len(values) else Wanted.of(wanted, offsets)
        return self.output_norm(last(encoded, buckets, context, some))

    @torch.no_grad()
    def draw(self) -> None:
        """Draw all weights."""
        nn.init.normal_(self.positions, std=_DEVIATION)
        for module in self.modules():
            if isinstance(module, nn.Linear | Projections):
                nn.init.normal_(module.weight, std=_DEVIATION)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, Gate):
                module.close()


def _links_of(config: SASRecConfig) -> dict[str, Link]:
    links: dict[str, Link] = {}
    for layer in range(config.num_layers if config.gate == "none" else 0):
        attention, feed_forward = f"blocks.{layer}.attention", f"blocks.{layer}.feed_forward"
        links[f"{attention}.heads"] = Link(f"{attention}.project", f"{attention}.out")
        links[f"{feed_forward}.neurons"] = Link(f"{feed_forward}.inner", f"{feed_forward}.outer")
    return links


def _gated(values: Tensor, gate: Gate | None, context: Context | None) -> Tensor:
    if gate is None:
        return values
    assert context is not None
    return values * gate(context)
