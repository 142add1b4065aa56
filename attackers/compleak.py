"""CompLeak-SR (Li et al., "CompLeak: Deep Learning Model Compression Exacerbates Privacy Leakage",
USENIX Security 2026, arXiv 2507.16872): a classifier on one model's outputs in two releases."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attackers.calibration import best_threshold
from attackers.evidence import Evidence, Verdict
from attackers.signals import Signals
from core.console import NotApplicable

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

FOLDS = 3  # by which thresholds are found
ITERATIONS = 400  # of the logistic regression, as the authors' code has it; so the forest's
TREES, LEAF = 500, 30


def features(this: Signals, other: Signals, labels: np.ndarray) -> np.ndarray:
    """Posteriors in the other release in rising order, posteriors in this one and the one-hot class
    in the same order of classes; (n, 3 C) float32.

    The authors sort by the original's posteriors, which is this where `other` is the original.
    Their order of equal posteriors depends on the numbers of classes; here ties are broken by this
    release's posterior, then by the class, so that no numbering matters.
    """
    p, q = this.posteriors()[0], other.posteriors()[0]
    one_hot = labels[:, None] == np.arange(p.shape[1])
    order = np.lexsort((one_hot, p, q), axis=1)
    parts = [np.take_along_axis(values, order, axis=1) for values in (q, p, one_hot)]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _rows(signals: Signals, mask: np.ndarray) -> Signals:
    """Of the records in `mask` (N,) bool alone."""
    exact = signals.exact_posteriors
    return Signals(signals.logits[mask], exact_posteriors=None if exact is None else exact[mask])


@dataclass(frozen=True, eq=False)
class ShadowRecords:
    """What a classifier learns from: the records of all shadow models, pooled.

    Attributes:
        x: (m, K) features.
        member: (m,) bool.
        shadow: (m,), the number of each one's shadow model.
    """

    x: np.ndarray
    member: np.ndarray
    shadow: np.ndarray

    def folds(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(learnt from, held out), positions of records: whole shadow models are held out; of a
        single one, a share of its records.

        Raises:
            NotApplicable: there is nothing to learn from without what is held out.
        """
        from sklearn.model_selection import GroupKFold, StratifiedKFold

        count = len(np.unique(self.shadow))
        if min(self.member.sum(), (~self.member).sum()) < FOLDS:
            raise NotApplicable(
                f"a classifier needs at least {FOLDS} members and {FOLDS} non-members of the "
                f"shadow models"
            )
        if count > 1:
            split = GroupKFold(min(FOLDS, count)).split(self.x, groups=self.shadow)
        else:
            dealt = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
            split = dealt.split(self.x, self.member)
        for learnt, held_out in split:
            if self.member[learnt].all() or not self.member[learnt].any():
                raise NotApplicable(
                    "a classifier needs members and non-members of more than one shadow model"
                )
            yield learnt, held_out


def pooled_records(evidence: Evidence, other: list[Signals]) -> ShadowRecords:
    """Features of the shadow models' own records in this release and the other one."""
    masks = evidence.calibration_mask
    x = [
        features(_rows(one, mask), _rows(two, mask), evidence.labels[mask])
        for one, two, mask in zip(evidence.shadows, other, masks)
    ]
    return ShadowRecords(np.concatenate(x), evidence.member[masks], np.nonzero(masks)[0])


def logistic_regression(seed: int) -> BaseEstimator:
    """On standardised features, with the penalty that scikit-learn has by default."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))


def random_forest(seed: int) -> BaseEstimator:
    """500 trees with at least 30 records a leaf."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=seed)


def log_odds_of(classifier) -> Callable[[np.ndarray], np.ndarray]:
    """The logistic regression's log odds of a member."""
    return classifier.decision_function


def share_of_trees(classifier) -> Callable[[np.ndarray], np.ndarray]:
    """The members' share in a leaf, averaged over the trees."""
    return lambda x: classifier.predict_proba(x)[:, 1]


def fitted(classifier, x: np.ndarray, member: np.ndarray):
    """The classifier, learnt, without a word where it has not converged."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the authors stop at 400 too
        return classifier.fit(x, member)


def held_out_threshold(
    build: Callable[[int], BaseEstimator], score, records: ShadowRecords, seed: int
) -> float:
    """The threshold that is best for records held out from a classifier of the others."""
    held = np.empty(len(records.member))
    for learnt, held_out in records.folds(seed):
        of_fold = fitted(build(seed), records.x[learnt], records.member[learnt])
        held[held_out] = score(of_fold)(records.x[held_out])
    return best_threshold(held[records.member], held[~records.member])


def _verdict(
    build: Callable[[int], BaseEstimator], score, records: ShadowRecords, x: np.ndarray, seed: int
) -> Verdict:
    """The score of the targets x (n, 3 C) by a classifier of all shadow records."""
    threshold = held_out_threshold(build, score, records, seed)
    of_all = fitted(build(seed), records.x, records.member)
    return Verdict(np.asarray(score(of_all)(x), dtype=np.float64), threshold)


def compleak_sr(evidence: Evidence, *, seed: int = 0, **_) -> dict[str, Verdict]:
    """A logistic regression, and a random forest, on the `features` of this release and the first
    other one, learnt from the pooled shadow records.

    Settings and features are those of the paper's CompLeak-SR with the class, and of its authors'
    code (which has a variant without the class too). Where this departs from that code:

    - the threshold is the best for shadow records that were held out (`ShadowRecords.folds`), not a
      probability of one half;
    - features are standardised by the mean and deviation of the shadow records, not the targets by
      their own, of which an attacker of one record has none;
    - each shadow model is queried for its own records, in each of its releases;
    - the forest's randomness is the seed's, and ties of `features` have an order.

    CompLeak-SR is for two releases: where more are held, the first one of `Evidence.also` counts.

    Raises:
        NotApplicable: there is but one release, or too few shadow records to learn from.
    """
    evidence.need_releases("compleak_sr")
    other = next(iter(evidence.also.values()))
    records = pooled_records(evidence, other.shadows)
    target = evidence.target
    x = features(
        _rows(evidence.victim, target), _rows(other.victim, target), evidence.labels[target]
    )
    return {
        "compleak_sr": _verdict(logistic_regression, log_odds_of, records, x, seed),
        "compleak_sr_forest": _verdict(random_forest, share_of_trees, records, x, seed),
    }
