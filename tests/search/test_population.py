import itertools
from collections import Counter
from random import Random

import pytest

from raysparse.config import check
from raysparse.errors import ConfigError
from raysparse.search.population import (
    NSGA2,
    GenerationalSearch,
    ListedSearch,
    NSGA2Config,
    Proposal,
    RandomSearch,
    RandomSearchConfig,
    RegularizedEvolution,
    RegularizedEvolutionConfig,
    SearcherConfig,
    build_searcher,
    num_mutations,
)
from tests.search.toy_space import Bits, BitSpace, CrossingBitSpace

RANDOM = RandomSearchConfig(num_trials=40)
EVOLUTION = RegularizedEvolutionConfig(
    objective="log_loss", num_initial=8, tournament=4, num_children=4, num_generations=8
)
NSGA = NSGA2Config(objectives=("log_loss", "macs"), population=8, num_generations=4)
CONFIGS = [RANDOM, EVOLUTION, NSGA]
each_kind = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def weighted_errors(choice: Bits) -> dict[str, float]:
    """Distance to a hidden string, some of whose bits matter more; `macs` is the number of ones."""
    bits = choice.bits[:-1]
    wrong = sum((1 + place % 5) * (bit != (place % 3 == 0)) for place, bit in enumerate(bits))
    return {"log_loss": float(wrong), "macs": float(sum(bits))}


def finish(searcher: GenerationalSearch[Bits], count: int = 100) -> list[tuple[Proposal[Bits], dict[str, float]]]:
    told: list[tuple[Proposal[Bits], dict[str, float]]] = []
    while proposals := searcher.ask(count):
        for proposal in proposals:
            told.append((proposal, weighted_errors(proposal.choice)))
            searcher.tell(*told[-1])
    return told


class WatchedSpace(BitSpace):
    """Remembers which choices were mutated."""

    def __init__(self, num_bits: int) -> None:
        super().__init__(num_bits)
        self.mutated: list[str] = []

    def mutate(self, choice: Bits, random: Random) -> Bits:
        self.mutated.append(self.key(choice))
        return super().mutate(choice, random)


class StuckSpace(BitSpace):
    """Mutations that change nothing."""

    def mutate(self, choice: Bits, random: Random) -> Bits:
        return choice


@each_kind
def test_no_key_is_proposed_twice_and_numbers_are_consecutive(config: SearcherConfig):
    told = finish(build_searcher(config, BitSpace(7), seed=3))
    assert len({proposal.key for proposal, _ in told}) == len(told) == 40
    assert sorted(proposal.number for proposal, _ in told) == list(range(40))


@each_kind
def test_a_search_that_is_through_says_so(config: SearcherConfig):
    searcher = build_searcher(config, BitSpace(7), seed=3)
    assert searcher.num_trials == 40
    assert searcher.ended is None
    finish(searcher)
    assert searcher.ended == "all 40 trials are done"


@each_kind
def test_a_space_that_is_used_up_ends_the_search(config: SearcherConfig):
    searcher = build_searcher(config, BitSpace(4), seed=0)
    told = finish(searcher)
    assert {proposal.key for proposal, _ in told} == {"".join(bits) for bits in itertools.product("01", repeat=4)}
    assert len(told) == 16
    assert searcher.ended is not None
    assert "after 16 of 40 trials" in searcher.ended
    assert searcher.ask(5) == []


@each_kind
def test_a_used_up_space_is_known_only_when_the_last_result_is_there(config: SearcherConfig):
    searcher = build_searcher(config, BitSpace(2), seed=0)
    proposals = searcher.ask(40)
    assert len(proposals) == 4
    assert searcher.ended is None
    for proposal in proposals:
        searcher.tell(proposal, weighted_errors(proposal.choice))
    assert searcher.ended is not None
    assert len(searcher.population) == 4


@pytest.mark.parametrize("config", [EVOLUTION, NSGA], ids=lambda config: config.kind)
def test_a_generation_waits_for_the_one_before(config: SearcherConfig):
    searcher = build_searcher(config, BitSpace(7), seed=3)
    first = searcher.ask(100)
    assert [proposal.generation for proposal in first] == [0] * 8
    for proposal in first[1:]:
        searcher.tell(proposal, weighted_errors(proposal.choice))
        assert searcher.ask(100) == []
    searcher.tell(first[0], weighted_errors(first[0].choice))
    assert {proposal.generation for proposal in searcher.ask(100)} == {1}


