"""The growth curve of each order n as tables of short polynomials: the fast inverse of the normal form.

In u, time from the half height in units of the rate there (u = scaled_time(half, .)), every growing mode of order n is one curve
x(u) = log y. It is tabulated as quintic polynomials on bins of the floating-point representation of

    q = 1 - early_scale u   (u < 0),      q = 1 + late_scale u   (u >= 0):

the exponent and the leading mantissa bits of q are the bin's number, so that looking a bin up costs a shift, and the power law of
the approach, over tens of decades of u, is resolved evenly. A second table gives log q of the start from z0 = logit y0.

Errors (tests/theory/test_normal_form.py): 2e-11 in log w, 1e-12 in the phase. Only n >= 0 and starts below the half height;
everything else goes through `modes.state`. The tables are built once per n, in float64 whatever the user's number type.
"""

from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jepa_dyn._precision import x64_is_on
from jepa_dyn.theory.branches import log_one_minus_exp
from jepa_dyn.theory.order import Order, order_of, time_from_half, unrolled

MANTISSA_BITS = 4  # 16 bins per factor of 2
LATE_OCTAVES = 8  # q up to 256 after the half height: 1 - y < 1e-19
_DEGREE_CURVE, _DEGREE_START = 5, 7
_START_BINS = 16  # bins of z0 per 1 / (1 + n)
_MOST_NEWTON = 100
_LONGEST_PHASE = 1e280  # more than any lane has that the tables cover


class CurveTable(eqx.Module):
    """Tables of several orders behind each other. `curve[j]` and `start[j]` are the j-th coefficients of all bins."""

    curve: tuple[Float[Array, " bins"], ...]
    start: tuple[Float[Array, " start_bins"], ...]
    early_octaves: Int[Array, ""]
    orders: "OrderPlace"


class OrderPlace(eqx.Module):
    """Where an order's part of the table begins and how it is scaled; one row per order, or per lane after indexing."""

    curve_offset: Int[Array, "..."]
    start_offset: Int[Array, "..."]
    start_count: Int[Array, "..."]
    z_half: Float[Array, "..."]
    start_density: Float[Array, "..."]
    early_scale: Float[Array, "..."]
    late_scale: Float[Array, "..."]

    def of(self, label: Int[Array, "..."]) -> "OrderPlace":
        """The rows of each lane's order."""
        return jax.tree.map(lambda row: row[label], self)


class _OrderTable(NamedTuple):
    curve: np.ndarray  # (degree + 1, bins)
    start: np.ndarray
    z_half: float
    start_density: float
    early_scale: float
    late_scale: float


