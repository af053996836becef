"""What long histories cost, jagged against padded, and how well softmax and linear attention learn from them.

python jobs/bench/long_histories.py [--lengths 50 200 512 1024 2048] [--repeats 5] [--steps 100]

An encoder's step on 64 sequences whose lengths are skewed (log-normal, cut at the longest), width 64, 2 layers, 2
heads, one thread, no dropout. Each kind of step (forward and backward) runs in a process of its own, which gives its
most memory; times are medians of steps that alternate between the kinds, round after round. NDCG@10 is that of all next
items of 64 users whom training has not seen, after `steps` steps of full softmax on 64 generated sequences each, of the
same lengths: to compare the kinds of attention at a length, not lengths, since longer sequences have more targets a
step.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from raysparse.data.sequences.config import GeneratedSequencesConfig
from raysparse.data.sequences.generated import generate_histories
from raysparse.data.sequences.histories import Histories
from raysparse.models.sasrec import encoder as encoder_module
from raysparse.models.sasrec.config import SASRecConfig
from raysparse.models.sasrec.encoder import SASRec
from raysparse.models.sasrec.full_softmax import full_softmax
from raysparse.models.sasrec.jagged import Bucket, lengths_of

NUM_SEQUENCES, WIDTH = 64, 64
KINDS = (("jagged", "softmax"), ("jagged", "linear"), ("padded", "softmax"), ("padded", "linear"))
SHARES = {50: 0.5, 200: 0.44, 512: 0.25, 1024: 0.13, 2048: 0.07}
"""Mean share of the longest that a history fills: few are long."""
NUM_ITEMS, LEARNING_RATE = 500, 5e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(SHARES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    print("| longest | mean fill | kind | attention | ms a step | MiB at most | times as long as jagged | NDCG@10 |")
    print("|---" * 8 + "|")
    for longest in arguments.lengths:
        print("\n".join(rows_of(longest, arguments.repeats, arguments.steps)), flush=True)


def rows_of(longest: int, repeats: int, num_steps: int) -> list[str]:
    context = multiprocessing.get_context("spawn")
    processes = []
    for kind in KINDS:
        here, there = context.Pipe()
        process = context.Process(target=steps, args=(there, longest, *kind), daemon=True)
        process.start()
        processes.append((kind, here, process))
    for _, pipe, _ in processes:
        pipe.recv()  # ready
    times: dict[tuple[str, str], list[float]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind, pipe, _ in processes:
            pipe.send("step")
            times[kind].append(pipe.recv())
    rows: list[str] = []
    fill = float(lengths(longest).sum()) / NUM_SEQUENCES / longest
    for kind, pipe, process in processes:
        pipe.send("end")
        memory = pipe.recv()
        process.join()
        of_jagged = zip(times[kind], times["jagged", kind[1]], strict=True)
        ratio = statistics.median(own / jagged for own, jagged in of_jagged)
        cells = [f"{longest:,}", f"{fill:.0%}", *kind, f"{1e3 * statistics.median(times[kind]):,.0f}"]
        # Padding changes no score. In a process of its own: the next length's begin with the most memory of this one.
        quality = ""
        if kind[0] == "jagged":
            with ProcessPoolExecutor(1, context) as pool:
                quality = f"{pool.submit(ndcg, longest, kind[1], num_steps).result():.4f}"
        rows.append(f"| {' | '.join([*cells, f'{memory:,.0f}', f'{ratio:.1f}', quality])} |")
    return rows


def lengths(longest: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    skew = 1.0
    mean = SHARES.get(longest, 0.1) * longest
    drawn = mean * torch.exp(skew * torch.randn(NUM_SEQUENCES, generator=generator) - 0.5 * skew**2)
    drawn = drawn.round().long().clamp(1, longest)
    drawn[0] = longest
    return drawn


def steps(pipe: Connection, longest: int, layout: str, attention: str) -> None:
    """Make a step whenever asked, and tell its seconds; at the end the MiB that steps took at most."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    if layout == "padded":
        encoder_module.buckets_of = one_bucket
    encoder = encoder_of(longest, attention)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths(longest).cumsum(0)])
    values = torch.randn(int(offsets[-1]), WIDTH, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encoder(values, offsets).square().mean().backward()
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    pipe.send("ready")
    while pipe.recv() == "step":
        started = time.perf_counter()
        encoder(values, offsets).square().mean().backward()
        pipe.send(time.perf_counter() - started)
    pipe.send(memory)


def encoder_of(longest: int, attention: str) -> SASRec:
    config = {"embedding_dim": WIDTH, "max_length": longest, "dropout": 0.0, "attention": attention}
    return SASRec(SASRecConfig.model_validate(config))


def ndcg(longest: int, attention: str, num_steps: int) -> float:
    """NDCG@10 of users whom an encoder has not seen, after some steps on others."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = GeneratedSequencesConfig(
        num_items=NUM_ITEMS,
        mean_length=max(4.0, SHARES.get(longest, 0.1) * longest),
        max_length=longest,
        ring_size=NUM_ITEMS // 5,
    )
    encoder, table = encoder_of(longest, attention), nn.Embedding(NUM_ITEMS + 1, WIDTH)
    nn.init.normal_(table.weight, std=0.02)
    optimizer = torch.optim.Adam([*encoder.parameters(), *table.parameters()], LEARNING_RATE)
    for step in range(num_steps):
        inputs, offsets, targets = next_items(
            generate_histories(config, step * NUM_SEQUENCES, (step + 1) * NUM_SEQUENCES)
        )
        optimizer.zero_grad()
        (full_softmax(encoder(table(inputs), offsets), table.weight, targets) / len(targets)).backward()
        optimizer.step()
    unseen = num_steps * NUM_SEQUENCES
    inputs, offsets, targets = next_items(generate_histories(config, unseen, unseen + NUM_SEQUENCES))
    with torch.inference_mode():
        scores = encoder(table(inputs), offsets) @ table.weight[1:].T
        ranks = (scores > scores.gather(1, targets.unsqueeze(1) - 1)).sum(1)
    return float(torch.where(ranks < 10, 1.0 / torch.log2(ranks + 2.0), 0.0).mean())


def next_items(histories: Histories) -> tuple[Tensor, Tensor, Tensor]:
    """All items but each user's last, where each user's begin, and the items that come after them."""
    items, offsets = torch.from_numpy(histories.items).long(), torch.from_numpy(histories.offsets)
    is_last = torch.zeros(len(items), dtype=torch.bool)
    is_last[offsets[1:] - 1] = True
    return items[~is_last], offsets - torch.arange(len(offsets)), items[1:][~is_last[:-1]]


def one_bucket(offsets: Tensor) -> list[Bucket]:
    """All sequences, padded to the longest."""
    sizes = lengths_of(offsets)
    places = torch.arange(int(sizes.max()))
    kept = places < sizes.unsqueeze(1)
    return [Bucket(offsets[:-1].unsqueeze(1) + torch.where(kept, places, 0), kept)]


if __name__ == "__main__":
    main()
