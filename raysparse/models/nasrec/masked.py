"""The masked twin of a supernet: full width everywhere, masks after it, as the published code shares weights.

It is what the sliced network is compared with, for equality and for speed. Layer norm is over the active part in both,
where the published code has the whole width.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raysparse.models.nasrec.choice import NUM_MERGED, BlockChoice, NASRecConfig
from raysparse.models.nasrec.network import Block, NASRecNetwork, prefix_mask, raw_inputs
from raysparse.models.nasrec.operators import Attention
from raysparse.models.nasrec.projection import Projection
from raysparse.models.nasrec.shape import BlockShape
from raysparse.models.nasrec.sizes import BlockSizes, sizes_of

EPSILON = 1e-5
"""Of `nn.functional.layer_norm`."""


class MaskedProjection(nn.Module):
    """The whole of a projection, with its pieces side by side: inputs that are not read are zeros."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        copies = {name: tensor.detach().clone() for name, tensor in projection.named_parameters(recurse=False)}
        self.weight = nn.Parameter(torch.cat([weight.detach() for weight in projection.weights.values()], dim=1))
        self.bias, self.norm_weight, self.norm_bias = (
            nn.Parameter(copies[name]) if name in copies else None for name in ("bias", "norm_weight", "norm_bias")
        )

    def forward(self, inputs: Tensor, active: int, layer_norm: bool) -> Tensor:
        """Map `[..., all columns]` to `[..., all rows]`, zeros behind the first `active`."""
        if layer_norm:
            return self.normalised(nn.functional.linear(inputs, self.weight), active, layer_norm)
        outputs = nn.functional.linear(inputs, self.weight, self.bias)
        return outputs * prefix(outputs, active)

    def normalised(self, outputs: Tensor, active: int, layer_norm: bool) -> Tensor:
        """Normalise over the first `active` of the last dimension; the others are zeros."""
        mask = prefix(outputs, active)
        if not layer_norm:
            return outputs * mask
        assert self.norm_weight is not None
        assert self.norm_bias is not None
        centred = (outputs - (outputs * mask).sum(-1, keepdim=True) / active) * mask
        variance = centred.square().sum(-1, keepdim=True) / active
        return (centred * torch.rsqrt(variance + EPSILON) * self.norm_weight + self.norm_bias) * mask


def prefix(tensor: Tensor, active: int) -> Tensor:
    """Return 1 for the first `active` of the last dimension, 0 for the others."""
    return (torch.arange(tensor.shape[-1], device=tensor.device) < active).to(tensor.dtype)


@dataclass(frozen=True)
class Full:
    """Something at full width."""

    values: Tensor
    """`[B, W]` or `[B, T, D]`, zeros where the choice has nothing."""
    active: Tensor
    """`[W]` or `[T]`: which columns or tokens the choice has."""

    def zeros(self) -> "Full":
        """Return what stands where this is not read."""
        return Full(torch.zeros_like(self.values), torch.zeros_like(self.active))

    def packed(self) -> Tensor:
        """Return the active columns or tokens alone."""
        return self.values[:, self.active]


class FullReads:
    """What a block reads: all predecessors side by side, zeros for those that it does not choose."""

    def __init__(self, dense: list[Full], tokens: list[Full], block: BlockChoice, skipped: int) -> None:
        self.block = block
        self._dense = dense
        self._tokens = tokens
        self._skipped = skipped

    def dense(self, inputs: tuple[int, ...]) -> Full:
        """Return the dense outputs of some predecessors, `[B, all widths]`."""
        return _side_by_side(self._dense, self._positions(inputs))

    def tokens(self) -> Full:
        """Return the tokens of the block's sparse inputs, `[B, all tokens, D]`."""
        return _side_by_side(self._tokens, self._positions(self.block.sparse_inputs))

    def one(self, index: int, width: int) -> Tensor:
        """Return one predecessor's dense output, filled up with zeros: `[B, width]`."""
        (position,) = self._positions((index,))
        return _resized(self._dense[position].values, width)

    def spread(self, gated: Tensor, index: int) -> Tensor:
        """Return `[B, W]` in the columns of one predecessor, zeros in the others': `[B, all widths]`."""
        (position,) = self._positions((index,))
        parts = [full.zeros().values for full in self._dense]
        parts[position] = _resized(gated, parts[position].shape[1])
        return torch.cat(parts, dim=1)

    def _positions(self, inputs: tuple[int, ...]) -> set[int]:
        return {index + self._skipped if index else 0 for index in inputs}


