"""The masked twin of an elastic encoder: computed at full width, with weights over what a network may choose.

Where each axis has all of its weight on one option it computes that network, and zeros beyond its width; weights in
between make the choice differentiable.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raysparse.models.sasrec.attention import CausalAttention, attend
from raysparse.models.sasrec.config import Attention, SASRecConfig
from raysparse.models.sasrec.encoder import Block, SASRec
from raysparse.models.sasrec.gates import Context, Gate, context_of, context_width
from raysparse.models.sasrec.jagged import Bucket, buckets_of, by_bucket, places_of
from raysparse.models.sasrec.menu import SASRecSpaceConfig


@dataclass(frozen=True)
class Weights:
    """Weights over the options of each axis of a space; those of an axis sum up to 1."""

    width: Tensor
    """`[widths]`"""
    depth: Tensor
    """`[depths]`"""
    heads: Tensor
    """`[blocks, heads]`: of each block of the largest network."""
    ratios: Tensor
    """`[blocks, ffn_ratios]`"""
    kinds: Tensor
    """`[blocks, attentions]`"""

    @property
    def all(self) -> tuple[Tensor, ...]:
        """The axes in their order."""
        return self.width, self.depth, self.heads, self.ratios, self.kinds


def weights_of(space: SASRecSpaceConfig, choice: SASRecConfig) -> Weights:
    """Return the weights that choose one network; blocks beyond its depth take their axes' first options."""
    blocks = max(space.depths)

    def one_hot(options: tuple[object, ...], found: list[object]) -> Tensor:
        chosen = [*found, *options[:1] * (blocks - len(found))]
        return torch.tensor([[float(option == value) for option in options] for value in chosen])

    width = choice.embedding_dim
    ratios: list[object] = [inner // width for inner in choice.inner_widths]
    return Weights(
        width=torch.tensor([float(option == width) for option in space.widths]),
        depth=torch.tensor([float(option == choice.num_layers) for option in space.depths]),
        heads=one_hot(space.heads, list(choice.head_counts)),
        ratios=one_hot(space.ffn_ratios, ratios),
        kinds=one_hot(space.attentions, list(choice.attention_kinds)),
    )


def encode_relaxed(
    network: SASRec, space: SASRecSpaceConfig, weights: Weights, values: Tensor, offsets: Tensor
) -> Tensor:
    """Encode `[T, D]` with the weights of the largest network of a space: to `[T, D]`."""
    channels = _nested(weights.width, space.widths, values.shape[1])
    buckets = buckets_of(offsets)
    inputs = _norm(network.input_norm, values + network.positions[places_of(offsets)], channels)
    context = None if space.gate == "none" else context_of(space.gate, inputs, buckets)
    encoded = network.dropout(inputs)
    outputs: list[Tensor] = []
    for number, block in enumerate(network.blocks, start=1):
        assert isinstance(block, Block)
        masks = _BlockMasks.of(space, weights, number - 1, channels)
        encoded = _block(block, encoded, buckets, context, masks)
        if number in space.depths:
            share = weights.depth[space.depths.index(number)]
            output = encoded
            if isinstance(network.output_norm, nn.LayerNorm):
                output = _norm(network.output_norm, encoded, channels)
            outputs.append(share * output)
    return torch.stack(outputs).sum(0)


@dataclass(frozen=True)
class _BlockMasks:
    channels: Tensor
    heads: Tensor
    neurons: Tensor
    kinds: dict[Attention, Tensor]
    in_gates: Tensor | None
    """Within gates that all have the same width inside; None: as wide inside as outside."""

    @classmethod
    def of(cls, space: SASRecSpaceConfig, weights: Weights, layer: int, channels: Tensor) -> "_BlockMasks":
        # A ratio is one of the width: a neuron is there where ratio times width reaches it.
        reached = torch.tensor([ratio * width for width in space.widths for ratio in space.ffn_ratios])
        of_both = torch.outer(weights.width, weights.ratios[layer]).flatten()
        neurons = _nested(of_both, tuple(reached.tolist()), int(reached.max()))
        heads = _nested(weights.heads[layer], space.heads, max(space.heads)).repeat_interleave(space.head_dim)
        kinds = dict(zip(space.attentions, weights.kinds[layer], strict=True))
        in_gates = None
        if space.gate == "context":
            in_gates = _nested(weights.width, tuple(map(context_width, space.widths)), context_width(max(space.widths)))
        return cls(channels, heads, neurons, kinds, in_gates)


def _block(block: Block, values: Tensor, buckets: list[Bucket], context: Context | None, masks: _BlockMasks) -> Tensor:
    channels, drop = masks.channels, block.dropout
    if block.pre_norm:
        normed = _norm(block.attention_norm, values, channels)
        values = values + drop(_attention(block.attention, normed, buckets, masks))
        normed = _norm(block.feed_forward_norm, values, channels)
        return values + drop(_feed_forward(block, normed, context, masks))
    attended = values + drop(_attention(block.attention, values, buckets, masks))
    values = _norm(block.attention_norm, attended, channels)
    return _norm(block.feed_forward_norm, values + drop(_feed_forward(block, values, context, masks)), channels)


def _attention(attention: CausalAttention, values: Tensor, buckets: list[Bucket], masks: _BlockMasks) -> Tensor:
    if not buckets:
        return values
    projected = attention.project(values)
    attended = torch.stack(
        [
            share * by_bucket(buckets, projected, lambda padded, _, kind=kind: attend(padded, attention, kind))
            for kind, share in masks.kinds.items()
        ]
    ).sum(0)
    return attention.out(attended * masks.heads) * masks.channels


def _feed_forward(block: Block, values: Tensor, context: Context | None, masks: _BlockMasks) -> Tensor:
    layers = block.feed_forward
    neurons = _gated(layers.inner(values), layers.inner_gate, context, masks, masks.neurons)
    outputs = layers.outer(nn.functional.gelu(neurons) * masks.neurons)
    return _gated(outputs, layers.outer_gate, context, masks, masks.channels) * masks.channels


def _gated(values: Tensor, gate: Gate | None, context: Context | None, masks: _BlockMasks, own: Tensor) -> Tensor:
    """Scale channels; `own` says how much each of them is there."""
    if gate is None:
        return values
    assert context is not None
    return values * gate(context, own if masks.in_gates is None else masks.in_gates)


def _norm(norm: nn.LayerNorm, values: Tensor, channels: Tensor) -> Tensor:
    """Layer norm over the channels that are there, each as much as it is there."""
    count = channels.sum()
    mean = (values * channels).sum(-1, keepdim=True) / count
    variance = ((values - mean).square() * channels).sum(-1, keepdim=True) / count
    return ((values - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias) * channels


def _nested(weights: Tensor, sizes: tuple[int, ...], length: int) -> Tensor:
    """How much each of `length` places is there, when an option takes the first `size` of them."""
    reached = torch.arange(length, device=weights.device) < torch.tensor(sizes, device=weights.device).unsqueeze(1)
    return weights @ reached.to(weights.dtype)
