import os
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysparse.errors import CheckpointError
from raysparse.search.journal import Entry, Journal
from raysparse.search.population import (
    NSGA2Config,
    Proposal,
    RandomSearchConfig,
    RegularizedEvolutionConfig,
    SearcherConfig,
)
from raysparse.search.replay import Replay
from tests.search.toy_space import Bits, Outcome, drive, score, search

RANDOM = RandomSearchConfig(num_trials=20)
EVOLUTION = RegularizedEvolutionConfig(
    objective="log_loss", num_initial=6, tournament=3, num_children=2, num_generations=7
)
NSGA = NSGA2Config(objectives=("log_loss", "macs"), population=5, num_generations=3)
CONFIGS = [RANDOM, EVOLUTION, NSGA]


def by_number(journal: Journal) -> list[Entry]:
    return sorted(journal.entries, key=lambda entry: entry.number)


@settings(deadline=None, max_examples=60)
@given(
    config=st.sampled_from(CONFIGS),
    kills=st.lists(st.integers(0, 12), max_size=3),
    num_slots=st.integers(1, 5),
    order=st.integers(0, 1000),
    num_bits=st.sampled_from([3, 6]),
    torn=st.binary(max_size=30).map(lambda tail: tail.replace(b"\n", b"")),
)
def test_killed_anywhere_the_end_is_the_same(
    config: SearcherConfig, kills: list[int], num_slots: int, order: int, num_bits: int, torn: bytes
):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # hundreds of times; no power is lost here
        undisturbed, expected = search(config, Path(folder) / "undisturbed.jsonl", num_bits=num_bits)
        drive(undisturbed, expected)
        path = Path(folder) / "killed.jsonl"
        arrival = Random(order)
        searcher, journal = search(config, path, num_bits=num_bits)
        driven = searcher
        replay = Replay(searcher, journal)
        for most in [*kills, None]:
            drive(replay, journal, num_slots=num_slots, arrival=arrival, most=most)
            journal.close()
            with path.open("ab") as file:
                file.write(torn)
            num_done = len(journal.entries)
            driven = searcher
            searcher, journal = search(config, path, num_bits=num_bits)
            replay = Replay(searcher, journal)
            assert replay.num_replayed == num_done
        assert by_number(journal) == by_number(expected)
        assert replay.ask(1) == []
        assert searcher.population == driven.population == undisturbed.population
        assert searcher.ended == driven.ended == undisturbed.ended is not None
        assert len(journal.entries) == (20 if num_bits == 6 else 8)
        journal.close()
        expected.close()


def test_trials_under_way_are_asked_again(tmp_path: Path):
    searcher, journal = search(EVOLUTION, tmp_path / "journal.jsonl")
    proposals = searcher.ask(4)
    for proposal in (proposals[3], proposals[1]):
        searcher.tell(proposal, journal.record(proposal, {"log_loss": 0.5}, 1.0).objectives)
    journal.close()
    again, journal = search(EVOLUTION, tmp_path / "journal.jsonl")
    with journal:
        replay = Replay(again, journal)
        assert replay.num_replayed == 2
        assert [proposal.number for proposal in replay.ask(10)] == [0, 2, 4, 5]


def test_a_journal_that_does_not_fit_the_searcher_is_refused(tmp_path: Path):
    searcher, journal = search(EVOLUTION, tmp_path / "journal.jsonl")
    drive(searcher, journal)
    journal.close()
    other, journal = search(EVOLUTION, tmp_path / "journal.jsonl", seed=2)
    with journal, pytest.raises(CheckpointError, match="trial 0 scored .* where this search proposes"):
        Replay(other, journal)
    shorter, journal = search(EVOLUTION.model_copy(update={"num_generations": 0}), tmp_path / "journal.jsonl")
    with journal, pytest.raises(CheckpointError, match="holds trial 6, which this search never comes to"):
        Replay(shorter, journal)


@settings(deadline=None, max_examples=60)
@given(
    config=st.sampled_from(CONFIGS),
    lines=st.sets(st.integers(1, 20), min_size=1, max_size=3),
    num_slots=st.integers(1, 5),
    order=st.integers(0, 1000),
    most=st.sampled_from([0, 1, 2, None]),
)
def test_a_line_that_is_deleted_is_scored_again_alone_and_the_end_is_the_same(
    config: SearcherConfig, lines: set[int], num_slots: int, order: int, most: int | None
):
    scored: list[int] = []

    def count(proposal: Proposal[Bits]) -> Outcome:
        scored.append(proposal.number)
        return score(proposal)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # hundreds of times; no power is lost here
        path, arrival = Path(folder) / "journal.jsonl", Random(order)
        undisturbed, journal = search(config, path)
        drive(undisturbed, journal, num_slots=num_slots, arrival=arrival)
        expected = by_number(journal)
        journal.close()
        text = path.read_text().splitlines(keepends=True)
        lost = {Entry.model_validate_json(text[line]).number for line in lines if line < len(text)}
        path.write_text("".join(line for number, line in enumerate(text) if number not in lines))
        # Perhaps killed once more on the way.
        for limit in (most, None):
            searcher, journal = search(config, path)
            replay = Replay(searcher, journal)
            drive(replay, journal, num_slots=num_slots, arrival=arrival, most=limit, objective=count)
            ended = replay.ended
            journal.close()
        assert sorted(scored) == sorted(lost)
        assert by_number(journal) == expected
        assert searcher.population == undisturbed.population
        assert ended == undisturbed.ended is not None


def test_a_line_scored_again_that_leads_elsewhere_is_named(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    searcher, journal = search(EVOLUTION, path)
    drive(searcher, journal)
    journal.close()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    searcher, journal = search(EVOLUTION, path)
    with journal:
        replay = Replay(searcher, journal)
        (proposal,) = replay.ask(5)
        assert proposal.number == 0
        replay.tell(proposal, journal.record(proposal, {"log_loss": -1.0, "macs": 1.0}, 1.0).objectives)
        with pytest.raises(CheckpointError, match="or a choice of an earlier generation was scored anew"):
            replay.ask(1)
