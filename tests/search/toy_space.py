"""A space of bit strings whose last bit nothing reads, and searches over it that can be killed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from raysparse.config import Config, check
from raysparse.cost.record import Cost
from raysparse.search.journal import Journal
from raysparse.search.population import GenerationalSearch, Proposal, Searcher, SearcherConfig, build_searcher

Outcome = Mapping[str, float] | str


class Bits(Config):
    bits: tuple[int, ...]


class BitSpace:
    """`num_bits` bits that count, and one that is dead."""

    def __init__(self, num_bits: int) -> None:
        self.num_bits = num_bits
        self.cheapest = Bits(bits=(0,) * (num_bits + 1))

    def sample(self, random: Random) -> Bits:
        return Bits(bits=tuple(random.randrange(2) for _ in range(self.num_bits + 1)))

    def mutate(self, choice: Bits, random: Random) -> Bits:
        place = random.randrange(self.num_bits)
        return Bits(bits=tuple(bit ^ (index == place) for index, bit in enumerate(choice.bits)))

    def canonical(self, choice: Bits) -> Bits:
        return Bits(bits=(*choice.bits[:-1], 0))

    def key(self, choice: Bits) -> str:
        return "".join(map(str, choice.bits[:-1]))

    def cost(self, choice: Bits) -> Cost:
        return Cost(macs=sum(choice.bits[:-1]), parameters=0, embedding_bytes=0)

    def parse(self, tree: object) -> Bits:
        assert isinstance(tree, dict)
        return check(Bits, tree, "choice")


class CrossingBitSpace(BitSpace):
    def crossover(self, first: Bits, second: Bits, random: Random) -> Bits:
        cut = random.randrange(1, self.num_bits)
        return Bits(bits=first.bits[:cut] + second.bits[cut:])


HEADER = {"space": {"num_bits": 6}, "checkpoint": "day-3", "seed": 1, "objectives": ["log_loss", "macs"]}


def score(proposal: Proposal[Bits]) -> Outcome:
    """Two objectives at odds with each other; every seventh trial fails."""
    if proposal.number % 7 == 3:
        return "out of memory"
    bits = proposal.choice.bits[:-1]
    wrong = sum(0.1 * (place + 1) * (bit == place % 2) for place, bit in enumerate(bits))
    return {"log_loss": wrong, "macs": sum(bits)}


def drive(
    searcher: Searcher[Bits],
    journal: Journal,
    *,
    num_slots: int = 1,
    arrival: Random | None = None,
    most: int | None = None,
    objective: Callable[[Proposal[Bits]], Outcome] = score,
) -> None:
    """Score what is asked for in `num_slots` slots, results arriving in the order of `arrival`; stop after `most`."""
    arrival = arrival or Random(0)
    running: list[Proposal[Bits]] = []
    num_scored = 0
    while num_scored != most:
        running += searcher.ask(num_slots - len(running))
        if not running:
            return
        proposal = running.pop(arrival.randrange(len(running)))
        searcher.tell(proposal, journal.record(proposal, objective(proposal), 0.5).objectives)
        num_scored += 1


def search(
    config: SearcherConfig, path: Path, *, num_bits: int = 6, seed: int = 1
) -> tuple[GenerationalSearch[Bits], Journal]:
    """Return a fresh searcher and its journal."""
    return build_searcher(config, BitSpace(num_bits), seed), Journal.open(path, HEADER)
