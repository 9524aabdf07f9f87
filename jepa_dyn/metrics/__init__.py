"""What one measures on encoders and saved series: balance, projections, order and steps of learning, rank, alignment, collapse."""

from jepa_dyn.metrics.alignment import chance_alignment, subspace_alignment
from jepa_dyn.metrics.balance import imbalance, imbalance_norm
from jepa_dyn.metrics.collapse import Collapse, collapse_code, embedding_collapse
from jepa_dyn.metrics.effective_rank import (
    effective_rank_of_eigenvalues,
    effective_rank_of_singular_values,
    participation_ratio,
)
from jepa_dyn.metrics.eigenvalues import (
    EigenvaluePaths,
    Outcome,
    convergence_rates,
    follow_eigenvectors,
    predictor_alignment,
    rate_ratio,
    recruited,
    spectrum_outcome,
)
from jepa_dyn.metrics.embedding_spectra import (
    covariance_eigenvalues,
    cross_correlation_eigenvalues,
    embedding_singular_values,
)
from jepa_dyn.metrics.hypersphere import pair_alignment, uniformity
from jepa_dyn.metrics.learning_order import crossing_times, learning_order, rank_agreement
from jepa_dyn.metrics.plateaus import Plateaus, find_plateaus
from jepa_dyn.metrics.projections import projections
from jepa_dyn.metrics.scores import lidar, rankme
from jepa_dyn.metrics.siamese import (
    increments,
    integrability_defect,
    linear_integrability_defect,
    predictor_imbalance,
    siamese_objective_of_networks,
    stop_gradient_field,
)
from jepa_dyn.metrics.steps import Steps, detect_steps

__all__ = [
    "Collapse",
    "EigenvaluePaths",
    "Outcome",
    "Plateaus",
    "Steps",
    "chance_alignment",
    "collapse_code",
    "convergence_rates",
    "covariance_eigenvalues",
    "cross_correlation_eigenvalues",
    "crossing_times",
    "detect_steps",
    "effective_rank_of_eigenvalues",
    "effective_rank_of_singular_values",
    "embedding_collapse",
    "embedding_singular_values",
    "find_plateaus",
    "follow_eigenvectors",
    "imbalance",
    "imbalance_norm",
    "increments",
    "integrability_defect",
    "learning_order",
    "lidar",
    "linear_integrability_defect",
    "pair_alignment",
    "participation_ratio",
    "predictor_alignment",
    "predictor_imbalance",
    "projections",
    "rank_agreement",
    "rankme",
    "rate_ratio",
    "recruited",
    "siamese_objective_of_networks",
    "spectrum_outcome",
    "stop_gradient_field",
    "subspace_alignment",
    "uniformity",
]
