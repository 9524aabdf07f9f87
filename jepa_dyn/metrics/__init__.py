"""What one measures on encoders and on saved series: balance, projections, crossing times, learning order, integrability."""

from jepa_dyn.metrics.balance import imbalance, imbalance_norm
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
    "crossing_times",
    "imbalance",
    "imbalance_norm",
    "increments",
    "integrability_defect",
    "learning_order",
    "linear_integrability_defect",
    "predictor_imbalance",
    "projections",
    "rank_agreement",
    "stop_gradient_field",
]
