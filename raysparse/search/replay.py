"""Resumes a search: a searcher takes from the journal what was scored already. Driver."""

from collections.abc import Iterable, Mapping
from typing import Generic

from raysparse.errors import CheckpointError
from raysparse.search.journal import Entry, Journal
from raysparse.search.population import Proposal, Searcher
from raysparse.search.space import C


class Replay(Generic[C]):
    """A fresh searcher, brought to where the journal ends; it is a `Searcher`, which tells what its methods promise.

    Trials that were under way when the search was killed are handed out, and so is one whose line was deleted. What
    was scored in later generations waits until they are reached, and is then taken from the journal: nothing is scored
    twice.
    """

    def __init__(self, searcher: Searcher[C], journal: Journal) -> None:
        """Replay the journal; CheckpointError where the searcher proposes other choices than those in it."""
        self._searcher = searcher
        self._path = journal.path
        self._waiting = {entry.number: entry for entry in journal.entries}
        self.num_replayed = len(journal.entries)
        self._refuse(number for number in self._waiting if number >= searcher.num_trials)
        missing: list[Proposal[C]] = []
        while self._waiting and (proposals := self.ask(len(self._waiting))):
            missing += proposals
        for proposal in missing:
            searcher.release(proposal)

    @property
    def num_trials(self) -> int:
        """How many choices are proposed, unless the space runs out of them before."""
        return self._searcher.num_trials

    @property
    def ended(self) -> str | None:
        """Why nothing is left to propose and nothing to wait for; None while there is."""
        return self._searcher.ended

    def ask(self, count: int) -> list[Proposal[C]]:
        """Hand out up to `count` proposals that the journal does not know.

        CheckpointError where it knows one of another choice, or one that the search never comes to.
        """
        handed: list[Proposal[C]] = []
        while len(handed) < count and (proposals := self._searcher.ask(count - len(handed))):
            handed += [proposal for proposal in proposals if not self._takes_up(proposal)]
        if self._searcher.ended is not None:
            self._refuse(self._waiting)
        return handed

    def tell(self, proposal: Proposal[C], objectives: Mapping[str, float] | None) -> None:
        """Take the result of a proposal that was handed out; None where its trial failed."""
        self._searcher.tell(proposal, objectives)

    def release(self, proposal: Proposal[C]) -> None:
        """Take back a proposal whose trial was lost: it is handed out again."""
        self._searcher.release(proposal)

    def _takes_up(self, proposal: Proposal[C]) -> bool:
        """Tell the searcher what the journal knows of a proposal, and whether it knows it."""
        entry = self._waiting.pop(proposal.number, None)
        if entry is None:
            return False
        self._require_same_choice(entry, proposal)
        self._searcher.tell(proposal, entry.objectives)
        return True

    def _require_same_choice(self, entry: Entry, proposal: Proposal[C]) -> None:
        if entry.key != proposal.key:
            raise CheckpointError(
                f"{self._path}: trial {entry.number} scored {entry.key}, where this search proposes {proposal.key}; "
                "another version of the space or of the searcher wrote it, or a choice of an earlier generation was "
                "scored anew and came out otherwise: move it away to start anew"
            )

    def _refuse(self, numbers: Iterable[int]) -> None:
        number = min(numbers, default=None)
        if number is not None:
            raise CheckpointError(
                f"{self._path} holds trial {number}, which this search never comes to; "
                "a longer search or another version wrote it: move it away to start anew"
            )
