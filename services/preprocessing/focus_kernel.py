"""How the visual-sensitivity kernel of the FQPath focus score is made, from its definition alone.

The kernel is ``K = sum_n c_n d^(2n)``, n = 1..9, where ``d^(2n)`` is the maximally flat low-pass derivative filter
of order 2n (MaxPol, l = 32, P = 24). A symmetric kernel of 65 taps with those moments and a flat zero at pi is the
solution of 33 linear equations, far too ill conditioned for float64; it is solved here with 80 digits. The result is
kept as a constant in ``focus.py``; a test solves again and compares.
"""

from __future__ import annotations

from typing import Final

DERIVATIVE_COEFFICIENTS: Final = (
    "-1.1931241",
    "-0.57422568",
    "-0.66285811",
    "-0.47230605",
    "-0.20320563",
    "-0.053136251",
    "-0.0083921916",
    "-7.3701331e-4",
    "-2.7864625e-5",
)
"""c_2, c_4, ..., c_18: coefficients of the even derivatives that invert a generalised-Gaussian blur."""
HALF_WIDTH: Final = 32
_FLAT_AT_ZERO: Final = 24
_FLAT_AT_PI: Final = 38


def solve_kernel() -> list[float]:
    """Solve for the half kernel.

    Returns:
        h_0..h_32; the kernel is symmetric, ``h_-k = h_k``.

    Raises:
        ImportError: mpmath, a development dependency, is not installed.
    """
    import mpmath

    with mpmath.workdps(80):
        rows, right = [], []
        for j in range(0, _FLAT_AT_ZERO + 1, 2):
            rows.append([_symmetric(k, j) for k in range(HALF_WIDTH + 1)])
            index = j // 2 - 1
            known = 0 <= index < len(DERIVATIVE_COEFFICIENTS)
            coefficient = mpmath.mpf(DERIVATIVE_COEFFICIENTS[index]) if known else mpmath.mpf(0)
            right.append(coefficient * mpmath.factorial(j))
        for j in range(0, _FLAT_AT_PI + 1, 2):
            rows.append([(-1) ** k * _symmetric(k, j) for k in range(HALF_WIDTH + 1)])
            right.append(mpmath.mpf(0))
        solution = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix(right))
        return [float(h) for h in solution]


def _symmetric(k: int, j: int) -> int:
    """Weight of h_k in the j-th moment when h_-k = h_k (0^0 = 1)."""
    return (1 if j == 0 else 0) if k == 0 else 2 * k**j


if __name__ == "__main__":
    for value in solve_kernel():
        print(f"    {value!r},")
