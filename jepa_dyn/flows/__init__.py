"""Pure vector fields f(t, y, args) -> dy/dt, one file per system."""

from jepa_dyn.flows.deep_linear import (
    DeepLinearArguments,
    DeepLinearState,
    deep_jepa,
    deep_jepa_loss,
    deep_linear_arguments,
    deep_linear_state,
    deep_mae,
    deep_mae_loss,
    encoder_matrix,
    layer_mask,
    target_matrix,
    with_target,
)
from jepa_dyn.flows.initialisations import (
    aligned_initialisation,
    balanced_initialisation,
    gaussian_initialisation,
    haar_orthogonal,
    orthogonal_initialisation,
    small_gaussian_initialisation,
)
from jepa_dyn.flows.layer_modes import LayerParameters, jepa_layer, layer_parameters, mae_layer
from jepa_dyn.flows.log_modes import jepa_log, jepa_logit, mae_log, mae_logit
from jepa_dyn.flows.modes import jepa, jepa_order, mae, mae_order

__all__ = [
    "DeepLinearArguments",
    "DeepLinearState",
    "LayerParameters",
    "aligned_initialisation",
    "balanced_initialisation",
    "deep_jepa",
    "deep_jepa_loss",
    "deep_linear_arguments",
    "deep_linear_state",
    "deep_mae",
    "deep_mae_loss",
    "encoder_matrix",
    "gaussian_initialisation",
    "haar_orthogonal",
    "jepa",
    "jepa_layer",
    "jepa_log",
    "jepa_logit",
    "jepa_order",
    "layer_mask",
    "layer_parameters",
    "mae",
    "mae_layer",
    "mae_log",
    "mae_logit",
    "mae_order",
    "orthogonal_initialisation",
    "small_gaussian_initialisation",
    "target_matrix",
    "with_target",
]
