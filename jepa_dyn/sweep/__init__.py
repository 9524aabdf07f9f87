"""Sweeps: a grid of parameters in, one labelled `xarray.Dataset` out."""

from jepa_dyn.sweep.grid import Axis, Grid, axis
from jepa_dyn.sweep.run import sweep

__all__ = ["Axis", "Grid", "axis", "sweep"]
