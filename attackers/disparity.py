"""How alike the members are that several trainings, or several attacks, name (Wang et al.,
"Membership Inference Attacks as Privacy Tools: Reliability, Disparity and Ensemble", CCS 2025).

An instance is an attack on one training; what it names are its true positives at a fixed low FPR.
Over several instances coverage is the share of the members in the union of what they name,
stability that in the intersection, and two instances are as alike as the Jaccard index of what they
name.

Departures: the authors' instances of an attack are prepared with different seeds for one target
model, here the victim itself is trained anew; and they compare two attacks by the unions, or the
intersections, over all instances (obtain_jaccard.py in RPI-DSPlab/mia-disparity), here two attacks
are compared on the same training. What chance gives is not in the paper: the expectation where each
instance names as many members as it does, but drawn from all alike and independently.
"""

from __future__ import annotations

import math

import numpy as np


def shares_named(named: np.ndarray) -> np.ndarray:
    """(T,), the share of the members that at least 1, 2, ..., T instances name.

    The first is the coverage of `named` (T, m) bool, the last its stability.
    """
    times = named.sum(axis=0)
    return (times >= np.arange(1, len(named) + 1)[:, None]).mean(axis=1)


def shares_by_chance(rates: np.ndarray) -> np.ndarray:
    """What `shares_named` is expected to be of independent instances that name these shares (T,)."""
    distribution = np.ones(1)  # of how many instances name a member
    for rate in rates:
        distribution = np.convolve(distribution, [1 - rate, rate])
    return distribution[::-1].cumsum()[::-1][1:]


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two sets (m,) bool; NaN where both are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else math.nan


def jaccard_by_chance(one: int, other: int, *, members: int) -> float:
    """What `jaccard` is expected to be of two sets of these sizes, drawn independently."""
    from scipy.stats import hypergeom

    if not one + other:
        return math.nan
    both = np.arange(max(0, one + other - members), min(one, other) + 1)
    return float(hypergeom.pmf(both, members, one, other) @ (both / (one + other - both)))
