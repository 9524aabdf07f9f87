"""Equilibria: those of a siamese network, their stability; branches over a parameter and their folds; basins of attraction."""

from jepa_dyn.equilibria.basins import UNRESOLVED, BasinShares, Ends, basin_shares, binomial_interval, by_flow, by_steps
from jepa_dyn.equilibria.continuation import Branch, Fold, continue_branch, locate_fold
from jepa_dyn.equilibria.fixed_point import square_root_fixed_point
from jepa_dyn.equilibria.reduced import reduced_residual
from jepa_dyn.equilibria.siamese import (
    SiameseEquilibria,
    differentiable_root,
    equilibrium_state,
    one_feature_eigenvalues,
    one_feature_roots,
    siamese_equilibria,
)
from jepa_dyn.equilibria.stability import Stability, orbit_dimension, stability

__all__ = [
    "UNRESOLVED",
    "BasinShares",
    "Branch",
    "Ends",
    "Fold",
    "SiameseEquilibria",
    "Stability",
    "basin_shares",
    "binomial_interval",
    "by_flow",
    "by_steps",
    "continue_branch",
    "differentiable_root",
    "equilibrium_state",
    "locate_fold",
    "one_feature_eigenvalues",
    "one_feature_roots",
    "orbit_dimension",
    "reduced_residual",
    "siamese_equilibria",
    "square_root_fixed_point",
    "stability",
]
