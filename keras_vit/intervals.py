"""Confidence intervals of shares and means."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev


def wilson_interval(
    correct: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of a share that was observed as `correct` of `total`.

    Source: E. B. Wilson, *Probable inference, the law of succession, and statistical
    inference*, 1927. Unlike the normal approximation it stays within [0, 1], and it has a
    width if all or none are correct.

    Args:
        correct: number of correct examples.
        total: number of examples.
        confidence: share of such intervals that hold the true value, in (0, 1).

    Raises:
        ValueError: unless 0 <= correct <= total, 0 < total and 0 < confidence < 1.
    """
    if not (0 <= correct <= total and total > 0 and 0 < confidence < 1):
        raise ValueError(
            "An interval needs 0 <= correct <= total, 0 < total and 0 < confidence < 1. "
            f"Received: correct={correct}, total={total}, confidence={confidence}"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, z2 = correct / total, z * z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = share * (1 - share) / total + z2 / (4 * total * total)
    half = z * spread**0.5 / (1 + z2 / total)
    # Rounding must not push a bound past the share that it bounds.
    return min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)


def student_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of the mean of several independent values.

    Source: Student, *The probable error of a mean*, 1908: the mean ± t · s / √n, with the
    quantile t of n - 1 degrees of freedom and the sample's standard deviation s.

    Args:
        values: results of runs that differ in their seed alone, at least two.
        confidence: share of such intervals that hold the true mean, in (0, 1).

    Raises:
        ValueError: unless there are two values and 0 < confidence < 1.
    """
    values = [float(value) for value in values]
    if len(values) < 2 or not 0 < confidence < 1:
        raise ValueError(
            "An interval of a mean needs two values and 0 < confidence < 1. Received: "
            f"{len(values)} values, confidence={confidence}"
        )
    mean, n = fmean(values), len(values)
    half = _student_quantile(confidence, n - 1) * stdev(values) / n**0.5
    return mean - half, mean + half


def _student_quantile(confidence: float, degrees: int) -> float:
    """The t below which |t| stays with a probability of `confidence`, by bisection."""
    low, high = 0.0, 1.0
    while _student_probability(high, degrees) < confidence:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        if _student_probability(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return high


def _student_probability(t: float, degrees: int) -> float:
    """Probability that |Student's t| is below `t`, for a whole number of degrees.

    Source: Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / degrees**0.5)
    cosine2 = math.cos(angle) ** 2
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    if degrees == 1:
        total = 0.0
    for i in range(2 + odd, degrees - 1, 2):
        term *= cosine2 * (i - 1) / i
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
