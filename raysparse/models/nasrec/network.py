"""NASRec networks (arXiv 2207.07187, section 3): the supernet of a space, and a choice alone. One implementation."""

import torch
from torch import Tensor, nn

from raysparse.models.groups import Link
from raysparse.models.nasrec.canonical import canonical
from raysparse.models.nasrec.choice import BlockChoice, NASRecConfig
from raysparse.models.nasrec.operators import (
    EFC,
    Attention,
    Cross,
    Dot,
    FactorizationMachine,
    FullyConnected,
    Gating,
    Merge,
    Output,
    Reads,
    Sum,
)
from raysparse.models.nasrec.projection import Columns, Projection
from raysparse.models.nasrec.shape import BlockShape, NetworkShape, subnet_shape
from raysparse.models.nasrec.sizes import sizes_of

DENSE_OPERATORS: dict[str, type[nn.Module]] = {
    "fc": FullyConnected,
    "dot": Dot,
    "gating": Gating,
    "sum": Sum,
    "cross": Cross,
}
SPARSE_OPERATORS: dict[str, type[nn.Module]] = {"efc": EFC, "attention": Attention}


class Block(nn.Module):
    """The operators of a block that the choices of its shape may use."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.dense_ops = nn.ModuleDict({name: DENSE_OPERATORS[name](shape) for name in shape.dense_ops})
        self.sparse_ops = nn.ModuleDict({name: SPARSE_OPERATORS[name](shape) for name in shape.sparse_ops})
        self.merge = Merge(shape) if shape.dense_to_sparse else None
        self.fm = FactorizationMachine(shape) if shape.fm else None

    def forward(self, block: BlockChoice, name: str, reads: Reads) -> Output:
        """Compute what of a block is read, and no more."""
        sizes, use = reads.sizes, reads.sizes.use
        dense = self.dense_ops[block.dense_op](reads) if use.dense_op else None
        tokens = self.sparse_ops[block.sparse_op](reads) if use.sparse_op else None
        merged = None
        if self.merge is not None and use.dense_to_sparse:
            merged = self.merge(dense, sizes, reads.layer_norm)
        if self.fm is not None and use.fm:
            # Out of place: the merged tokens are those of the operator's output alone.
            dense = dense + self.fm(tokens, sizes, reads.layer_norm)
        return Output(name, dense, tokens if use.sparse_read else None, merged)


class NASRecNetwork(nn.Module):
    """The weights of a shape, of which a choice uses its part: `[B, I]`, `[B, F, D]` and a choice to logits `[B]`.

    A choice of fewer blocks than the shape takes the last of them, so that the head always reads the same one. Blocks,
    operators and projections that a choice does without cost it nothing and get no gradient.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(Block(block) for block in shape.blocks)
        self.logit = Projection("logit", shape.logit_pieces, 1, (False,))
        # NASRec draws these, too. After a layer norm, features that nothing has been learned about are as large as any:
        # a first log loss of 0.78 to 1.15, and 0.538 against 0.516 after a day of 50,000 rows of the drift stream.
        for weight in self.logit.weights.values():
            nn.init.zeros_(weight)

    def forward(self, dense: Tensor, pooled: Tensor, choice: NASRecConfig) -> Tensor:
        """Return the logits `[B]`."""
        features, columns = self.features(dense, pooled, choice)
        return self.logit(features, columns, 1, False).squeeze(1)

    def features(self, dense: Tensor, pooled: Tensor, choice: NASRecConfig) -> tuple[Tensor, Columns]:
        """Return what the head reads `[B, W + T * D]`, and the columns of its weight that it belongs to."""
        if choice.field_dims is not None:
            pooled = pooled * prefix_mask(choice.field_dims, pooled)
        outputs = [Output("0", raw_inputs(dense, pooled, choice), pooled.transpose(1, 2).contiguous())]
        skipped = len(self.blocks) - len(choice.blocks)
        sizes = sizes_of(choice, self.shape.num_dense, self.shape.num_features)
        for number, (block, size) in enumerate(zip(choice.blocks, sizes, strict=True), start=1):
            name = str(skipped + number)
            if size.use.live:
                reads = Reads(outputs, block, size, choice.layer_norm)
                outputs.append(self.blocks[skipped + number - 1](block, name, reads))
            else:
                outputs.append(Output(name, None, None))
        return _head_features(outputs[-1])


def _head_features(last: Output) -> tuple[Tensor, Columns]:
    assert last.dense is not None
    assert last.tokens is not None
    # Token by token: fewer tokens are then the first columns.
    parts = [("dense", last.dense), ("tokens", last.tokens.transpose(1, 2).flatten(1))]
    if last.merged is not None:
        parts.append(("merged", last.merged.transpose(1, 2).flatten(1)))
    return torch.cat([part for _, part in parts], dim=1), tuple((name, part.shape[1]) for name, part in parts)


def raw_inputs(dense: Tensor, pooled: Tensor, choice: NASRecConfig) -> Tensor:
    """Return the raw dense input `[B, I]`, or `[B, I + F * D]`."""
    return torch.cat([dense, pooled.flatten(1)], dim=1) if choice.flat_tokens else dense


def prefix_mask(field_dims: tuple[int, ...], pooled: Tensor) -> Tensor:
    """Return 1 for the columns that each field has and 0 behind them: `[F, D]`."""
    widths = torch.tensor(field_dims, device=pooled.device).unsqueeze(1)
    return (torch.arange(pooled.shape[2], device=pooled.device) < widths).to(pooled.dtype)


class NASRec(nn.Module):
    """A choice alone: dense features and pooled ids in, a logit out, `[B, I]`, `[B, F, D]` to `[B]`.

    It has the weights of the choice's canonical form, each matrix whole.
    """

    def __init__(self, config: NASRecConfig, num_dense: int, num_features: int) -> None:
        super().__init__()
        self.choice = canonical(config)
        self.network = NASRecNetwork(subnet_shape(self.choice, num_dense, num_features))
        self.links: dict[str, Link] = {}

    @classmethod
    def from_seed(cls, config: NASRecConfig, num_dense: int, num_features: int, seed: int) -> "NASRec":
        """Return a choice with weights drawn from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, num_dense, num_features)

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """Return the logits `[B]`."""
        return self.network(dense, pooled, self.choice)
