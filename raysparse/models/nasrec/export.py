"""From a network with shared weights to a choice alone."""

from dataclasses import dataclass

import torch
from torch import nn

from raysparse.models.nasrec.canonical import canonical_order
from raysparse.models.nasrec.choice import NUM_MERGED, NASRecConfig
from raysparse.models.nasrec.network import NASRec, NASRecNetwork
from raysparse.models.nasrec.projection import Columns, Projection
from raysparse.models.nasrec.shape import WHOLE, merged_name
from raysparse.models.nasrec.sizes import BlockSizes, sizes_of


@torch.no_grad()
def export_subnet(network: NASRecNetwork, choice: NASRecConfig) -> NASRec:
    """Return a choice alone, with copies of the weights that it uses in a network of a larger shape."""
    shape = network.shape
    subnet = NASRec(choice, shape.num_dense, shape.num_features).to(next(network.parameters()))
    skipped = len(network.blocks) - len(choice.blocks)
    names = ("0", *(str(skipped + number) for number in canonical_order(choice)))
    sizes = sizes_of(subnet.choice, shape.num_dense, shape.num_features)
    for number, name in enumerate(names[1:], start=1):
        columns = _ColumnsOfBlock(subnet.choice, number, names, (shape.num_dense, shape.num_features), sizes)
        _copy(network.blocks[int(name) - 1], subnet.network.blocks[number - 1], columns)
    last, width = sizes[-1], choice.embedding_dim
    head: Columns = (("dense", last.dense_width), ("tokens", last.num_tokens * width))
    if last.use.dense_to_sparse:
        head = (*head, ("merged", NUM_MERGED * width))
    subnet.network.logit.take(network.logit, head)
    return subnet


def _copy(large_block: nn.Module, small_block: nn.Module, columns: "_ColumnsOfBlock") -> None:
    for name, small in small_block.named_modules():
        large = large_block.get_submodule(name)
        if isinstance(small, Projection):
            assert isinstance(large, Projection)
            small.take(large, columns.of(small))
        elif isinstance(small, nn.Linear | nn.LayerNorm):
            small.load_state_dict(large.state_dict())


@dataclass(frozen=True)
class _ColumnsOfBlock:
    """The columns that a block's projections use in the larger network, in the order of the canonical choice."""

    choice: NASRecConfig
    number: int
    names: tuple[str, ...]
    raw: tuple[int, int]
    sizes: tuple[BlockSizes, ...]

    def of(self, projection: Projection) -> Columns:
        """Return the columns of one projection."""
        block = self.choice.blocks[self.number - 1]
        if projection.role in ("fc", "vector"):
            return self._dense(block.dense_inputs)
        if projection.role in ("tokens", "compress"):
            return self._tokens(block.sparse_inputs)
        if projection.role in ("gate", "gated"):
            return self._dense((block.left if projection.role == "gate" else block.right,))
        return tuple((WHOLE, weight.shape[1]) for weight in projection.weights.values())

    def _dense(self, inputs: tuple[int, ...]) -> Columns:
        widths = (self.raw[0], *(size.dense_width for size in self.sizes))
        return tuple((self.names[index], widths[index]) for index in inputs)

    def _tokens(self, inputs: tuple[int, ...]) -> Columns:
        columns: list[tuple[str, int]] = []
        for index in inputs:
            name = self.names[index]
            columns.append((name, self.raw[1] if index == 0 else self.sizes[index - 1].num_tokens))
            if index > 0 and self.sizes[index - 1].use.dense_to_sparse:
                columns.append((merged_name(name), NUM_MERGED))
        return tuple(columns)
