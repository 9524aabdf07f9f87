"""From real view pairs to a prediction of what JEPA and MAE encoders learn first, when, and how strongly."""

from jepa_dyn.predict.core import DEFAULT_DEPTHS, DEFAULT_EPS, predict, swapped_pairs
from jepa_dyn.predict.figure import plot_prediction
from jepa_dyn.predict.images import predict_from_images, spectrum_of_images, view_kind
from jepa_dyn.predict.report import defect_sentence, report

__all__ = [
    "DEFAULT_DEPTHS",
    "DEFAULT_EPS",
    "defect_sentence",
    "plot_prediction",
    "predict",
    "predict_from_images",
    "report",
    "spectrum_of_images",
    "swapped_pairs",
    "view_kind",
]
