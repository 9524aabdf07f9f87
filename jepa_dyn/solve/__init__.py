"""Solving: one system (`integrate`), many (`ensemble`), by closed form (`ClosedForm`), in discrete steps (`train`)."""

from jepa_dyn.solve.closed_form import ClosedForm
from jepa_dyn.solve.eigenbasis import integrate_in_eigenbasis, train_in_eigenbasis
from jepa_dyn.solve.ensemble import ensemble
from jepa_dyn.solve.integrate import integrate
from jepa_dyn.solve.result import Crossings, FailedTrajectories, Trajectories
from jepa_dyn.solve.train import train, train_on_batches
from jepa_dyn.solve.training_result import TrainingRuns

__all__ = [
    "ClosedForm",
    "Crossings",
    "FailedTrajectories",
    "TrainingRuns",
    "Trajectories",
    "ensemble",
    "integrate",
    "integrate_in_eigenbasis",
    "train",
    "train_in_eigenbasis",
    "train_on_batches",
]
