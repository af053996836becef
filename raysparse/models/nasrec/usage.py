"""Which part of a network's weights a choice uses. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from raysparse.models.nasrec.canonical import uses_of
from raysparse.models.nasrec.choice import NUM_MERGED, BlockChoice, NASRecConfig
from raysparse.models.nasrec.network import NASRecNetwork
from raysparse.models.nasrec.projection import ENDS, Columns
from raysparse.models.nasrec.shape import WHOLE, merged_name
from raysparse.models.nasrec.sizes import BlockSizes, Role, num_raw_inputs, sizes_of

Slices = tuple[slice, ...]
"""A part of a parameter: the first of each dimension."""


@dataclass(frozen=True)
class Used:
    """A projection that a choice uses, or only the layer norm at the end of one that it skips."""

    number: int
    """Of the block, from 1."""
    module: str
    """Name within the block."""
    role: Role
    columns: Columns
    num_outputs: int


def used_slices(network: NASRecNetwork, choice: NASRecConfig) -> dict[str, Slices]:
    """Return by name the part of each parameter that a choice uses: all that gets a gradient, and nothing else.

    Any process. A parameter that is not there is not used; `()` is the whole of one.
    """
    skipped = len(network.blocks) - len(choice.blocks)
    names = ("0", *(str(number) for number in range(skipped + 1, len(network.blocks) + 1)))
    raw = (network.shape.num_dense, network.shape.num_features)
    slices: dict[str, Slices] = {}
    for used in used_projections(choice, names, raw):
        prefix = f"blocks.{skipped + used.number - 1}.{used.module}"
        slices |= _slices(prefix, used.columns, used.num_outputs)
        normed = choice.layer_norm and used.role != "gate"
        tails = ("norm_weight", "norm_bias") if normed else ("bias",) if used.columns else ()
        slices |= {f"{prefix}.{tail}": (slice(used.num_outputs),) for tail in tails}
    for number, (block, use) in enumerate(zip(choice.blocks, uses_of(choice), strict=True), start=skipped):
        if use.sparse_op and block.sparse_op == "attention":
            name = f"blocks.{number}.sparse_ops.attention"
            slices |= {f"{name}.{own}": () for own in plain_parameters(network.get_submodule(name))}
    columns = head_columns(sizes_of(choice, *raw)[-1])
    return {**slices, **_slices("logit", columns, 1), "logit.bias": ()}


def union(parts: Sequence[dict[str, Slices]]) -> dict[str, Slices]:
    """Return by name the smallest part that holds those of all; all of them are the first of each dimension."""
    together: dict[str, Slices] = {}
    for part in parts:
        for name, slices in part.items():
            pairs = zip(together.get(name, slices), slices, strict=True)
            together[name] = tuple(slice(max(one.stop, other.stop)) for one, other in pairs)
    return together


def _slices(prefix: str, columns: Columns, num_outputs: int) -> dict[str, Slices]:
    return {f"{prefix}.weights.{name}": (slice(num_outputs), slice(width)) for name, width in columns}


def plain_parameters(operator: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of an operator that all choices use whole, by name."""
    return {
        f"{name}.{own}": parameter
        for name, module in operator.named_modules()
        if isinstance(module, nn.Linear | nn.LayerNorm)
        for own, parameter in module.named_parameters()
    }


def head_columns(last: BlockSizes) -> Columns:
    """Return the columns of the logit's weight that a choice with this last block uses."""
    columns: Columns = (("dense", last.dense_width), ("tokens", last.num_tokens * last.embedding_dim))
    return (*columns, ("merged", NUM_MERGED * last.embedding_dim)) if last.use.dense_to_sparse else columns


def used_projections(choice: NASRecConfig, names: Sequence[str], raw: tuple[int, int]) -> Iterator[Used]:
    """Yield the projections that a choice uses.

    `names` are those under which the raw input and each block stand in the columns of the weights, `raw` the numbers of
    raw dense inputs and features.
    """
    all_sizes = sizes_of(choice, *raw)
    sources = _Sources(names, (num_raw_inputs(choice, *raw), raw[1]), all_sizes)
    for number, (block, sizes) in enumerate(zip(choice.blocks, all_sizes, strict=True), start=1):
        for module, role, columns, num_outputs in _block(block, sizes, sources):
            if not sizes.skips(role):
                yield Used(number, module, role, columns, num_outputs)
            elif role in ENDS and choice.layer_norm:
                yield Used(number, module, role, (), num_outputs)


@dataclass(frozen=True)
class _Sources:
    """Whose columns stand where."""

    names: Sequence[str]
    raw: tuple[int, int]
    """Columns of the raw dense input, and raw tokens."""
    sizes: Sequence[BlockSizes]

    def dense(self, inputs: tuple[int, ...]) -> Columns:
        widths = (self.raw[0], *(size.dense_width for size in self.sizes))
        return tuple((self.names[index], widths[index]) for index in sorted(inputs))

    def tokens(self, inputs: tuple[int, ...]) -> Columns:
        columns: list[tuple[str, int]] = []
        for index in sorted(inputs):
            name = self.names[index]
            columns.append((name, self.raw[1] if index == 0 else self.sizes[index - 1].num_tokens))
            if index > 0 and self.sizes[index - 1].use.dense_to_sparse:
                columns.append((merged_name(name), NUM_MERGED))
        return tuple(columns)


Row = tuple[str, Role, Columns, int]


def _block(block: BlockChoice, sizes: BlockSizes, sources: _Sources) -> Iterator[Row]:
    use, width, dim = sizes.use, sizes.dense_width, sizes.embedding_dim
    if use.dense_op:
        yield from _dense(block, sizes, sources)
    if use.sparse_op:
        tokens = sources.tokens(block.sparse_inputs)
        yield f"sparse_ops.{block.sparse_op}.project", "tokens", tokens, sizes.num_tokens
    if use.dense_to_sparse:
        yield "merge.project", "merge", ((WHOLE, width),), NUM_MERGED * dim
    if use.fm:
        yield "fm.project", "fm", ((WHOLE, dim),), width


def _dense(block: BlockChoice, sizes: BlockSizes, sources: _Sources) -> Iterator[Row]:
    name, width = f"dense_ops.{block.dense_op}", sizes.dense_width
    if block.dense_op == "fc":
        yield f"{name}.project", "fc", sources.dense(block.dense_inputs), width
    elif block.dense_op == "sum":
        yield f"{name}.project", "sum", ((WHOLE, sizes.gate_width),), width
    elif block.dense_op in ("gating", "cross"):
        yield f"{name}.gate", "gate", sources.dense((block.left,)), sizes.right
        yield f"{name}.project", "gated", sources.dense((block.right,)), width
    else:
        yield f"{name}.vector", "vector", sources.dense(block.dense_inputs), sizes.embedding_dim
        yield f"{name}.compress", "compress", sources.tokens(block.sparse_inputs), sizes.num_compressed
        yield f"{name}.project", "pairs", ((WHOLE, sizes.num_pairs),), width