def test_random_search_waits_for_nothing():
    assert len(build_searcher(RANDOM, BitSpace(7), seed=3).ask(100)) == 40


@each_kind
def test_another_seed_proposes_other_choices(config: SearcherConfig):
    def first_keys(seed: int) -> list[str]:
        return [proposal.key for proposal in build_searcher(config, BitSpace(30), seed).ask(8)]

    assert first_keys(1) == first_keys(1) != first_keys(2)


@each_kind
def test_a_lost_proposal_is_handed_out_again(config: SearcherConfig):
    searcher = build_searcher(config, BitSpace(7), seed=3)
    first = searcher.ask(4)
    searcher.release(first[2])
    searcher.release(first[1])
    assert searcher.ask(3)[:2] == first[1:3]
    searcher.tell(first[1], None)
    with pytest.raises(ValueError, match="proposal 1 is not handed out"):
        searcher.tell(first[1], None)
    with pytest.raises(ValueError, match="proposal 1 is not handed out"):
        searcher.release(first[1])


@pytest.mark.parametrize("config", [EVOLUTION, NSGA], ids=lambda config: config.kind)
def test_failed_trials_count_and_are_never_parents(config: SearcherConfig):
    space = WatchedSpace(7)
    searcher = build_searcher(config, space, seed=3)
    num_failed = num_parents = 0
    while True:
        members = {member.proposal.key for member in searcher.population}
        space.mutated.clear()
        proposals = searcher.ask(100)
        if not proposals:
            break
        generation = proposals[0].generation
        # What several mutations pass through on the way from the parent to a child is no parent.
        depth = num_mutations(generation - 1, 8) if config.kind == "evolution" and generation else 1
        parents = set(space.mutated[::depth])
        num_parents += len(parents)
        assert parents <= members
        for proposal in proposals:
            # Good ones fail: a parent would be chosen from them.
            scored = weighted_errors(proposal.choice) if proposal.number % 3 or generation else None
            failed = scored is None or scored["log_loss"] < 8
            num_failed += failed
            searcher.tell(proposal, None if failed else scored)
            assert not failed or proposal.key not in {member.proposal.key for member in searcher.population}
    assert num_failed > 4
    assert num_parents >= 4
    assert searcher.ended == "all 40 trials are done"


@pytest.mark.parametrize("config", [EVOLUTION, NSGA], ids=lambda config: config.kind)
def test_a_search_survives_a_generation_without_a_score(config: SearcherConfig):
    searcher = build_searcher(config, BitSpace(7), seed=3)
    for proposal in searcher.ask(100):
        searcher.tell(proposal, None)
    assert len(finish(searcher)) == 32
    assert searcher.population


@pytest.mark.parametrize("config", [EVOLUTION, NSGA], ids=lambda config: config.kind)
def test_a_parent_whose_neighbours_are_known_does_not_end_the_search(config: SearcherConfig):
    assert len(finish(build_searcher(config, StuckSpace(7), seed=3))) == 40


def test_the_oldest_leave():
    searcher = RegularizedEvolution(EVOLUTION, BitSpace(7), seed=3)
    finish(searcher)
    assert [member.proposal.number for member in searcher.population] == list(range(32, 40))


