"""Sets of runs compared: means, intervals and verdicts.

`compare` says of two sets (higher is better):

* difference = our mean - reference mean, with Welch's 95 % confidence interval;
* *equal*: the 90 % interval lies strictly within ±margin, which is what two one-sided t-tests at the 5 % level decide;
* *better* / *worse*: not equal, and the 95 % interval lies wholly above / below zero;
* *undecided*: everything else.

*Equal* goes first: a difference that is certain but smaller than the margin is no difference that matters.
A reference without a spread (a single run, or none printed) is taken as a constant and says so; one run of ours has
no spread, hence no interval and no verdict but *undecided*.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

MARGIN = 0.01


@dataclass(frozen=True)
class Summary:
    """A mean over `n` runs (None: unknown) and its standard error (None: it has none)."""

    mean: float
    standard_error: float | None
    n: int | None


@dataclass(frozen=True)
class Comparison:
    """`interval` is the 95 % confidence interval of `difference` or None; `note` says what limits the verdict."""

    difference: float
    interval: tuple[float, float] | None
    verdict: str
    note: str = ""


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean and standard error (n - 1 in the variance) of at least one value; None for no value."""
    if not len(values):
        return None
    mean = math.fsum(values) / len(values)
    return Summary(mean, float(stats.sem(values)) if len(values) > 1 else None, len(values))


def compare(ours: Summary, reference: Summary, margin: float = MARGIN) -> Comparison:
    """Difference, Welch's 95 % interval and the verdict of the equivalence test, as the module's text defines them."""
    difference = ours.mean - reference.mean
    if ours.standard_error is None:
        return Comparison(difference, None, "undecided", "one run of ours has no spread")
    low, high = welch_interval(ours, reference, 0.95)
    inner = welch_interval(ours, reference, 0.90)
    if -margin < inner[0] and inner[1] < margin:
        verdict = "equal"
    elif low > 0:
        verdict = "better"
    elif high < 0:
        verdict = "worse"
    else:
        verdict = "undecided"
    return Comparison(
        difference, (low, high), verdict, "" if has_spread(reference) else "reference taken as a constant"
    )


def compare_ours(ours: Summary, base: Summary) -> Comparison:
    """As `compare`, of two sets of runs of our own: a single run is no constant, so nothing follows from it."""
    if not has_spread(base):
        return Comparison(ours.mean - base.mean, None, "undecided", "one run of ours has no spread")
    return compare(ours, base)


def has_spread(summary: Summary) -> bool:
    return summary.standard_error is not None and summary.n is not None and summary.n > 1


def welch_interval(ours: Summary, reference: Summary, confidence: float) -> tuple[float, float]:
    """Confidence interval of the difference of two means, unequal variances, Welch-Satterthwaite degrees of freedom."""
    difference = ours.mean - reference.mean
    error = reference.standard_error if has_spread(reference) else 0.0
    combined = math.hypot(ours.standard_error, error)
    if combined == 0:
        return difference, difference
    share, other = (ours.standard_error / combined) ** 2, (error / combined) ** 2
    inverse = share**2 / (ours.n - 1) + (other**2 / (reference.n - 1) if error else 0.0)
    half = float(stats.t.ppf((1 + confidence) / 2, 1 / inverse)) * combined
    return difference - half, difference + half
