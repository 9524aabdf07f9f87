"""What one measures on encoders and on saved series: balance, projections, crossing times, learning order, integrability."""

from jepa_dyn.metrics.balance import imbalance, imbalance_norm
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
from jepa_dyn.metrics.learning_order import crossing_times, learning_order, rank_agreement
from jepa_dyn.metrics.projections import projections
from jepa_dyn.metrics.siamese import (
    increments,
    integrability_defect,
    linear_integrability_defect,
    predictor_imbalance,
    stop_gradient_field,
)

__all__ = [
    "EigenvaluePaths",
    "Outcome",
    "convergence_rates",
    "crossing_times",
    "follow_eigenvectors",
    "imbalance",
    "imbalance_norm",
    "increments",
    "integrability_defect",
    "learning_order",
    "linear_integrability_defect",
    "predictor_alignment",
    "predictor_imbalance",
    "projections",
    "rank_agreement",
    "rate_ratio",
    "recruited",
    "spectrum_outcome",
    "stop_gradient_field",
]
