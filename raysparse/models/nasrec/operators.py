"""The operators and mergers of a block, each on a part of its weights.

Tokens are `[B, D, T]` in here: maps across the tokens and their layer norm then go along the last dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from raysparse.models.fused_attention import fused_attention
from raysparse.models.layers import PairwiseDots
from raysparse.models.nasrec.choice import NUM_MERGED, BlockChoice
from raysparse.models.nasrec.projection import Columns, Projection
from raysparse.models.nasrec.shape import WHOLE, BlockShape, merged_name
from raysparse.models.nasrec.sizes import BlockSizes

ATTENTION_NORM = 0.17
"""First weight of attention's layer norms, as published."""

HEAD_DIM = 2
"""Width of an attention head: eight heads on 16 columns."""


@dataclass(frozen=True)
class Output:
    """What a block, or the raw input, gives to its readers."""

    name: str
    """Of the columns that read it."""
    dense: Tensor | None
    """`[B, W]`; None where nobody reads it."""
    tokens: Tensor | None
    """`[B, D, T]`; None where nobody reads them."""
    merged: Tensor | None = None
    """`[B, D, 8]`, appended to the tokens."""


class Reads:
    """What a block reads, joined when asked for, with the columns of the weights that it belongs to."""

    def __init__(self, outputs: Sequence[Output], block: BlockChoice, sizes: BlockSizes, layer_norm: bool) -> None:
        self._outputs = outputs
        self._block = block
        self.sizes = sizes
        self.layer_norm = layer_norm

    @cached_property
    def dense(self) -> tuple[Tensor, Columns]:
        """The dense inputs `[B, X]`."""
        tensors = [self._dense(index) for index in sorted(self._block.dense_inputs)]
        return _joined(tensors)

    @cached_property
    def tokens(self) -> tuple[Tensor, Columns]:
        """The sparse inputs `[B, D, T]`."""
        tensors: list[tuple[str, Tensor]] = []
        for index in sorted(self._block.sparse_inputs):
            output = self._outputs[index]
            assert output.tokens is not None
            tensors.append((output.name, output.tokens))
            if output.merged is not None:
                tensors.append((merged_name(output.name), output.merged))
        return _joined(tensors)

    @property
    def left(self) -> tuple[Tensor, Columns]:
        """The first of two dense inputs `[B, L]`."""
        return _joined([self._dense(self._block.left)])

    @property
    def right(self) -> tuple[Tensor, Columns]:
        """The second of two dense inputs `[B, R]`."""
        return _joined([self._dense(self._block.right)])

    def _dense(self, index: int) -> tuple[str, Tensor]:
        output = self._outputs[index]
        assert output.dense is not None
        return output.name, output.dense


def _joined(tensors: list[tuple[str, Tensor]]) -> tuple[Tensor, Columns]:
    columns = tuple((name, tensor.shape[-1]) for name, tensor in tensors)
    return tensors[0][1] if len(tensors) == 1 else torch.cat([tensor for _, tensor in tensors], dim=-1), columns


def whole(width: int) -> Columns:
    """The first columns of a weight that is in one piece."""
    return ((WHOLE, width),)


class FullyConnected(nn.Module):
    """ReLU(LN(W x))."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.project = Projection("fc", shape.dense_pieces, shape.dense_width, shape.layer_norms)

    def forward(self, reads: Reads) -> Tensor:
        """Return the dense output `[B, W]`."""
        inputs, columns = reads.dense
        return torch.relu(self.project(inputs, columns, reads.sizes.dense_width, reads.layer_norm))


class Cross(nn.Module):
    """LN(P ((A l + a) * r)), the narrower of l and r filled up with zeros: DCN-v2's products (arXiv 2008.13535, eq. 1).

    Columns of A that meet those zeros, and its rows and the columns of P that only they would pass, are left out: they
    change nothing.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.gate = Projection("gate", shape.left_pieces, shape.right_width, (False,))
        self.project = Projection(
            "gated", shape.right_pieces, shape.dense_width, shape.layer_norms, shape.skips("gated")
        )

    def forward(self, reads: Reads) -> Tensor:
        """Return the dense output `[B, W]`."""
        (left, left_columns), (right, right_columns) = reads.left, reads.right
        gated = self.factor(self.gate(left, left_columns, right.shape[1], False)) * right
        skip = reads.sizes.skips("gated")
        if skip:
            gated = _padded(gated, reads.sizes.gate_width)
        return self.project(gated, right_columns, reads.sizes.dense_width, reads.layer_norm, skip)

    def factor(self, mapped: Tensor) -> Tensor:
        """What the right input is multiplied by, `[B, R]` to `[B, R]`."""
        return mapped


class Gating(Cross):
    """LN(P (sigmoid(A l + a) * r))."""

    def factor(self, mapped: Tensor) -> Tensor:
        """The gate."""
        return torch.sigmoid(mapped)


