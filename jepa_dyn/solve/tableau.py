"""The Runge-Kutta pair of the lane stepper: Tsitouras' 5(4) pair with its fourth-order interpolant, as data.

Source: Tsitouras 2011, Computers & Mathematics with Applications 62, 770-775; the pair is read from `diffrax.Tsit5`, the
interpolant's factored polynomials, published to about ten digits, are multiplied out here.
"""

from dataclasses import dataclass
from functools import reduce

import diffrax
import numpy as np


@dataclass(frozen=True)
class Tableau:
    """`a`: rows of the stages after the first, the last of which is the solution; `error`: weights of the error estimate;
    `c`: stage times; `dense[j, i]`: weight of stage i in the coefficient of theta^(j+1) of the interpolant; `order` of the error.
    """

    a: tuple[np.ndarray, ...]
    c: np.ndarray
    error: np.ndarray
    dense: np.ndarray
    order: int


# b_i(theta) of Tsitouras 2011, section 4: scale and factors, highest power first
_DENSE_FACTORS: tuple[tuple[float, tuple[tuple[float, ...], ...]], ...] = (
    (-1.0530884977290216, ((1, 0), (1, -1.3299890189751412), (1, -1.4364028541716351, 0.7139816917074209))),
    (0.1017, ((1, 0, 0), (1, -2.1966568338249754, 1.2949852507374631))),
    (2.490627285651252793, ((1, 0, 0), (1, -2.38535645472061657, 1.57803468208092486))),
    (-16.54810288924490272, ((1, 0, 0), (1, -1.21712927295533244), (1, -0.61620406037800089))),
    (47.37952196192828122, ((1, 0, 0), (1, -1.203071208372362603), (1, -0.658047292653547382))),
    (-34.87065786149660974, ((1, 0, 0), (1, -1.2), (1, -2 / 3))),
    (2.5, ((1, 0, 0), (1, -1), (1, -0.6))),
)


def _dense() -> np.ndarray:
    columns = [scale * np.asarray(reduce(np.polymul, factors))[::-1] for scale, factors in _DENSE_FACTORS]
    return np.stack(columns, axis=1)[1:]


TSIT5 = Tableau(
    a=tuple(np.asarray(row) for row in diffrax.Tsit5.tableau.a_lower),
    c=np.asarray(diffrax.Tsit5.tableau.c),
    error=np.asarray(diffrax.Tsit5.tableau.b_error),
    dense=_dense(),
    order=5,
)
