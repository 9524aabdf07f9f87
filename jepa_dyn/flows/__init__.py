"""Pure vector fields f(t, y, args) -> dy/dt, one file per system."""

from jepa_dyn.flows.layer_modes import LayerParameters, jepa_layer, layer_parameters, mae_layer
from jepa_dyn.flows.log_modes import jepa_log, jepa_logit, mae_log, mae_logit
from jepa_dyn.flows.modes import jepa, jepa_order, mae, mae_order

__all__ = [
    "LayerParameters",
    "jepa",
    "jepa_layer",
    "jepa_log",
    "jepa_logit",
    "jepa_order",
    "layer_parameters",
    "mae",
    "mae_layer",
    "mae_log",
    "mae_logit",
    "mae_order",
]
