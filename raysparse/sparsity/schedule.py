"""How a budget is approached over a pruning window."""

RECOVERY = 1 / 3
"""Last part of a window, in which the masks stand and the weights recover."""


def cubic_budget(budget: float, progress: float) -> float:
    """Share of the multiply-adds allowed at `progress` of the window (Zhu and Gupta 2017, arXiv 1710.01878, eq. 1)."""
    left = max(0.0, 1.0 - progress / (1.0 - RECOVERY))
    return budget + (1.0 - budget) * left**3


def masks_stand(progress: float) -> bool:
    """Whether the recovery at the end of a window has begun."""
    return progress >= 1.0 - RECOVERY - 1e-9
