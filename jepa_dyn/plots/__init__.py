"""Drawing with matplotlib, from labelled data only; each helper returns `(figure, axes)` and accepts `ax=`."""

from jepa_dyn.plots.critical import critical_times, learning_order
from jepa_dyn.plots.curves import learning_curves
from jepa_dyn.plots.maps import heat_map

__all__ = ["critical_times", "heat_map", "learning_curves", "learning_order"]
