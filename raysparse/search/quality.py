"""By what a search judges its networks: the loss of clicks, or the ranks of next items."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """A metric by which networks are chosen, and one that is told beside it. Any process."""

    name: str
    """As in the history of a run: `log_loss`, `ndcg@10`."""
    title: str
    second: str
    second_title: str
    is_better_high: bool
    unit: str
    """What the history of a network that is trained alone has a line for."""

    @property
    def objective(self) -> str:
        """What a search makes small: the metric, or what it lacks to 1."""
        return f"1-{self.name}" if self.is_better_high else self.name

    def loss_of(self, value: float) -> float:
        """Return the objective of a metric's value; the value of an objective is found in the same way."""
        return 1.0 - value if self.is_better_high else value


CLICKS = Quality("log_loss", "log loss", "auc", "AUC", is_better_high=False, unit="day")
NEXT_ITEMS = Quality("ndcg@10", "NDCG@10", "hr@10", "HR@10", is_better_high=True, unit="epoch")

QUALITIES = {quality.name: quality for quality in (CLICKS, NEXT_ITEMS)}
