"""Draws from Dirichlet distributions that are the same to the last digit everywhere.

Logarithms and powers of floats differ in their last digit between systems, and a sample that lies at a cut would then
go to another site. Those of `decimal` are rounded correctly by definition, so they agree everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from ai4sdk.data.order import Draw

__all__ = ["cut", "dirichlet", "power_law"]

_ARITHMETIC = Context(prec=18, rounding=ROUND_HALF_EVEN)


def dirichlet(alpha: float, parts: int, draw: Draw) -> list[Decimal]:
    """Draw shares from the symmetric Dirichlet distribution: gamma variables, divided by their sum."""
    with localcontext(_ARITHMETIC):
        logs = [_log_of_gamma(Decimal(alpha), draw) for _ in range(parts)]
        largest = max(logs)  # taken away from all, as with a small alpha every variable may be too small to write
        return _normalised([(log - largest).exp() for log in logs])


def power_law(alpha: float, parts: int) -> list[Decimal]:
    """Return shares proportional to ``n ** -alpha``."""
    with localcontext(_ARITHMETIC):
        return _normalised([(-Decimal(alpha) * Decimal(n).ln()).exp() for n in range(1, parts + 1)])


def cut(count: int, shares: Sequence[Decimal]) -> list[int]:
    """Cut a number into whole parts near shares of it: the largest remainders are rounded up."""
    with localcontext(_ARITHMETIC):
        exact = [count * share for share in shares]
        sizes = [int(size) for size in exact]
        rest = sorted(range(len(shares)), key=lambda part: sizes[part] - exact[part])
    # Shares add up to 1 but for their last digits, so there is at most one odd sample a part.
    for part in rest[: count - sum(sizes)]:
        sizes[part] += 1
    return sizes


def _normalised(weights: Sequence[Decimal]) -> list[Decimal]:
    total = sum(weights)
    return [weight / total for weight in weights]


def _log_of_gamma(alpha: Decimal, draw: Draw) -> Decimal:
    """Draw a gamma variable of shape ``alpha`` and return its logarithm.

    One of shape ``alpha + 1`` by the method of Marsaglia and Tsang (ACM Trans. Math. Software 26, 2000),
    times ``u ** (1 / alpha)``, which makes it one of shape ``alpha``.
    """
    d = alpha + Decimal(2) / 3
    c = 1 / (9 * d).sqrt()
    while True:
        x = _normal(draw)
        v = 1 + c * x
        if v <= 0:
            continue
        log_v = 3 * v.ln()
        if _log_of_uniform(draw) < x * x / 2 + d - d * v * v * v + d * log_v:
            return d.ln() + log_v + _log_of_uniform(draw) / alpha


def _log_of_uniform(draw: Draw) -> Decimal:
    return Decimal(1 - draw()).ln()  # of a number above 0


def _normal(draw: Draw) -> Decimal:
    """Draw a normal variable by Marsaglia's polar method."""
    while True:
        x, y = Decimal(2 * draw() - 1), Decimal(2 * draw() - 1)
        square = x * x + y * y
        if 0 < square < 1:
            return x * (-2 * square.ln() / square).sqrt()
