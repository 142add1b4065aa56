"""What every attack is judged by."""
import numpy as np

from attackers import ties
from attackers.signals import Verdict

FPRS = (0.1, 0.01, 0.001)
RESAMPLES = 1000
CONFIDENCE = 0.95


def measures(verdict: Verdict, member: np.ndarray, labels: np.ndarray, *, num_cls: int, seed: int = 0) -> dict:
    """All figures of an attack on n targets, fractions by name, each with a 95 % interval [low, high].

    `accuracy` at the attack's threshold, `auc`, `tpr_at_0.1` and so on at FPRs of 10 %, 1 %, 0.1 % (None where the
    scores are binary, or the non-members fewer than 10 / FPR), `class_accuracy` and `class_auc` (None for a class
    without members or without non-members), numbers of `members` and `non_members`, `equal_scores`, see
    `ties.tied_share`, and `called_members`, the share that the attack takes for members. Where all scores are equal,
    figures are None; where most are, a TPR at an FPR below that of every threshold.

    Args:
        member, labels: (n,), the truth.
        seed: of the resampling.
    Raises:
        ValueError: a score is NaN, as that of a target that too few shadows know; or the truth is of other records,
            or all of a kind.
    """
    member, labels = np.asarray(member, dtype=bool), np.asarray(labels)
    if len({len(verdict.scores), len(member), len(labels)}) > 1:
        raise ValueError(f"member and labels must be of the {len(verdict.scores)} targets, not of {len(member)} and "
                         f"{len(labels)} records")
    if member.all() or not member.any():
        raise ValueError("there must be members and non-members")
    if np.isnan(verdict.scores).any():
        raise ValueError(f"{np.isnan(verdict.scores).sum()} of the targets have no score (NaN): leave them out")
    rng = np.random.default_rng(seed)
    scores, decision = verdict.scores, verdict.member
    found = {"members": int(member.sum()), "non_members": int((~member).sum()),
             "accuracy": balanced_accuracy(decision, member),
             "accuracy_interval": accuracy_interval(decision, member, rng=rng),
             "auc": area(scores, member), "auc_interval": area_interval(scores, member, rng=rng)}
    equal = found["equal_scores"] = ties.tied_share(scores)
    found["called_members"] = float(decision.mean())
    binary = len(np.unique(scores)) <= 2
    for limit in FPRS:
        known = not binary and (~member).sum() * limit >= 10
        rate = tpr_at_fpr(scores, member, limit=limit) if known else None
        known = known and not (rate == 0 and (equal or 0) > ties.MOST)
        rate = rate if known else None
        found[f"tpr_at_{limit:g}"] = rate
        found[f"tpr_at_{limit:g}_interval"] = rate_interval(rate, int(member.sum())) if known else None
    classes = [labels == label for label in range(num_cls)]
    both = [here if 0 < member[here].sum() < here.sum() else None for here in classes]
    found["class_accuracy"] = [here if here is None else balanced_accuracy(decision[here], member[here])
                               for here in both]
    found["class_auc"] = [here if here is None else area(scores[here], member[here]) for here in both]
    return ties.without_meaning(found) if equal == 1 else found


def balanced_accuracy(decision: np.ndarray, member: np.ndarray) -> float:
    """(TPR + TNR) / 2 of decisions (n,) bool against membership (n,) bool, pooled over the classes."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(member, decision))


def accuracy_interval(decision: np.ndarray, member: np.ndarray, *, rng: np.random.Generator) -> list[float]:
    """Stratified percentile bootstrap of the balanced accuracy: n decisions drawn again of which a share is right
    are right in a binomial number, so that number is drawn instead."""
    rates = [rng.binomial(len(right), right.mean(), size=RESAMPLES) / len(right)
             for right in (decision[member], ~decision[~member])]
    return _middle(sum(rates) / 2)


def area(scores: np.ndarray, member: np.ndarray) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(member, scores))


def area_interval(scores: np.ndarray, member: np.ndarray, *, rng: np.random.Generator) -> list[float]:
    """Stratified percentile bootstrap of the AUC: members and non-members are drawn again, each among themselves."""
    distinct, rank = np.unique(scores, return_inverse=True)
    members, others = rank[member], rank[~member]
    return _middle([area_of_ranks(rng.choice(members, len(members)), rng.choice(others, len(others)), len(distinct))
                    for _ in range(RESAMPLES)])


def area_of_ranks(members: np.ndarray, others: np.ndarray, count: int) -> float:
    """AUC where all scores are whole numbers below `count`: without the sort, as it is wanted a thousand times."""
    here = np.bincount(others, minlength=count)
    below = np.cumsum(here) - here / 2  # an equal score counts half
    return float(below[members].sum() / len(members) / len(others))


def tpr_at_fpr(scores: np.ndarray, member: np.ndarray, *, limit: float) -> float:
    """The largest TPR of a threshold whose FPR does not exceed the limit; nothing is interpolated."""
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(member, scores, drop_intermediate=False)
    return float(tpr[fpr <= limit].max())


def rate_interval(rate: float, n: int) -> list[float]:
    """Clopper-Pearson interval of a rate of n."""
    from scipy.stats import binomtest

    found = binomtest(round(rate * n), n).proportion_ci(CONFIDENCE, method="exact")
    return [float(found.low), float(found.high)]


def _middle(values) -> list[float]:
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(values, [tail, 1 - tail]).tolist()
