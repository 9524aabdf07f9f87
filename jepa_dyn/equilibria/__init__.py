"""Equilibria: those of a siamese network, their stability; branches over a parameter and their folds; basins of attraction."""

from jepa_dyn.equilibria.basins import UNRESOLVED, BasinShares, Ends, basin_shares, binomial_interval, by_flow, by_steps
from jepa_dyn.equilibria.closed_forms import commuting_equilibria, one_feature_eigenvalues, one_feature_roots
from jepa_dyn.equilibria.continuation import Branch, Fold, continue_branch, locate_fold
from jepa_dyn.equilibria.fixed_point import square_root_fixed_point
from jepa_dyn.equilibria.reduced import reduced_residual
from jepa_dyn.equilibria.siamese import (
    RankEquilibria,
    SiameseEquilibria,
    differentiable_root,
    equilibrium_state,
    siamese_equilibria,
)
from jepa_dyn.equilibria.siamese_branch import SiameseBranch, siamese_branch
from jepa_dyn.equilibria.stability import Stability, orbit_dimension, stability

__all__ = [
    "UNRESOLVED",
    "BasinShares",
    "Branch",
    "Ends",
    "Fold",
    "RankEquilibria",
    "SiameseBranch",
    "SiameseEquilibria",
    "Stability",
    "basin_shares",
    "binomial_interval",
    "by_flow",
    "by_steps",
    "commuting_equilibria",
    "continue_branch",
    "differentiable_root",
    "equilibrium_state",
    "locate_fold",
    "one_feature_eigenvalues",
    "one_feature_roots",
    "orbit_dimension",
    "reduced_residual",
    "siamese_branch",
    "siamese_equilibria",
    "square_root_fixed_point",
    "stability",
]
