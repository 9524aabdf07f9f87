"""Learning dynamics of joint-embedding self-supervised learning, vectorised in JAX.

Importing the package changes no global JAX setting; call `enable_x64()` where float64 is wanted (nearly always, for theory).
"""

from jepa_dyn._precision import enable_x64
from jepa_dyn.parameters import ModeParameters, mode_parameters
from jepa_dyn.status import Status

__version__ = "0.1.0"
__all__ = ["ModeParameters", "Status", "__version__", "enable_x64", "mode_parameters"]
