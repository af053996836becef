"""Self-attention over jagged sequences: softmax, and linear (LinRec, SIGIR 2023)."""

import fbgemm_gpu  # noqa: F401  # registers torch.ops.fbgemm
import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from raysparse.models.fused_attention import fused_attention
from raysparse.models.groups import Groups
from raysparse.models.sasrec.jagged import Bucket, Wanted, by_bucket, by_sequence, lengths_of

CHUNK = 64
"""Items of linear attention that are computed against each other; those before come as one state."""

_EPS = 1e-6


class Projections(nn.Module):
    """Queries, keys and values of the same items, head by head: `[T, D]` to `[T, 3 * W]`, one matrix product.

    The weight is `[3, W, D]`, so that the first heads of a narrower network are a prefix of it.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, inner, width))
        self.bias = nn.Parameter(torch.zeros(3, inner))

    def forward(self, values: Tensor) -> Tensor:
        """Return queries, keys and values of each item, side by side."""
        return nn.functional.linear(values, self.weight.flatten(0, 1), self.bias.flatten())

    def apart(self, asking: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries of some items, `[P, D]` to `[P, W]`, and keys and values of all, `[T, D]` to `[T, 2 * W]`."""
        queries = nn.functional.linear(asking, self.weight[0], self.bias[0])
        return queries, nn.functional.linear(values, self.weight[1:].flatten(0, 1), self.bias[1:].flatten())


def produced_rows(module: nn.Linear | Projections) -> Tensor:
    """Return the weights that make each column of a layer's output, `[W, ...]`; a view."""
    return module.weight.transpose(0, 1) if isinstance(module, Projections) else module.weight


class CausalAttention(nn.Module):
    """Multi-head attention in which an item sees itself and what came before: `[T, D]` to `[T, D]`.

    Sequences are padded at the end, in buckets of like length, so that with a causal order no item ever sees padding.
    Where some places are wanted alone, it returns `[P, D]`; if these are the ends of the sequences, with their queries
    alone.
    """

    def __init__(self, width: int, num_heads: int, head_dim: int, kind: str, dropout: float) -> None:
        super().__init__()
        self.kind = kind
        self.dropout = dropout
        self.project = Projections(width, num_heads * head_dim)
        self.heads = Groups(num_heads, head_dim)
        self.out = nn.Linear(num_heads * head_dim, width)

    @property
    def num_heads(self) -> int:
        """Heads that are there."""
        return self.heads.num_groups

    def forward(self, values: Tensor, buckets: list[Bucket], wanted: Wanted | None = None) -> Tensor:
        """Return what each item takes from those before it; `buckets` are those of the sequences."""
        # Without an item, too, the heads are passed: what looks at them exchanges it with the other ranks.
        if not buckets:
            attended = self.project(values).chunk(3, dim=1)[0]
        elif wanted is not None and wanted.are_ends:
            queries, others = self.project.apart(values[wanted.places], values)
            attended = by_sequence(buckets, queries, others, self._attend_from_ends)
        else:
            attended = by_bucket(buckets, self.project(values), self._attend)
            attended = attended if wanted is None else attended[wanted.places]
        return self.out(self.heads(attended))

    def _attend(self, projected: Tensor, _: Bucket) -> Tensor:
        return attend(projected, self, self.kind)

    def _attend_from_ends(self, queries: Tensor, others: Tensor, bucket: Bucket) -> Tensor:
        """Attend from one place of each sequence `[N, W]` to all of its items `[N, L, 2 * W]`: to `[N, W]`."""
        query, key, value = (_by_head(part, self.num_heads) for part in (queries.unsqueeze(1), *others.chunk(2, dim=2)))
        kept = bucket.kept[:, None, None, :]
        if self.kind == "linear":
            products = _feature(query) @ _feature(key).transpose(2, 3)
            attended = (products * kept) @ value / value.shape[3] ** 0.5
        else:
            attended = fused_attention(query, key, value, kept, dropout=self.dropout if self.training else 0.0)
        return attended.flatten(1)


def attend(projected: Tensor, attention: CausalAttention, kind: str) -> Tensor:
    """Attend within padded sequences `[N, L, 3 * W]` by one of the kinds: to `[N, L, W]`."""
    query, key, value = (_by_head(part, attention.num_heads) for part in projected.chunk(3, dim=2))
    if kind == "linear":
        attended = causal_linear(query, key, value)
    else:
        dropped = attention.dropout if attention.training else 0.0
        attended = fused_attention(query, key, value, causal=True, dropout=dropped)
    return attended.transpose(1, 2).flatten(2)


def _by_head(values: Tensor, num_heads: int) -> Tensor:
    """`[N, L, W]` to `[N, H, L, d]`."""
    return values.unflatten(2, (num_heads, -1)).transpose(1, 2)


def causal_linear(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Linear attention `[N, H, L, d]`, causal, in chunks with a state `[N, H, d, d]` carried on.

    `O_t = f(q_t) sum_(s <= t) f(k_s)' v_s / sqrt(d)` with `f(x) = ELU(x) / (|ELU(x)| + 1e-6)`: LinRec's map of each
    item, with the order that it leaves out.
    """
    query, key = _feature(query), _feature(key)
    length = value.shape[2]
    state: Tensor | None = None
    outputs: list[Tensor] = []
    for start in range(0, length, CHUNK):
        part = slice(start, start + CHUNK)
        q, k, v = query[:, :, part], key[:, :, part], value[:, :, part]
        within = (q @ k.transpose(2, 3)).tril() @ v
        outputs.append(within if state is None else within + q @ state)
        if start + CHUNK < length:
            added = k.transpose(2, 3) @ v
            state = added if state is None else state + added
    return torch.cat(outputs, dim=2) / value.shape[3] ** 0.5


def jagged_linear(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
    """Linear attention `[T, H, d]`, float32, in which an item sees all of its sequence, also what comes after it.

    For rows of which only the last item is read; without padding, as two jagged products whose batch is of sequences
    and heads. LinRec's `O_t = f(q_t) sum_s f(k_s)' v_s / sqrt(d)`, with `offsets` `[B + 1]` int64.
    """
    if not len(value):
        return value
    num_heads, head_dim = value.shape[1:]
    lengths = lengths_of(offsets)
    ends = lengths.repeat(num_heads).cumsum(0)
    by_head = torch.nn.functional.pad(ends, (1, 0))
    longest = int(lengths.max())
    query, key, value = (part.transpose(0, 1).flatten(0, 1) for part in (_feature(query), _feature(key), value))
    state = torch.ops.fbgemm.jagged_jagged_bmm(key, value, by_head, longest)
    attended, _ = torch.ops.fbgemm.jagged_dense_bmm(query, by_head, state, longest)
    return attended.unflatten(0, (num_heads, -1)).transpose(0, 1) / head_dim**0.5


def attention_macs(kind: str, length: int, of_heads: int, head_dim: int) -> int:
    """Return the multiply-adds between the items of a history, for heads of `of_heads` channels together."""
    if kind == "softmax":
        return 2 * length * length * of_heads
    chunks = [min(CHUNK, length - start) for start in range(0, length, CHUNK)]
    # The first chunk reads no state, and no chunk reads what the last would leave.
    through_state = (sum(chunks[1:]) + sum(chunks[:-1])) * of_heads * head_dim
    return sum(2 * size * size * of_heads for size in chunks) + through_state


def _feature(vectors: Tensor) -> Tensor:
    mapped = elu(vectors)
    # The norm's own gradient is not defined where all is 0.
    return mapped / (mapped.square().sum(-1, keepdim=True).clamp(min=1e-24).sqrt() + _EPS)
