"""Multiply-adds and parameters of a choice in closed form. Pure."""

from dataclasses import dataclass

from raysparse.models.nasrec.choice import NUM_MERGED, BlockChoice, NASRecConfig
from raysparse.models.nasrec.sizes import BlockSizes, sizes_of


@dataclass(frozen=True)
class Count:
    """What a choice's live operators take, tables excluded."""

    macs: int
    """Multiply-adds of the matrix products for one row."""
    parameters: int

    def __add__(self, other: "Count") -> "Count":
        return Count(self.macs + other.macs, self.parameters + other.parameters)


def count(choice: NASRecConfig, num_dense: int, num_features: int, *, padded: bool = False) -> Count:
    """Count a choice as it runs alone.

    `padded` counts, as the published figures do, the products with the zeros to which gating fills up its narrower
    input; the networks here leave them out.
    """
    counter = _Counter(choice.embedding_dim, choice.layer_norm, padded)
    all_sizes = sizes_of(choice, num_dense, num_features)
    total = Count(0, 0)
    for block, sizes in zip(choice.blocks, all_sizes, strict=True):
        total += counter.block(block, sizes)
    head = all_sizes[-1].dense_width + all_sizes[-1].num_tokens_out * choice.embedding_dim
    return total + Count(head, head + 1)


@dataclass(frozen=True)
class _Counter:
    embedding_dim: int
    layer_norm: bool
    padded: bool

    def block(self, block: BlockChoice, sizes: BlockSizes) -> Count:
        width, dim = sizes.dense_width, self.embedding_dim
        total = Count(0, 0)
        if sizes.use.dense_op:
            total += self._dense(block, sizes)
        if sizes.use.sparse_op:
            total += self._map(sizes.num_tokens_in, sizes.num_tokens, times=dim)
        if sizes.use.sparse_op and block.sparse_op == "attention":
            total += self._attention(sizes.num_tokens)
        if sizes.use.dense_to_sparse and not sizes.skips("merge"):
            total += self._map(width, NUM_MERGED * dim)
        if sizes.use.fm and not sizes.skips("fm"):
            total += self._map(dim, width)
        return total

    def _dense(self, block: BlockChoice, sizes: BlockSizes) -> Count:
        width = sizes.dense_width
        if block.dense_op == "fc":
            return self._map(sizes.num_inputs, width)
        if block.dense_op == "sum":
            return self._end(sizes.gate_width, width, skipped=sizes.skips("sum"))
        if block.dense_op in ("gating", "cross"):
            left, right = (sizes.gate_width,) * 2 if self.padded else (sizes.left, sizes.right)
            gate = Count(left * right, left * right + right)
            return gate + self._end(right, width, skipped=sizes.skips("gated"))
        return self._dot(sizes)

    def _dot(self, sizes: BlockSizes) -> Count:
        dim, compressed = self.embedding_dim, sizes.num_compressed
        total = Count(dim * (compressed + 1) ** 2, 0)
        if not sizes.skips("vector"):
            total += self._map(sizes.num_inputs, dim)
        if not sizes.skips("compress"):
            total += self._map(sizes.num_tokens_in, compressed, times=dim)
        return total + self._end(sizes.num_pairs, sizes.dense_width, skipped=sizes.skips("pairs"))

    def _attention(self, num_tokens: int) -> Count:
        dim = self.embedding_dim
        maps = num_tokens * dim * (3 * dim + dim + 2 * dim)
        pairs = 2 * dim * num_tokens**2
        return Count(maps + pairs, 6 * dim * (dim + 1) + 4 * dim)

    def _map(self, num_inputs: int, num_outputs: int, times: int = 1) -> Count:
        weights = num_inputs * num_outputs
        return Count(times * weights, weights + self._affine(num_outputs))

    def _end(self, num_inputs: int, num_outputs: int, *, skipped: bool) -> Count:
        if not skipped:
            return self._map(num_inputs, num_outputs)
        return Count(0, 2 * num_outputs if self.layer_norm else 0)

    def _affine(self, num_outputs: int) -> int:
        """Parameters beside the weights: a norm's two, or a bias."""
        return 2 * num_outputs if self.layer_norm else num_outputs
