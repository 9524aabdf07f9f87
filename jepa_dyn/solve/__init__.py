"""Solving: one system (`integrate`), many (`ensemble`), by closed form (`ClosedForm`); typed results with statuses."""

from jepa_dyn.solve._devices import use_host_devices
from jepa_dyn.solve.closed_form import ClosedForm
from jepa_dyn.solve.ensemble import ensemble
from jepa_dyn.solve.integrate import integrate
from jepa_dyn.solve.result import Crossings, FailedTrajectories, Trajectories

__all__ = [
    "ClosedForm",
    "Crossings",
    "FailedTrajectories",
    "Trajectories",
    "ensemble",
    "integrate",
    "use_host_devices",
]