class Sum(nn.Module):
    """LN(P (l + r)), the narrower of l and r filled up with zeros."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.project = Projection(
            "sum", {WHOLE: shape.gate_width}, shape.dense_width, shape.layer_norms, shape.skips("sum")
        )

    def forward(self, reads: Reads) -> Tensor:
        """Return the dense output `[B, W]`."""
        sizes = reads.sizes
        left, right = (_padded(inputs, sizes.gate_width) for inputs, _ in (reads.left, reads.right))
        columns = whole(sizes.gate_width)
        return self.project(left + right, columns, sizes.dense_width, reads.layer_norm, sizes.skips("sum"))


class Dot(nn.Module):
    """LN(P (products of all pairs of a dense vector and compressed tokens)), as many pairs as outputs or so."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        norms = shape.layer_norms
        self.vector = Projection("vector", shape.dense_pieces, shape.embedding_dim, norms, shape.skips("vector"))
        self.compress = Projection("compress", shape.token_pieces, shape.num_compressed, norms, shape.skips("compress"))
        self.project = Projection("pairs", {WHOLE: shape.num_pairs}, shape.dense_width, norms, shape.skips("pairs"))

    def forward(self, reads: Reads) -> Tensor:
        """Return the dense output `[B, W]`."""
        sizes, norm = reads.sizes, reads.layer_norm
        vector = self.vector(*reads.dense, sizes.embedding_dim, norm, sizes.skips("vector"))
        tokens = self.compress(*reads.tokens, sizes.num_compressed, norm, sizes.skips("compress"))
        # The dense vector comes first: the pairs of fewer tokens are then the first pairs of more.
        vectors = torch.cat([vector.unsqueeze(2), tokens], dim=2).transpose(1, 2)
        products = _pairwise(vectors.shape[1], vectors.device)(vectors)
        return self.project(products, whole(sizes.num_pairs), sizes.dense_width, norm, sizes.skips("pairs"))


class EFC(nn.Module):
    """ReLU(LN(W S)), W across the tokens."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.project = Projection("tokens", shape.token_pieces, shape.num_tokens, shape.layer_norms)

    def forward(self, reads: Reads) -> Tensor:
        """Return the tokens `[B, D, T]`."""
        return torch.relu(self.project(*reads.tokens, reads.sizes.num_tokens, reads.layer_norm))


class Attention(nn.Module):
    """LN(W S) across the tokens, then self-attention of heads of width 2, then two small layers; residuals and norms.

    The norms after the two residuals stay in choices without layer norm.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        width = shape.embedding_dim
        self.project = Projection("tokens", shape.token_pieces, shape.num_tokens, shape.layer_norms)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.feed_forward_norm = nn.LayerNorm(width)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for norm in (self.attended_norm, self.feed_forward_norm):
            nn.init.constant_(norm.weight, ATTENTION_NORM)

    def forward(self, reads: Reads) -> Tensor:
        """Return the tokens `[B, D, T]`."""
        tokens = self.project(*reads.tokens, reads.sizes.num_tokens, reads.layer_norm)
        return self.attend(tokens.transpose(1, 2)).transpose(1, 2)

    def attend(self, vectors: Tensor, attended_to: Tensor | None = None) -> Tensor:
        """What follows the projection: `[B, T, D]` to `[B, T, D]`; `[1, T]` says which tokens count, None: all."""
        heads = self.query_key_value(vectors).unflatten(2, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        attended = fused_attention(heads[0], heads[1], heads[2], attended_to)
        attended = self.attended_norm(vectors + self.out(attended.transpose(1, 2).flatten(2)))
        return self.feed_forward_norm(attended + self.feed_forward(attended))


class Merge(nn.Module):
    """The dense operator's output as 8 more tokens: `[B, W]` to `[B, D, 8]`."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        width = NUM_MERGED * shape.embedding_dim
        self.project = Projection("merge", {WHOLE: shape.dense_width}, width, shape.layer_norms, shape.skips("merge"))

    def forward(self, dense: Tensor, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        """Return the tokens to append."""
        width = NUM_MERGED * sizes.embedding_dim
        tokens = self.project(dense, whole(dense.shape[1]), width, layer_norm, sizes.skips("merge"))
        return tokens.unflatten(1, (NUM_MERGED, -1)).transpose(1, 2)


class FactorizationMachine(nn.Module):
    """P ((sum of tokens)^2 - sum of tokens^2), to be added to the dense output: `[B, D, T]` to `[B, W]`."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.project = Projection(
            "fm", {WHOLE: shape.embedding_dim}, shape.dense_width, shape.layer_norms, shape.skips("fm")
        )

    def forward(self, tokens: Tensor, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        """Return the term to add."""
        products = tokens.sum(2).square() - tokens.square().sum(2)
        return self.project(products, whole(sizes.embedding_dim), sizes.dense_width, layer_norm, sizes.skips("fm"))


def _padded(inputs: Tensor, width: int) -> Tensor:
    return nn.functional.pad(inputs, (0, width - inputs.shape[1])) if inputs.shape[1] < width else inputs


@lru_cache(maxsize=256)
def _pairwise(num_vectors: int, device: torch.device) -> PairwiseDots:
    # Kept for training as well, which refuses tensors that were made in inference mode.
    with torch.inference_mode(False):
        return PairwiseDots(num_vectors).to(device)