def _side_by_side(outputs: list[Full], chosen: set[int]) -> Full:
    parts = [output if index in chosen else output.zeros() for index, output in enumerate(outputs)]
    return Full(torch.cat([part.values for part in parts], dim=1), torch.cat([part.active for part in parts]))


def _resized(columns: Tensor, width: int) -> Tensor:
    return nn.functional.pad(columns, (0, width - columns.shape[-1]))


class MaskedBlock(nn.Module):
    """All operators of a block at full width, of which a choice runs one dense and one sparse one."""

    def __init__(self, block: Block, shape: BlockShape) -> None:
        super().__init__()
        self.shape = shape
        self._projections = nn.ModuleDict()
        for name, module in block.named_modules():
            if isinstance(module, Projection):
                self._projections[name.replace(".", "_")] = MaskedProjection(module)
        self.attention: Attention | None = None
        for operator in block.sparse_ops.values():
            if isinstance(operator, Attention):
                self.attention = copy.deepcopy(operator)

    def forward(self, reads: FullReads, sizes: BlockSizes, layer_norm: bool) -> tuple[Full, Full]:
        """Return the dense output and the tokens."""
        block = reads.block
        dense = getattr(self, f"_{block.dense_op}")(reads, sizes, layer_norm)
        tokens = self._sparse(reads, sizes, layer_norm)
        merged = tokens.new_zeros(len(tokens), NUM_MERGED, tokens.shape[2])
        if block.dense_to_sparse:
            merged = self._merge(dense, sizes, layer_norm).unflatten(1, (NUM_MERGED, -1))
        if block.fm:
            dense = dense + self._fm(tokens, sizes, layer_norm)
        active = torch.arange(self.shape.num_tokens + NUM_MERGED, device=dense.device)
        in_choice = (active < block.num_tokens) | ((active >= self.shape.num_tokens) & block.dense_to_sparse)
        return (
            Full(dense, torch.arange(dense.shape[1], device=dense.device) < block.dense_width),
            Full(torch.cat([tokens, merged], dim=1), in_choice),
        )

    def _projection(self, name: str) -> MaskedProjection:
        projection = self._projections[name]
        assert isinstance(projection, MaskedProjection)
        return projection

    def _fc(self, reads: FullReads, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        inputs = reads.dense(reads.block.dense_inputs).values
        return torch.relu(self._projection("dense_ops_fc_project")(inputs, sizes.dense_width, layer_norm))

    def _gating(self, reads: FullReads, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        return self._product(reads, sizes, layer_norm, torch.sigmoid)

    def _cross(self, reads: FullReads, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        return self._product(reads, sizes, layer_norm, nn.Identity())

    def _product(
        self, reads: FullReads, sizes: BlockSizes, layer_norm: bool, factor: Callable[[Tensor], Tensor]
    ) -> Tensor:
        block = reads.block
        gate, project = (self._projection(f"dense_ops_{block.dense_op}_{name}") for name in ("gate", "project"))
        left = reads.dense((block.left,)).values
        factors = factor(gate(left, self.shape.right_width, False))
        gated = factors * reads.one(block.right, self.shape.right_width)
        if sizes.skips("gated"):
            return project.normalised(_resized(gated, self.shape.dense_width), sizes.dense_width, layer_norm)
        return project(reads.spread(gated, block.right), sizes.dense_width, layer_norm)

    def _sum(self, reads: FullReads, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        left, right = (reads.one(index, self.shape.gate_width) for index in (reads.block.left, reads.block.right))
        project = self._projection("dense_ops_sum_project")
        if sizes.skips("sum"):
            return project.normalised(_resized(left + right, self.shape.dense_width), sizes.dense_width, layer_norm)
        return project(left + right, sizes.dense_width, layer_norm)

    def _dot(self, reads: FullReads, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        inputs, tokens = reads.dense(reads.block.dense_inputs), reads.tokens()
        vector, compress, project = (
            self._projection(f"dense_ops_dot_{name}") for name in ("vector", "compress", "project")
        )
        first = inputs.packed() if sizes.skips("vector") else vector(inputs.values, sizes.embedding_dim, layer_norm)
        if sizes.skips("compress"):
            compressed = _resized(tokens.packed().transpose(1, 2), self.shape.num_compressed)
        else:
            compressed = compress(tokens.values.transpose(1, 2), sizes.num_compressed, layer_norm)
        vectors = torch.cat([first.unsqueeze(1), compressed.transpose(1, 2)], dim=1)
        rows, columns = torch.tril_indices(vectors.shape[1], vectors.shape[1], offset=-1, device=vectors.device)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, rows, columns]
        if sizes.skips("pairs"):
            return project.normalised(_resized(products, self.shape.dense_width), sizes.dense_width, layer_norm)
        return project(products, sizes.dense_width, layer_norm)

    def _sparse(self, reads: FullReads, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        project = self._projection(f"sparse_ops_{reads.block.sparse_op}_project")
        tokens = project(reads.tokens().values.transpose(1, 2), sizes.num_tokens, layer_norm).transpose(1, 2)
        if reads.block.sparse_op == "efc":
            return torch.relu(tokens)
        assert self.attention is not None
        active = torch.arange(tokens.shape[1], device=tokens.device) < sizes.num_tokens
        return self.attention.attend(tokens, active.unsqueeze(0)) * active.unsqueeze(1)

    def _merge(self, dense: Tensor, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        width = NUM_MERGED * sizes.embedding_dim
        if sizes.skips("merge"):
            return dense[:, :width]
        return self._projection("merge_project")(dense, width, layer_norm)

    def _fm(self, tokens: Tensor, sizes: BlockSizes, layer_norm: bool) -> Tensor:
        products = tokens.sum(1).square() - tokens.square().sum(1)
        if sizes.skips("fm"):
            return _resized(products, self.shape.dense_width)
        return self._projection("fm_project")(products, sizes.dense_width, layer_norm)


class MaskedNetwork(nn.Module):
    """A copy of a supernet's weights; `[B, I]`, `[B, F, D]` and a choice to logits `[B]`."""

    def __init__(self, network: NASRecNetwork) -> None:
        super().__init__()
        self.shape = network.shape
        self.blocks = nn.ModuleList(
            MaskedBlock(block, shape)
            for block, shape in zip(network.blocks, network.shape.blocks, strict=True)
            if isinstance(block, Block)
        )
        self.logit = MaskedProjection(network.logit)

    def forward(self, dense: Tensor, pooled: Tensor, choice: NASRecConfig) -> Tensor:
        """Return the logits `[B]`; blocks that nobody reads are computed like the others."""
        if choice.field_dims is not None:
            pooled = pooled * prefix_mask(choice.field_dims, pooled)
        dense_outputs, token_outputs = [self._raw(raw_inputs(dense, pooled, choice))], [_full(pooled)]
        skipped = len(self.blocks) - len(choice.blocks)
        for block in self.shape.blocks[:skipped]:
            dense_outputs.append(_full(dense.new_zeros(len(dense), block.dense_width)).zeros())
            token_outputs.append(
                _full(pooled.new_zeros(len(pooled), block.num_tokens + NUM_MERGED, pooled.shape[2])).zeros()
            )
        all_sizes = sizes_of(choice, self.shape.num_dense, self.shape.num_features)
        for position, (block, sizes) in enumerate(zip(choice.blocks, all_sizes, strict=True), start=skipped):
            reads = FullReads(dense_outputs, token_outputs, block, skipped)
            made = self.blocks[position](reads, sizes, choice.layer_norm)
            dense_outputs.append(made[0])
            token_outputs.append(made[1])
        features = torch.cat([dense_outputs[-1].values, token_outputs[-1].values.flatten(1)], dim=1)
        return self.logit(features, 1, False).squeeze(1)

    def _raw(self, inputs: Tensor) -> Full:
        width = self.shape.blocks[0].dense_pieces["0"]
        return Full(_resized(inputs, width), torch.arange(width, device=inputs.device) < inputs.shape[1])


def _full(values: Tensor) -> Full:
    return Full(values, torch.ones(values.shape[1], dtype=torch.bool, device=values.device))
