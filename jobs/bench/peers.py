"""Training speed and peak memory of other libraries on the data and model sizes that jobs/bench/speed.py measures.

One process measures one peer once and prints one JSON line as the last line of its standard output, so that a driver
can alternate processes. It runs in the environment of peers_install.sh and imports nothing of raysparse:

    jobs/bench/peers_install.sh DIR
    DIR/bin/python jobs/bench/peers.py --peer fuxictr --optimizer best --rows 100000 --batches 20

Every peer trains 26 tables of `rows` x 16 and an MLP 256-128-1 on batches that lie in memory:

- fuxictr: DLRM (bottom MLP 13-64-16, dot interaction) built from FuxiCTR's own layers, trained by its own `fit`. It
  gets finished batches, which its data loader would have to assemble row by row.
- deepctr: DeepFM, the nearest model of DeepCTR-Torch, trained by its own `fit`, which feeds itself from arrays with a
  DataLoader. Its linear part reads the 13 dense values only, so that it has no more tables than the others.
- torch-adam, torch-sparse-adam: the same DLRM in plain torch, with Adam, or with SparseAdam for the tables.

`--optimizer default` leaves the library as it comes (dense Adam, its own regularizers). `best` gives it what makes it
fastest without touching its code: Adam(fused=True), no regularizers, and an allocator that keeps freed memory, since
glibc otherwise returns each table-sized gradient to the system and pays for its pages again at every step.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

NUM_DENSE = 13
NUM_TABLES = 26
EMBEDDING_DIM = 16
BOTTOM_UNITS = 64
TOP_UNITS = [256, 128]
LEARNING_RATE = 1e-3

KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


@dataclass(frozen=True)
class Data:
    """Rows in the order of the stream: dense [N, 13] float32, ids [N, 26] int64 below `rows`, labels [N] float32."""

    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray

    def between(self, start: int, stop: int) -> "Data":
        """Rows from `start` up to `stop`, without a copy."""
        return Data(self.dense[start:stop], self.ids[start:stop], self.labels[start:stop])

    def batches(self, batch_size: int) -> Iterator["Data"]:
        """Consecutive blocks of `batch_size` rows."""
        for start in range(0, len(self.labels), batch_size):
            yield self.between(start, start + batch_size)


def read_data(path: str, num_rows: int, table_rows: int) -> Data:
    with np.load(path) as arrays:
        data = Data(
            arrays["dense"][:num_rows].astype(np.float32, copy=False),
            arrays["ids"][:num_rows].astype(np.int64, copy=False),
            arrays["labels"][:num_rows].astype(np.float32, copy=False),
        )
    found = (data.dense.shape, data.ids.shape, data.labels.shape)
    wanted = ((num_rows, NUM_DENSE), (num_rows, NUM_TABLES), (num_rows,))
    if found != wanted:
        sys.exit(f"peers.py: {path} has dense, ids and labels of {found}, needed are at least {wanted}")
    lowest, highest = data.ids.min(), data.ids.max()
    if lowest < 0 or highest >= table_rows:
        sys.exit(f"peers.py: {path} has ids from {lowest} to {highest}, --rows {table_rows} allows 0..{table_rows - 1}")
    return data


def synthetic_data(num_rows: int, table_rows: int) -> Data:
    """Draw Zipf ids (exponent 1.1, bounded to the table), normal dense values and labels that depend on both."""
    generator = np.random.default_rng(0)
    frequencies = np.arange(1, table_rows + 1, dtype=np.float64) ** -1.1
    cumulative = np.cumsum(frequencies) / frequencies.sum()
    ranks = np.searchsorted(cumulative, generator.random((num_rows, NUM_TABLES)))
    # A multiplier without a common factor with `rows` spreads the frequent ids over the table, as hashing does.
    multiplier = next(m for m in range(7919, 7919 + table_rows) if math.gcd(m, table_rows) == 1)
    ids = np.minimum(ranks, table_rows - 1) * multiplier % table_rows
    dense = generator.standard_normal((num_rows, NUM_DENSE), dtype=np.float32)
    logit = dense[:, 0] + np.where(ids[:, 0] % 2, 0.5, -0.5) - 1.0
    labels = (generator.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return Data(dense, ids.astype(np.int64), labels)


# A peer returns a function that trains on the given rows in its own way, and that returns the seconds it took.
Train = Callable[[Data], float]


def timed(train: Callable[[], None]) -> float:
    start = time.perf_counter()
    train()
    return time.perf_counter() - start


class PlainDlrm(nn.Module):
    """DLRM in plain torch, with the layers and sizes of the FuxiCTR peer."""

    def __init__(self, table_rows: int, sparse: bool) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(table_rows, EMBEDDING_DIM, sparse=sparse) for _ in range(NUM_TABLES))
        self.bottom = nn.Sequential(
            nn.Linear(NUM_DENSE, BOTTOM_UNITS), nn.ReLU(), nn.Linear(BOTTOM_UNITS, EMBEDDING_DIM), nn.ReLU()
        )
        num_pairs = (NUM_TABLES + 1) * NUM_TABLES // 2
        self.top = nn.Sequential(
            nn.Linear(num_pairs + EMBEDDING_DIM, TOP_UNITS[0]),
            nn.ReLU(),
            nn.Linear(TOP_UNITS[0], TOP_UNITS[1]),
            nn.ReLU(),
            nn.Linear(TOP_UNITS[1], 1),
        )
        first, second = torch.triu_indices(NUM_TABLES + 1, NUM_TABLES + 1, offset=1)
        self.pairs = first * (NUM_TABLES + 1) + second

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits [B] of dense [B, 13] and ids [B, 26]."""
        bottom = self.bottom(dense)
        vectors = torch.stack([bottom, *(table(ids[:, i]) for i, table in enumerate(self.tables))], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        return self.top(torch.cat([bottom, products], dim=1)).squeeze(1)


def plain_torch(table_rows: int, batch_size: int, best: bool, sparse: bool) -> Train:
    model = PlainDlrm(table_rows, sparse)
    fused = best or None
    if sparse:
        dense_parameters = [*model.bottom.parameters(), *model.top.parameters()]
        optimizers = [
            torch.optim.SparseAdam(list(model.tables.parameters()), lr=LEARNING_RATE),
            torch.optim.Adam(dense_parameters, lr=LEARNING_RATE, fused=fused),
        ]
    else:
        optimizers = [torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=fused)]
    loss_function = nn.BCEWithLogitsLoss()

    def train(batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        for dense, ids, labels in batches:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = loss_function(model(dense, ids), labels)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            check_finite(loss.item())

    def run(data: Data) -> float:
        batches = [
            (torch.from_numpy(batch.dense), torch.from_numpy(batch.ids), torch.from_numpy(batch.labels))
            for batch in data.batches(batch_size)
        ]
        return timed(lambda: train(batches))

    return run


def check_finite(loss: float) -> None:
    if not math.isfinite(loss):
        sys.exit(f"peers.py: the loss became {loss}; a rate of diverged training is not reported")


def fuxictr_feature_map(table_rows: int) -> Any:
    from fuxictr.features import FeatureMap  # pyright: ignore[reportMissingImports]

    feature_map = FeatureMap("peers", data_dir="")
    for index in range(NUM_DENSE):
        feature_map.features[f"I{index}"] = {"type": "numeric", "source": ""}
    for index in range(NUM_TABLES):
        feature_map.features[f"C{index}"] = {"type": "categorical", "source": "", "vocab_size": table_rows}
    feature_map.labels = ["label"]
    feature_map.num_fields = feature_map.get_num_fields()
    feature_map.set_column_index()
    return feature_map


def fuxictr_model(table_rows: int) -> Any:
    from fuxictr.pytorch.layers import (  # pyright: ignore[reportMissingImports]
        FeatureEmbedding,
        InnerProductInteraction,
        MLP_Block,
    )
    from fuxictr.pytorch.models import BaseModel  # pyright: ignore[reportMissingImports]

    dense_names = [f"I{index}" for index in range(NUM_DENSE)]

    class Dlrm(BaseModel):
        def __init__(self) -> None:
            feature_map = fuxictr_feature_map(table_rows)
            super().__init__(feature_map, model_id="Dlrm", verbose=0, model_root="", metrics=["AUC"])
            self.embedding = FeatureEmbedding(feature_map, EMBEDDING_DIM, not_required_feature_columns=dense_names)
            self.bottom = MLP_Block(NUM_DENSE, [BOTTOM_UNITS], output_dim=EMBEDDING_DIM, output_activation=nn.ReLU())
            self.interaction = InnerProductInteraction(NUM_TABLES + 1, output="inner_product")
            num_inputs = self.interaction.interaction_units + EMBEDDING_DIM
            self.top = MLP_Block(num_inputs, TOP_UNITS, output_dim=1, output_activation=self.output_activation)
            self.reset_parameters()

        def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            features = self.get_inputs(inputs)
            dense = torch.stack([features.pop(name) for name in dense_names], dim=1)
            bottom = self.bottom(dense)
            vectors = torch.cat([bottom.unsqueeze(1), self.embedding(features)], dim=1)
            return {"y_pred": self.top(torch.cat([bottom, self.interaction(vectors)], dim=1))}

        # `fit` ends by scoring validation rows and reading the best checkpoint back, which is no part of the rate.
        def eval_step(self) -> None: ...

        def load_weights(self, checkpoint: str) -> None: ...

    return Dlrm()


def fuxictr(table_rows: int, batch_size: int, best: bool) -> Train:
    model = fuxictr_model(table_rows)
    model.compile("adam", "binary_crossentropy", LEARNING_RATE)
    if best:
        model.optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def named(batch: Data) -> dict[str, torch.Tensor]:
        columns = {f"I{index}": torch.from_numpy(batch.dense[:, index].copy()) for index in range(NUM_DENSE)}
        columns |= {f"C{index}": torch.from_numpy(batch.ids[:, index].copy()) for index in range(NUM_TABLES)}
        return columns | {"label": torch.from_numpy(batch.labels)}

    def run(data: Data) -> float:
        batches = [named(batch) for batch in data.batches(batch_size)]
        return timed(lambda: model.fit(batches, epochs=1))

    return run


def deepctr(table_rows: int, batch_size: int, best: bool) -> Train:
    import requests  # pyright: ignore[reportMissingModuleSource]

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("a measurement does not ask the network for newer versions")

    # The import of deepctr_torch starts a thread that does so.
    requests.get = refuse  # pyright: ignore[reportAttributeAccessIssue]
    from deepctr_torch.callbacks import Callback  # pyright: ignore[reportMissingImports]
    from deepctr_torch.inputs import DenseFeat, SparseFeat  # pyright: ignore[reportMissingImports]
    from deepctr_torch.models import DeepFM  # pyright: ignore[reportMissingImports]

    class EpochTime(Callback):
        seconds = 0.0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            self.seconds = time.perf_counter() - self.start

    dense_columns = [DenseFeat("dense", NUM_DENSE)]
    table_columns = [SparseFeat(f"C{index}", table_rows, EMBEDDING_DIM) for index in range(NUM_TABLES)]
    regularizers = {"l2_reg_linear": 0.0, "l2_reg_embedding": 0.0} if best else {}
    model = DeepFM(dense_columns, dense_columns + table_columns, dnn_hidden_units=tuple(TOP_UNITS), **regularizers)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True) if best else "adam"
    model.compile(optimizer, "binary_crossentropy")

    def run(data: Data) -> float:
        inputs = {"dense": data.dense} | {f"C{index}": data.ids[:, index] for index in range(NUM_TABLES)}
        epoch_time = EpochTime()
        history = model.fit(inputs, data.labels, batch_size=batch_size, verbose=0, callbacks=[epoch_time])
        check_finite(history.history["loss"][-1])
        return epoch_time.seconds

    return run


