"""Equilibria: branches over a parameter and their folds; basins of attraction."""

from jepa_dyn.equilibria.basins import UNRESOLVED, BasinShares, Ends, basin_shares, binomial_interval, by_flow, by_steps
from jepa_dyn.equilibria.continuation import Branch, Fold, continue_branch, locate_fold

__all__ = [
    "UNRESOLVED",
    "BasinShares",
    "Branch",
    "Ends",
    "Fold",
    "basin_shares",
    "binomial_interval",
    "by_flow",
    "by_steps",
    "continue_branch",
    "locate_fold",
]
