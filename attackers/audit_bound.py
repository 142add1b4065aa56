"""The epsilon that an attack's decisions prove: training is not (epsilon, delta)-differentially
private for any smaller one.

All are about adding or removing one record, and hold with probability 1 - `level`. Decisions must
not depend on who is a member: thresholds come from shadow models.

`epsilon_of_one_run` needs no more than that members and non-members were told apart by chance.
`epsilon_of_rates` and `epsilon_of_gaussian` are what published audits compute from many trainings
with one record more or less. Of a single training they take the decisions on its records as
independent, and the records as members independently of each other, which they are not exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from attackers.metrics import clopper_pearson


def epsilon_of_rates(
    decision: np.ndarray, member: np.ndarray, *, delta: float, level: float
) -> float:
    """The largest epsilon with TPR > exp(epsilon) FPR + delta or TNR > exp(epsilon) FNR + delta, 0
    where there is none (Kairouz et al., ICML 2015; Jagielski et al., NeurIPS 2020; Nasr et al., S&P
    2021); the rates at the ends of Clopper & Pearson's intervals.

    Args:
        decision, member: (n,) bool, who is called a member, and who is one.
    """
    tpr, fpr = _cautious_rates(decision, member, level)
    bounds = [
        math.log((true - delta) / false)  # false > 0: the upper end of an interval
        for true, false in ((tpr, fpr), (1 - fpr, 1 - tpr))
        if true > delta
    ]
    return max([0.0, *bounds])


def epsilon_of_gaussian(
    decision: np.ndarray, member: np.ndarray, *, delta: float, level: float
) -> float:
    """The same where training is as private as a Gaussian mechanism (Nasr et al., USENIX Security
    2023): mu >= Phi^-1(1 - FPR) - Phi^-1(1 - TPR), and epsilon of mu at delta."""
    from scipy.special import ndtri

    tpr, fpr = _cautious_rates(decision, member, level)
    return gaussian_epsilon(ndtri(1 - fpr) - ndtri(1 - tpr), delta=delta) if tpr > fpr else 0.0


def _cautious_rates(decision: np.ndarray, member: np.ndarray, level: float) -> tuple[float, float]:
    """The lower end of the TPR and the upper end of the FPR; both hold with 1 - level."""
    low, _ = clopper_pearson(decision[member].sum(), member.sum(), tail=level / 2)
    _, high = clopper_pearson(decision[~member].sum(), (~member).sum(), tail=level / 2)
    return low, high


def gaussian_delta(epsilon: float, mu: float) -> float:
    """The smallest delta for which mu-Gaussian privacy is (epsilon, delta)-privacy (Dong et al.,
    Gaussian Differential Privacy, J. R. Stat. Soc. B 84:3, 2022, corollary 1)."""
    from scipy.special import log_ndtr, ndtr

    return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))


def gaussian_epsilon(mu: float, *, delta: float) -> float:
    """The smallest epsilon for which mu-Gaussian privacy is (epsilon, delta)-privacy; delta > 0."""
    from scipy.optimize import brentq
    from scipy.special import ndtri

    if gaussian_delta(0.0, mu) <= delta:
        return 0.0
    most = mu * (mu / 2 - ndtri(delta))  # there the first term alone is delta
    return float(brentq(lambda epsilon: gaussian_delta(epsilon, mu) - delta, 0.0, most))


def epsilon_of_one_run(
    decision: np.ndarray, member: np.ndarray, *, delta: float, level: float
) -> float:
    """The largest epsilon that correct guesses in one training refute, 0 where there is none
    (Steinke et al., "Privacy Auditing with One (1) Training Run", NeurIPS 2023).

    Departure: there each record is a member by a coin of its own. Here the number of members is
    fixed; so members and non-members are put into random pairs, of which a coin each has told who
    is the member. Where just one of a pair is called a member, that is a guess. A coin that falls
    otherwise exchanges two records: (2 epsilon, delta (1 + exp(epsilon)))-privacy.

    Args:
        decision, member: (n,) bool, who is called a member, and who is one.
    """
    pairs = min(member.sum(), (~member).sum())
    draw = np.random.default_rng(0)  # apart from the data, and the same each time
    inside, outside = (draw.permutation(decision[kind])[:pairs] for kind in (member, ~member))
    guesses, correct = int((inside != outside).sum()), int((inside & ~outside).sum())

    def refuted(epsilon: float) -> bool:
        slack = delta * (1 + math.exp(epsilon))
        p = one_run_p_value(2 * epsilon, slack, coins=int(pairs), guesses=guesses, correct=correct)
        return p <= level

    return largest_refuted(refuted)


def largest_refuted(refuted: Callable[[float], bool]) -> float:
    """The largest epsilon, or other strength, that is refuted, to 1e-4; 0 where none is. What
    refutes one refutes all below it."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def one_run_p_value(
    epsilon: float, delta: float, *, coins: int, guesses: int, correct: int
) -> float:
    """How probable so many correct guesses are at most, where the outcome is (epsilon,
    delta)-private to each of the coins that are guessed; the others are not guessed.

    Without delta the correct ones are dominated by Binomial(guesses, exp(epsilon) / (1 +
    exp(epsilon))); delta adds 2 coins delta max_i P(correct - i <= Binomial < correct) / i (Steinke
    et al. 2023, theorem of section 5 and the code of appendix D).
    """
    from scipy.special import expit
    from scipy.stats import binom

    accuracy = expit(epsilon)
    p = binom.sf(correct - 1, guesses, accuracy)
    if delta and correct:
        below = np.arange(1, correct + 1)
        missed = binom.sf(correct - 1 - below, guesses, accuracy) - p
        p += 2 * coins * delta * (missed / below).max()
    return min(1.0, float(p))