def test_the_number_of_mutations_falls_as_published():
    published = [(240 - generation) // 48 + 1 for generation in range(240)]
    assert [num_mutations(generation, 240) for generation in range(240)] == published
    assert published[0] == 6
    assert published[-1] == 1
    assert [num_mutations(generation, 10) for generation in range(10)] == [6, 5, 5, 4, 4, 3, 3, 2, 2, 1]
    assert num_mutations(0, 1) == 6


def test_evolution_beats_random_search_at_equal_evaluations():
    space = BitSpace(24)
    config = RegularizedEvolutionConfig(
        objective="log_loss", num_initial=32, tournament=16, num_children=4, num_generations=60
    )
    wins: Counter[bool] = Counter()
    for seed in range(8):
        evolution = finish(RegularizedEvolution(config, space, seed))
        random = finish(RandomSearch(RandomSearchConfig(num_trials=config.num_initial + 240), space, seed))
        assert len(evolution) == len(random) == 272
        wins[best(evolution) < best(random)] += 1
    assert wins == {True: 8}


def best(told: list[tuple[Proposal[Bits], dict[str, float]]]) -> float:
    return min(objectives["log_loss"] for _, objectives in told)


def leading_ones_trailing_zeros(choice: Bits) -> dict[str, float]:
    """LOTZ (Laumanns et al. 2002): the front is every string of ones and then zeros."""
    text = "".join(map(str, choice.bits[:-1]))
    return {
        "leading": float(len(text.lstrip("1")) - len(text)),
        "trailing": float(len(text.rstrip("0")) - len(text)),
    }


@pytest.mark.parametrize("space", [BitSpace(12), CrossingBitSpace(12)], ids=["mutation", "crossover"])
def test_nsga2_finds_a_known_front(space: BitSpace):
    config = NSGA2Config(objectives=("leading", "trailing"), population=16, num_generations=20)
    for seed in range(3):
        searcher = NSGA2(config, space, seed)
        while proposals := searcher.ask(100):
            for proposal in proposals:
                searcher.tell(proposal, leading_ones_trailing_zeros(proposal.choice))
        found = {member.proposal.key for member in searcher.population}
        assert {"1" * ones + "0" * (12 - ones) for ones in range(13)} <= found


class CountingSpace(CrossingBitSpace):
    """Counts its crossovers."""

    num_crossovers = 0

    def crossover(self, first: Bits, second: Bits, random: Random) -> Bits:
        self.num_crossovers += 1
        return super().crossover(first, second, random)


def test_crossover_rate():
    counts: dict[float, int] = {}
    for rate in (0.0, 1.0):
        space = CountingSpace(20)
        finish(
            NSGA2(
                NSGA2Config(objectives=("log_loss", "macs"), population=8, num_generations=3, crossover_rate=rate),
                space,
                seed=2,
            )
        )
        counts[rate] = space.num_crossovers
    assert counts[0.0] == 0
    assert counts[1.0] >= 24


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({"auc": 0.7}, "trial 0 gave no log_loss, which the search makes small; it gave: auc"),
        ({}, "it gave: nothing"),
        ({"log_loss": float("nan")}, "trial 0 gave log_loss = nan"),
    ],
)
def test_a_result_that_is_no_score_is_refused(objectives: dict[str, float], message: str):
    searcher = build_searcher(EVOLUTION, BitSpace(7), seed=3)
    (proposal,) = searcher.ask(1)
    with pytest.raises(ConfigError, match=message):
        searcher.tell(proposal, objectives)
    searcher.tell(proposal, {"log_loss": 0.5})


def test_configs_name_what_cannot_be():
    with pytest.raises(ConfigError, match=r"tournament at most num_initial \(8\); 9 is more"):
        check(RegularizedEvolutionConfig, {"num_initial": 8, "tournament": 9}, "job")
    with pytest.raises(ConfigError, match="objectives of different names; found macs, macs"):
        check(NSGA2Config, {"objectives": ["macs", "macs"]}, "job")


def test_the_defaults_are_the_published_budget():
    for config in (
        kind().resolved("log_loss") for kind in (RandomSearchConfig, RegularizedEvolutionConfig, NSGA2Config)
    ):
        assert build_searcher(config, BitSpace(30), seed=0).num_trials == 2048


def test_choices_that_are_listed_are_proposed_once_each():
    space = BitSpace(4)
    first, second = (space.sample(Random(seed)) for seed in (1, 2))
    searcher = ListedSearch(space, [first, second, first])
    assert searcher.num_trials == 2
    proposals = searcher.ask(5)
    assert [proposal.choice for proposal in proposals] == [first, second]
    for proposal in proposals:
        searcher.tell(proposal, {"log_loss": 1.0})
    assert searcher.ended == "all 2 trials are done"
    assert len(searcher.population) == 2
