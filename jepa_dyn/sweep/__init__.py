"""Sweeps: a grid of parameters in, one labelled `xarray.Dataset` out, in memory or in a store that survives."""

from jepa_dyn.sweep.archive import SweepStatus, open_sweep, status, verify
from jepa_dyn.sweep.designs import between
from jepa_dyn.sweep.grid import Axis, Grid, axis, static
from jepa_dyn.sweep.manifest import SweepMismatch
from jepa_dyn.sweep.pipeline import SweepDrained
from jepa_dyn.sweep.reduce import Reduce, quantiles
from jepa_dyn.sweep.run import sweep
from jepa_dyn.sweep.store import StoreError

__all__ = [
    "Axis",
    "Grid",
    "Reduce",
    "StoreError",
    "SweepDrained",
    "SweepMismatch",
    "SweepStatus",
    "axis",
    "between",
    "open_sweep",
    "quantiles",
    "static",
    "status",
    "sweep",
    "verify",
]
