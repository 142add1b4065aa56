"""What every attack is judged by: accuracy, AUC and TPR at low FPRs, each with a 95 % confidence
interval.

The intervals take the model and the attack as given and cover the choice of the target records
alone. Each end of one is missed with probability `tail`, 2.5 % where nothing else is said.
"""

import math

import numpy as np

from attackers import arrays, ties
from attackers.evidence import Verdict

FPRS = (0.1, 0.01, 0.001)
CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
# version of the interval methods: raise it where a method changes, so that stored ones are
# recomputed
INTERVALS = 2


def measures(verdict: Verdict, member: np.ndarray, labels: np.ndarray, *, num_cls: int) -> dict:
    """All figures of an attack on n targets, fractions by name, each with a 95 % interval [low,
    high].

    `accuracy` at the attack's threshold, `auc`, `tpr_at_0.1` and so on at FPRs of 10 %, 1 %, 0.1 %
    (None where the scores are binary, or the non-members fewer than 10 / FPR), `class_accuracy` and
    `class_auc` (None for a class without members or without non-members), numbers of `members` and
    `non_members`, `equal_scores`, see `ties.tied_share`, `called_members`, the share that the
    attack takes for members, and `intervals`, the version of the interval methods. Where all scores
    are equal, figures are None; where most are, a TPR at an FPR below that of every threshold.

    Args:
        member, labels: (n,), the truth.
    Raises:
        ValueError: a score is NaN, as that of a target that too few shadows know; or the truth is
            of other records, or all of a kind.
    """
    n = len(verdict.scores)
    member = arrays.flags("member", member, (n,), f"(n,), of the {n} targets")
    labels = arrays.classes("labels", labels, n, num_cls)
    if member.all() or not member.any():
        raise ValueError("there must be members and non-members")
    if np.isnan(verdict.scores).any():
        raise ValueError(
            f"{np.isnan(verdict.scores).sum()} of the targets have no score (NaN): leave them out"
        )
    scores, decision = verdict.scores, verdict.member
    figures = {
        "members": int(member.sum()),
        "non_members": int((~member).sum()),
        "accuracy": balanced_accuracy(decision, member),
        "accuracy_interval": accuracy_interval(decision, member),
        "auc": auc(scores, member),
        "auc_interval": auc_interval(scores, member),
        "intervals": INTERVALS,
        "equal_scores": ties.tied_share(scores),
        "called_members": float(decision.mean()),
        **_rates_at_low_fpr(scores, member),
        **_figures_by_class(verdict, member, [labels == label for label in range(num_cls)]),
    }
    return ties.without_meaning(figures) if figures["equal_scores"] == 1 else figures


def _rates_at_low_fpr(scores: np.ndarray, member: np.ndarray) -> dict:
    """`tpr_at_...` and their intervals; None where the records do not tell them, see `measures`."""
    figures: dict[str, float | list[float] | None] = {}
    binary = len(np.unique(scores)) <= 2
    mostly_equal = (ties.tied_share(scores) or 0) > ties.MOST
    for limit in FPRS:
        rate = interval = None
        if not binary and (~member).sum() * limit >= 10:
            rate = tpr_at_fpr(scores, member, limit=limit)
            if rate == 0 and mostly_equal:
                rate = None
            else:
                interval = tpr_interval(scores, member, limit=limit)
        figures |= {f"tpr_at_{limit:g}": rate, f"tpr_at_{limit:g}_interval": interval}
    return figures


def _figures_by_class(
    verdict: Verdict, member: np.ndarray, classes: list[np.ndarray]
) -> dict[str, list[float | None]]:
    """`class_accuracy` and `class_auc`, given who is of each class, (n,) bool."""
    accuracies: list[float | None] = []
    aucs: list[float | None] = []
    for chosen in classes:
        both = 0 < member[chosen].sum() < chosen.sum()
        accuracies.append(
            balanced_accuracy(verdict.member[chosen], member[chosen]) if both else None
        )
        aucs.append(auc(verdict.scores[chosen], member[chosen]) if both else None)
    return {"class_accuracy": accuracies, "class_auc": aucs}


def balanced_accuracy(decision: np.ndarray, member: np.ndarray) -> float:
    """(TPR + TNR) / 2 of decisions (n,) bool against membership (n,) bool, pooled over the
    classes."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(member, decision))


def accuracy_interval(
    decision: np.ndarray, member: np.ndarray, *, tail: float = TAIL
) -> list[float]:
    """Interval of the balanced accuracy, for decisions by a threshold that does not depend on these
    records.

    TPR and TNR have Clopper-Pearson intervals; the distances from each rate to its lower end are
    combined as the root of the sum of their squares, and so are those to the upper ends (Newcombe,
    Statistics in Medicine 17:873, 1998, method 10, which takes Wilson's intervals; with those 5 + 5
    records are covered in 86 % of cases only).
    """
    ends = [
        (right.mean(), *clopper_pearson(right.sum(), len(right), tail=tail))
        for right in (decision[member], ~decision[~member])
    ]
    accuracy = sum(rate for rate, _, _ in ends) / 2
    below = math.hypot(*(rate - low for rate, low, _ in ends)) / 2
    above = math.hypot(*(high - rate for rate, _, high in ends)) / 2
    return [max(0.0, float(accuracy - below)), min(1.0, float(accuracy + above))]


def auc(scores: np.ndarray, member: np.ndarray) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(member, scores))


def auc_interval(scores: np.ndarray, member: np.ndarray, *, tail: float = TAIL) -> list[float]:
    """Interval of the AUC: that of Clopper & Pearson for a rate of as many trials as give DeLong's
    variance.

    The effective number of trials is AUC (1 - AUC) / variance (Korn & Graubard, Survey Methodology
    24:193, 1998), at most twice the smaller group: what Hanley & McNeil's exponential model
    (Radiology 143:29, 1982) tends to as the AUC tends to 1. Without that limit the estimated
    variance, which is 0 at an AUC of 0 or 1, is far too small where few pairs are out of order;
    with it the interval is wider than it need be where one group is much the larger.
    """
    estimate, variance = delong(scores, member)
    most = 2 * min(int(member.sum()), int((~member).sum()))
    trials = min(estimate * (1 - estimate) / variance, most) if variance > 0 else most
    return clopper_pearson(estimate * trials, trials, tail=tail)


def delong(scores: np.ndarray, member: np.ndarray) -> tuple[float, float]:
    """AUC and its variance (DeLong et al., Biometrics 44:837, 1988), from midranks (Sun & Xu, IEEE
    Signal Processing Letters 21:1389, 2014); a group of one record, whose spread is not known, adds
    none."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    # of each record the share of the other group that is below it, of equal ones half
    below = [
        (ranks[group] - rankdata(scores[group])) / (~group).sum() for group in (member, ~member)
    ]
    variance = sum(shares.var(ddof=1) / len(shares) for shares in below if len(shares) > 1)
    return float(below[0].mean()), float(variance)