def _chebyshev_fit(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes on [-1/2, 1/2] and the matrix from values there to monomial coefficients."""
    nodes = 0.5 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return nodes, np.linalg.inv(np.vander(nodes, increasing=True))


def _curve_at(u: np.ndarray, order: Order) -> np.ndarray:
    """x = log y at the times u from the half height, by Newton's method, monotone from the half height on either side.

    Before it in log1p(n T)/n against x, which is concave and nearly linear; after it in z = logit y, whose speed y^n is of order 1.
    """
    n, half = order.n, order.half
    early = u < 0
    target = np.minimum(-u[early], _LONGEST_PHASE)
    target = np.log1p(n * target) / n if n > 0 else target
    x = np.full(u.shape, half)
    z = half - np.log(-np.expm1(half)) + np.maximum(u, 0.0)
    for _ in range(_MOST_NEWTON):
        before = -time_from_half(x[early], order, unrolled)
        growth = n * before
        level = np.log1p(growth) / n if n > 0 else before
        slope = np.exp(-n * (x[early] - half)) / (-np.expm1(x[early]) * (1 + growth))
        move = np.zeros_like(x)
        move[early] = (level - target) / slope
        at = -np.logaddexp(0.0, -z[~early])
        move[~early] = (u[~early] - time_from_half(at, order, unrolled)) * np.exp(n * (at - half))
        x, z = x + np.where(early, move, 0.0), z + np.where(early, 0.0, move)
        if np.all(np.abs(move) <= 1e-9 * (1e-3 + np.abs(np.where(early, x, z)))):
            return np.where(early, x, -np.logaddexp(0.0, -z))
    raise RuntimeError(f"The table of order n = {n} did not converge; please report this.")


@lru_cache(maxsize=256)
def _order_table(n: float, early_octaves: int, start_bins: int) -> _OrderTable:
    """Tables of one order, in numpy and float64: nothing is compiled."""
    order = order_of(n)
    z_half = order.half - float(np.log(-np.expm1(order.half)))
    early_scale, late_scale = 1 + n, 4 * np.exp(-n * order.half)
    nodes, fit = _chebyshev_fit(_DEGREE_CURVE)
    bins = np.arange((early_octaves + LATE_OCTAVES) << MANTISSA_BITS)
    early = bins < early_octaves << MANTISSA_BITS
    local = np.where(early, bins, bins - (early_octaves << MANTISSA_BITS))
    octave, part = local >> MANTISSA_BITS, local & ((1 << MANTISSA_BITS) - 1)
    width = 1 / (1 << MANTISSA_BITS)
    mantissa = 1 + (part[None] + 0.5 + nodes[:, None]) * width
    q = np.ldexp(mantissa, octave[None])
    u = np.where(early[None], -(q - 1) / early_scale, (q - 1) / late_scale)
    values = _curve_at(u.ravel(), order).reshape(u.shape)
    # the polynomial runs in (mantissa - middle of the bin), |.| <= width / 2
    curve = (fit @ values) / width ** np.arange(_DEGREE_CURVE + 1)[:, None]

    nodes, fit = _chebyshev_fit(_DEGREE_START)
    density = _START_BINS * (1 + n)
    z = z_half - (np.arange(start_bins)[None] + 0.5 + nodes[:, None]) / density
    before = -time_from_half(-np.logaddexp(0.0, -z), order, unrolled)
    start = fit @ np.log1p(early_scale * before)
    return _OrderTable(curve, start, z_half, density, early_scale, late_scale)


def build_tables(orders: np.ndarray, log_phase: float, z_lowest: np.ndarray) -> CurveTable:
    """Tables for the orders n >= 0 of a batch; cached, so that a second batch of the same orders costs nothing.

    Args:
        orders: the distinct n, shape (orders,).
        log_phase: log of the largest |u| that must be covered before the half height.
        z_lowest: the smallest start z0 of each order.
    """
    needed = (log_phase + np.log1p(orders.max())) / np.log(2) + 2
    early_octaves = 1 << int(np.ceil(np.log2(max(8.0, needed))))
    counts = []
    for n, lowest in zip(orders, z_lowest, strict=True):
        half = -2 * np.log(2) / (1 + n)
        z_half = half - np.log(-np.expm1(half))
        counts.append(1 << int(np.ceil(np.log2(max(8.0, (z_half - lowest) * _START_BINS * (1 + n) + 2)))))
    return _joined(tuple(map(float, orders)), early_octaves, tuple(counts), x64_is_on())


@lru_cache(maxsize=16)
def _joined(orders: tuple[float, ...], early_octaves: int, counts: tuple[int, ...], x64: bool) -> CurveTable:
    tables = [_order_table(n, early_octaves, count) for n, count in zip(orders, counts, strict=True)]
    dtype = jnp.float64 if x64 else jnp.float32
    curve = np.concatenate([table.curve for table in tables], axis=1)
    start = np.concatenate([table.start for table in tables], axis=1)
    place = OrderPlace(
        jnp.asarray(np.arange(len(tables)) * tables[0].curve.shape[1], jnp.int32),
        jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
        jnp.asarray(counts, jnp.int32),
        *(jnp.asarray([getattr(table, name) for table in tables], dtype) for name in _OrderTable._fields[2:]),
    )
    return CurveTable(
        tuple(jnp.asarray(row, dtype) for row in curve),
        tuple(jnp.asarray(row, dtype) for row in start),
        jnp.asarray(early_octaves, jnp.int32),
        place,
    )


def forget_tables() -> None:
    """Frees all tables; the next batch builds its own again."""
    _order_table.cache_clear()
    _joined.cache_clear()


def _horner(rows: tuple[Array, ...], index: Array, at: Array) -> Array:
    gathered = [row.at[index].get(mode="promise_in_bounds") for row in rows]
    total = gathered[-1]
    for coefficient in gathered[-2::-1]:
        total = total * at + coefficient
    return total


def start_phase(table: CurveTable, lane: OrderPlace, x0: Float[Array, "..."]) -> Float[Array, "..."]:
    """u of a start log y = x0 below the half height (negative)."""
    z0 = x0 - log_one_minus_exp(x0)
    position = jnp.clip((lane.z_half - z0) * lane.start_density, 0, lane.start_count - 0.5)
    bin_number = position.astype(jnp.int32)
    # nodes were counted downwards from z_half, the polynomial runs in (position - middle of the bin)
    log_q = _horner(table.start, lane.start_offset + bin_number, position - bin_number - 0.5)
    return -jnp.expm1(log_q) / lane.early_scale


def curve_log_y(table: CurveTable, lane: OrderPlace, u: Float[Array, "..."]) -> Float[Array, "..."]:
    """x = log y at the time u from the half height; beyond the table's ends the nearest bin's edge."""
    bits, integer = jnp.finfo(u.dtype).nmant, (jnp.int64 if u.dtype == jnp.float64 else jnp.int32)
    bias = jnp.finfo(u.dtype).maxexp - 1
    one = jnp.asarray(bias << bits, integer)
    early = u < 0
    octaves = jnp.where(early, table.early_octaves, LATE_OCTAVES).astype(integer)
    q = 1 + jnp.abs(u) * jnp.where(early, lane.early_scale, lane.late_scale)
    pattern = jax.lax.bitcast_convert_type(q, integer)
    raw = (pattern >> (bits - MANTISSA_BITS)) - (bias << MANTISSA_BITS)
    last = (octaves << MANTISSA_BITS) - 1
    inside = raw <= last
    leading = ((1 << MANTISSA_BITS) - 1) << (bits - MANTISSA_BITS)
    mantissa = jax.lax.bitcast_convert_type((pattern & ((1 << bits) - 1)) | one, u.dtype)
    middle = jax.lax.bitcast_convert_type((pattern & leading) | (1 << (bits - MANTISSA_BITS - 1)) | one, u.dtype)
    at = jnp.where(inside, mantissa - middle, 0.5 / (1 << MANTISSA_BITS))
    shift = jnp.where(early, 0, table.early_octaves << MANTISSA_BITS)
    index = lane.curve_offset + shift + jnp.minimum(raw, last).astype(jnp.int32)
    return jnp.minimum(_horner(table.curve, index, at), 0.0)
