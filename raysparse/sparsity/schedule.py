"""How a budget is approached while a head is pruned."""


def cubic_budget(budget: float, progress: float) -> float:
    """Share of the multiply-adds allowed at `progress` of the way (Zhu and Gupta 2017, arXiv 1710.01878, eq. 1)."""
    return budget + (1.0 - budget) * max(0.0, 1.0 - progress) ** 3


def masks_stand(progress: float) -> bool:
    """Whether the budget has to be met."""
    return progress >= 1.0 - 1e-9
