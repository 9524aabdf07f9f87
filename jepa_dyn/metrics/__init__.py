"""What one measures on encoders and on saved series: balance, projections on features, crossing times, learning order."""

from jepa_dyn.metrics.balance import imbalance, imbalance_norm
from jepa_dyn.metrics.learning_order import crossing_times, learning_order, rank_agreement
from jepa_dyn.metrics.projections import projections

__all__ = ["crossing_times", "imbalance", "imbalance_norm", "learning_order", "projections", "rank_agreement"]