def tpr_at_fpr(scores: np.ndarray, member: np.ndarray, *, limit: float) -> float:
    """The largest TPR of a threshold whose FPR does not exceed the limit; nothing is
    interpolated."""
    return float(named_records(scores, member, limit=limit)[member].mean())


def named_records(scores: np.ndarray, member: np.ndarray, *, limit: float) -> np.ndarray:
    """Who is named, (n,) bool, at the threshold of `tpr_at_fpr`."""
    return scores > score_to_exceed(scores[~member], limit=limit)


def score_to_exceed(others: np.ndarray, *, limit: float) -> float:
    """The score of a non-member that must be exceeded for a FPR of at most `limit`, given all of
    theirs; minus infinity where all of them may be."""
    in_order = np.sort(others)[::-1]
    shares = np.arange(len(others) + 1) / len(others)
    allowed = np.searchsorted(shares, limit, side="right") - 1
    return float(in_order[allowed]) if allowed < len(others) else -np.inf


def tpr_interval(
    scores: np.ndarray, member: np.ndarray, *, limit: float, tail: float = TAIL
) -> list[float]:
    """Interval of the TPR at the threshold whose FPR in the population is the limit.

    Neither source of error is left out. How many of the n non-members lie above that threshold is
    binomial (n, limit), whatever the distribution of their scores: the order statistics' interval
    of a quantile (David & Nagaraja, Order Statistics, 2003, section 7.1). For each such number the
    members above are counted, halfway between the two non-members that the threshold lies between,
    and their rate has the two beta distributions whose quantiles are Clopper & Pearson's ends. The
    interval's ends are quantiles of the two mixtures: a resampling of the threshold and of the
    members, summed up exactly.
    """
    weights, counts = threshold_distribution(scores, member, limit=limit)
    n = int(member.sum())
    estimate = tpr_at_fpr(scores, member, limit=limit)
    low = _mixture_quantile(tail, weights, counts, n - counts + 1)
    high = _mixture_quantile(1 - tail, weights, counts + 1, n - counts)
    return [min(low, estimate), max(high, estimate)]


def threshold_distribution(
    scores: np.ndarray, member: np.ndarray, *, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """How many members lie above the threshold whose FPR in the population is the limit.

    Returns:
        weights (k,), which sum to 1, and ascending counts (k,), whole or half: a threshold between
        two neighbouring non-members takes half of the members between them.
    """
    from scipy.stats import binom

    members, others = np.sort(scores[member]), np.sort(scores[~member])[::-1]
    n = len(others)
    above = np.arange(
        int(binom.ppf(1e-9, n, limit)), int(binom.isf(1e-9, n, limit)) + 1
    )  # non-members
    weights = binom.pmf(above, n, limit)
    # members beyond the first non-member that is not above; where all are above, every member is
    most = len(members) - np.searchsorted(members, others[np.minimum(above, n - 1)], side="right")
    most = np.where(above < n, most, len(members))
    # members down to the last non-member that is above; where it ties with the first that is not, a
    # threshold between the two is none, and what lies above the tie counts
    least = len(members) - np.searchsorted(members, others[np.maximum(above - 1, 0)], side="left")
    least = np.where(above > 0, np.minimum(least, most), 0)
    counts, index = np.unique((least + most) / 2, return_inverse=True)
    weights = np.bincount(index, weights)
    return weights / weights.sum(), counts


def _mixture_quantile(level: float, weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The quantile of a mixture of beta distributions; where a or b is 0, all of one lies at 0 or
    at 1."""
    from scipy.special import betainc

    def share_below(rate: float) -> float:
        parts = np.where(
            a == 0,
            1.0,
            np.where(b == 0, 0.0, betainc(np.maximum(a, 0.5), np.maximum(b, 0.5), rate)),
        )
        return float(weights @ parts)

    low, high = 0.0, 1.0
    if share_below(low) >= level:
        return low
    if share_below(math.nextafter(high, 0.0)) < level:
        return high
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if share_below(middle) >= level else (middle, high)
    return (low + high) / 2


def clopper_pearson(successes: float, trials: float, *, tail: float = TAIL) -> list[float]:
    """Interval of a rate (Clopper & Pearson, Biometrika 26:404, 1934), each end of which is missed
    with probability `tail` at most; both numbers may be fractions."""
    from scipy.special import betaincinv

    failures = trials - successes
    low = betaincinv(successes, failures + 1, tail) if successes > 0 else 0.0
    high = betaincinv(successes + 1, failures, 1 - tail) if failures > 0 else 1.0
    return [float(low), float(high)]
