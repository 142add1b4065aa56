"""The epsilon that guesses about canaries prove: records of which each entered one training by a
fair coin of its own.

Both bounds are about adding or removing one record, and need no more than that the guesses were made
without a look at the coins. A canary is guessed in or out, or left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from attackers.audit_bound import gaussian_epsilon, largest_refuted, one_run_p_value

# shares of the canaries that are guessed, each at an equal part of the level: few sure guesses, and
# many; of six such choices the best all in all on simulated Gaussian mechanisms
SHARES = (0.2, 0.6)


@dataclass(frozen=True)
class CanaryBound:
    """What one way of counting proves.

    Attributes:
        epsilon: rounded by nothing; 0 where nothing is proven.
        guesses, correct: those that prove it, or that come nearest.
    """

    epsilon: float
    guesses: int
    correct: int


def residuals(log_odds: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The log-odds (m,) of the canaries' labels less what other models' (R, m) tell of them.

    What a record is like for models that have not seen it says how hard it is (Watson et al., ICLR
    2022, subtract one such model's loss). Here the weights of several are those of least squares over
    all canaries: references that tell nothing are left out by themselves, and no coin is looked at.
    """
    design = np.column_stack([np.ones_like(log_odds), *references])
    return log_odds - design @ np.linalg.lstsq(design, log_odds, rcond=None)[0]


def guesses(scores: np.ndarray, number: int) -> np.ndarray:
    """(m,) int: 1 in, -1 out, 0 not guessed: half of `number` are those of the largest scores, half
    of the smallest; of equal scores the earlier canary counts as smaller."""
    order, decided = np.argsort(scores, kind="stable"), np.zeros(len(scores), int)
    decided[order[: number // 2]] = -1
    decided[order[len(order) - number // 2 :]] = 1
    return decided


def one_run_bound(
    scores: np.ndarray, coin: np.ndarray, *, delta: float, level: float
) -> CanaryBound:
    """By Steinke, Nasr & Jagielski ("Privacy Auditing with One (1) Training Run", NeurIPS 2023),
    for (epsilon, delta)-privacy; see `one_run_p_value`.

    Departure: how many are guessed is not chosen by what comes of it, but each of `SHARES` counts at
    its part of the level, so that all of them hold together with 1 - level.

    Args:
        scores: (m,), larger means in.
        coin: (m,) bool, which were in.
    """
    coins = len(coin)

    def bound(number: int, correct: int, level: float) -> float:
        return largest_refuted(
            lambda epsilon: (
                one_run_p_value(epsilon, delta, coins=coins, guesses=number, correct=correct)
                <= level
            )
        )

    return _best(bound, scores, coin, level)


def gaussian_bound(
    scores: np.ndarray, coin: np.ndarray, *, delta: float, level: float
) -> CanaryBound:
    """By Mahloujifar, Melis & Chaudhuri ("Auditing f-Differential Privacy in One Run", ICML 2025),
    where training is as private as a Gaussian mechanism: epsilon at delta of the largest mu that is
    refuted. Numbers of guesses as in `one_run_bound`."""
    coins = len(coin)

    def bound(number: int, correct: int, level: float) -> float:
        mu = _refuted_mu(coins, number, correct, level)
        return gaussian_epsilon(mu, delta=delta) if mu else 0.0

    return _best(bound, scores, coin, level)


def _best(bound: Callable, scores: np.ndarray, coin: np.ndarray, level: float) -> CanaryBound:
    """The best of all shares."""
    found = []
    for share in SHARES:
        decided = guesses(scores, int(share * len(coin)))
        number, correct = int((decided != 0).sum()), int((decided == np.where(coin, 1, -1)).sum())
        epsilon = bound(number, correct, level / len(SHARES)) if number else 0.0
        found.append(CanaryBound(epsilon, number, correct))
    return max(found, key=lambda one: one.epsilon)


@lru_cache(maxsize=4096)
def _refuted_mu(coins: int, number: int, correct: int, level: float) -> float:
    """The largest mu whose Gaussian trade-off so many right guesses refute; 0 where none."""
    from scipy.special import ndtr, ndtri

    def refuted(mu: float) -> bool:
        return is_refuted(
            lambda x: float(ndtr(ndtri(x) - mu)),
            coins=coins,
            guesses=number,
            correct=correct,
            level=level,
        )

    return largest_refuted(refuted)


def is_refuted(
    least: Callable[[float], float], *, coins: int, guesses: int, correct: int, level: float
) -> bool:
    """Whether so many correct guesses, or more, have a probability below `level` wherever training
    has this trade-off (Mahloujifar et al., theorem on the guessing game and its code, k = 2).

    Let X of `guesses` be correct. Turn one coin over, and a guess that was right is wrong: so for
    each t, with r = E[X; X >= t] / coins and h = E[guesses - X; X >= t - 1] / coins, h >= least(r),
    by Jensen's inequality over coins. From P(X >= correct) = level, all of it at `correct`, down to 0
    these give the smallest probability of all outcomes together; where it is above 1, there is none.

    Args:
        least: x -> the smallest probability that an event may have where a neighbour's is x:
            increasing and convex, least(x) <= x.
    """
    r, h = level * correct / coins, level * (guesses - correct) / coins
    for outcome in range(correct - 1, -1, -1):
        more = max(0.0, least(r) - h)
        h += more
        r += more * outcome / (guesses - outcome)
        if r + h > guesses / coins:
            return True
    return False