@dataclass(frozen=True)
class Peer:
    """How a peer is reached: its package, its model, who feeds it, and what builds its training function."""

    package: str
    model: str
    feeding: str
    build: Callable[[int, int, bool], Train]


PEERS = {
    "fuxictr": Peer("fuxictr", "DLRM", "finished batches", fuxictr),
    "deepctr": Peer("deepctr-torch", "DeepFM", "its DataLoader over arrays", deepctr),
    "torch-adam": Peer("torch", "DLRM", "finished batches", lambda *sizes: plain_torch(*sizes, sparse=False)),
    "torch-sparse-adam": Peer("torch", "DLRM", "finished batches", lambda *sizes: plain_torch(*sizes, sparse=True)),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure one peer once; prints one JSON line.")
    parser.add_argument("--peer", required=True, choices=PEERS)
    parser.add_argument("--optimizer", default="default", choices=["default", "best"])
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each of the 26 tables")
    parser.add_argument("--batch", type=int, default=4096, help="samples a batch")
    parser.add_argument("--batches", type=int, default=20, help="timed batches")
    parser.add_argument("--warmup", type=int, default=3, help="batches trained before the clock starts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", default="synthetic", help="an .npz of dense, ids and labels, or 'synthetic'")
    return parser.parse_args()


def restart_with_kept_memory() -> None:
    """Replace this process by itself under allocator settings, which glibc reads only when a process starts."""
    if any(os.environ.get(name) != value for name, value in KEEP_FREED_MEMORY.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEEP_FREED_MEMORY)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    peer = PEERS[arguments.peer]
    num_warmup = arguments.warmup * arguments.batch
    num_rows = num_warmup + arguments.batches * arguments.batch
    if arguments.data == "synthetic":
        data = synthetic_data(num_rows, arguments.rows)
    else:
        data = read_data(arguments.data, num_rows, arguments.rows)
    best = arguments.optimizer == "best"
    torch.manual_seed(0)
    train = peer.build(arguments.rows, arguments.batch, best)
    train(data.between(0, num_warmup))
    seconds = train(data.between(num_warmup, num_rows))
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peer": arguments.peer,
        "version": version(peer.package),
        "torch": torch.__version__,
        "model": peer.model,
        "feeding": peer.feeding,
        "optimizer": arguments.optimizer,
        "allocator": "keeps freed memory" if best else "default",
        "rows": arguments.rows,
        "batch": arguments.batch,
        "batches": arguments.batches,
        "threads": arguments.threads,
        "seconds": round(seconds, 3),
        "samples_per_s": round(arguments.batches * arguments.batch / seconds, 1),
        "peak_gib": round(peak_kib / 2**20, 2),
    }


def main() -> None:
    arguments = parse_arguments()
    if min(arguments.rows, arguments.batch, arguments.batches, arguments.warmup, arguments.threads) < 1:
        sys.exit("peers.py: --rows, --batch, --batches, --warmup and --threads are at least 1")
    if arguments.optimizer == "best":
        restart_with_kept_memory()
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = measure(arguments)
    except ModuleNotFoundError as error:
        sys.exit(f"peers.py: {error}; run it with the Python of the environment that peers_install.sh makes")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
