"""Independent truth for the scalar modes: mpmath at 150 digits, from the floating-point inputs as they are.

So many because the finite sums cancel down to y^-n, 1e-118 for y = 100 and n = 59.
"""

from mpmath import mp, mpf

mp.dps = 150


def power(objective: str, depth: float) -> mpf:
    return 1 / mpf(depth) + (1 if objective == "mae" else 0)


def antiderivative(y: mpf, n: mpf, sign: int) -> mpf:
    """int dy / (y^(1+n) (1 - sign y)) by finite sums (whole n) or hypergeometric functions, in another form than the package's."""
    if n == int(n) and n >= 0:
        n = int(n)
        if sign > 0:
            return mp.log(y / abs(1 - y)) - mp.fsum(1 / (j * y**j) for j in range(1, n + 1))
        powers = mp.fsum((-1) ** (j + 1) * y ** (j - n) / (n - j) for j in range(n))
        return powers + (-1) ** n * (mp.log(y) - mp.log(1 + y))
    if sign < 0:
        return -(y**-n) / n * mp.hyp2f1(1, -n, 1 - n, -y)
    if y < 1:
        return -(y**-n) / n * mp.hyp2f1(1, -n, 1 - n, y)
    return y ** (-n - 1) / (n + 1) * mp.hyp2f1(1, n + 1, n + 2, 1 / y)


def time_between(objective: str, w0: float, w: float, lam: float, variance: float, depth: float) -> mpf:
    """Time (mode clock) from w0 to w of dw/dt = lam w^(3-r) - variance w^3."""
    w0, w, lam, variance = mpf(w0), mpf(w), mpf(lam), mpf(variance)
    if lam == 0:
        return (1 / w**2 - 1 / w0**2) / (2 * variance)
    r = power(objective, depth)
    n = 2 / r - 1
    rho = abs(lam) / variance
    k = r * abs(lam) * rho**n
    sign = 1 if lam > 0 else -1
    y, y0 = w**r / rho, w0**r / rho
    return sign * (antiderivative(y, n, sign) - antiderivative(y0, n, sign)) / k


def slope(objective: str, w: float, lam: float, variance: float, depth: float) -> mpf:
    """dw/dt of the mode equation."""
    w = mpf(w)
    return mpf(lam) * w ** (3 - power(objective, depth)) - mpf(variance) * w**3
