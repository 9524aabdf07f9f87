"""The loss zoo: pure functions of the embeddings of two views, one row per pair."""

from jepa_dyn.losses.barlow_twins import barlow_twins_loss, cross_correlation
from jepa_dyn.losses.gaussian_cosine import gaussian_cosine_gradients, gaussian_cosine_loss
from jepa_dyn.losses.predictor import closed_form_predictor, predictor_eigenvalues
from jepa_dyn.losses.representation import (
    TABLE_1,
    RepresentationLoss,
    distance,
    distance_gradients,
    representation_gradients,
    representation_loss,
)

__all__ = [
    "TABLE_1",
    "RepresentationLoss",
    "barlow_twins_loss",
    "closed_form_predictor",
    "cross_correlation",
    "distance",
    "distance_gradients",
    "gaussian_cosine_gradients",
    "gaussian_cosine_loss",
    "predictor_eigenvalues",
    "representation_gradients",
    "representation_loss",
]
