"""Angles between vectors, exact to rounding: by matrix product, and by differences where two vectors are nearly parallel.

arccos loses half of the digits near cos = +-1 (1e-8 in float64, 3e-4 in float32), where a kernel has its diagonal and its pairs.
There the angle is 2 atan2(|u - v|, |u + v|) of the unit vectors u, v (Kahan), which takes N M m differences and no matrix product.
So all cosines come from one product, and only the tiles that hold a nearly parallel pair are done again by differences.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_dyn.kernels._points import product, root

_TILE = 32
_NEAR = 1e-3  # 1 - |cos| below which arccos is not used; at the edge it errs by 25 roundings


def length(x: Float[Array, "*points m"]) -> Float[Array, "*points"]:
    """|x|, with derivative 0 where x = 0."""
    return root(jnp.sum(x * x, axis=-1))


def angles(x: Float[Array, "N m"], y: Float[Array, "M m"]) -> Float[Array, "N M"]:
    """Angles in [0, pi] between rows of x and rows of y; pi/2 where either is 0. Derivative 0 at coincidence."""
    along_x, along_y = length(x), length(y)
    u = x / jnp.where(along_x > 0, along_x, 1.0)[:, None]
    v = y / jnp.where(along_y > 0, along_y, 1.0)[:, None]
    cosines = product(u, v)
    if cosines.size <= _TILE**2:
        found = _tile(cosines, u, v)
    else:
        found = _by_tiles(cosines, u, v)
    return jnp.where((along_x[:, None] > 0) & (along_y > 0), found, jnp.pi / 2)


def _by_tiles(cosines: Array, u: Array, v: Array) -> Array:
    (n, m), size = cosines.shape, _TILE
    rows, columns = -(-n // size), -(-m // size)
    u = jnp.pad(u, ((0, rows * size - n), (0, 0))).reshape(rows, size, -1)
    v = jnp.pad(v, ((0, columns * size - m), (0, 0))).reshape(columns, size, -1)
    cosines = jnp.pad(cosines, ((0, rows * size - n), (0, columns * size - m)))
    tiles = cosines.reshape(rows, size, columns, size).swapaxes(1, 2)
    numbers = jnp.arange(rows * columns)
    found = jax.lax.map(lambda k: _tile(tiles[k // columns, k % columns], u[k // columns], v[k % columns]), numbers)
    return found.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(rows * size, columns * size)[:n, :m]


def _tile(cosines: Array, u: Array, v: Array) -> Array:
    near = jnp.abs(cosines) > 1 - _NEAR
    return jax.lax.cond(jnp.any(near), lambda: _by_differences(u, v), lambda: jnp.arccos(jnp.where(near, 0.0, cosines)))


def _by_differences(u: Array, v: Array) -> Array:
    def of_one(one: Array) -> Array:
        apart, together = length(one - v), length(one + v)
        nothing = (apart == 0) & (together == 0)  # both are 0
        return 2 * jnp.arctan2(apart, jnp.where(nothing, 1.0, together))

    return jax.lax.map(of_one, u)
