"""CompLeak-SR (Li et al., "CompLeak: Deep Learning Model Compression Exacerbates Privacy Leakage",
USENIX Security 2026, arXiv 2507.16872): a classifier on one model's outputs in two releases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attackers import version
from attackers.calibration import best_threshold
from attackers.evidence import Evidence, Verdict, always_fit
from attackers.forest import Forest
from attackers.learning import FOLDS, ShadowRecords, cross_fitted
from attackers.signals import Signals

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

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


def pooled_records(evidence: Evidence, this: list[Signals], other: list[Signals]) -> ShadowRecords:
    """`features` of the shadow models' own records in two releases."""
    masks = evidence.calibration_mask
    x = [
        features(_rows(one, mask), _rows(two, mask), evidence.labels[mask])
        for one, two, mask in zip(this, other, masks)
    ]
    return ShadowRecords.of(evidence, x)


def target_features(evidence: Evidence, this: Signals, other: Signals) -> np.ndarray:
    """`features` of the targets under the victim, (n, 3 C)."""
    target = evidence.target
    return features(_rows(this, target), _rows(other, target), evidence.labels[target])


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


@dataclass(frozen=True, eq=False)
class Fit:
    """What a classifier has learnt from the shadow records.

    Attributes:
        held: (m,), the score of each of them by one that was fitted without it.
        score: features (n, 3 C) to scores (n,), by the one of all records.
    """

    held: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


def fit_regression(records: ShadowRecords, seed: int) -> Fit:
    """Its score is the log odds of a member."""
    held, of_all = cross_fitted(
        logistic_regression, lambda one, x: one.decision_function(x), records, seed
    )
    return Fit(held, of_all.decision_function)


def fit_forest(records: ShadowRecords, seed: int, fit_or_load: Callable) -> Fit:
    """Its score is the members' share in a leaf, averaged over the trees.

    It takes far longer than all else here, so it is kept as networks are: `compleak_sr` and
    `compleak_mr` share it.
    """
    import torch

    def train(_) -> dict:
        held, of_all = cross_fitted(
            random_forest, lambda one, x: one.predict_proba(x)[:, 1], records, seed
        )
        arrays = {"held": held, **vars(Forest.of(of_all))}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    data = [records.x, records.member, records.shadow]
    cache_key = [seed, TREES, LEAF, FOLDS, version("compleak_sr"), *data]
    weights = fit_or_load("compleak_forest", cache_key, train)
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    return Fit(arrays.pop("held"), Forest(**arrays).mean_share)


def _verdict(fit: Fit, records: ShadowRecords, x: np.ndarray) -> Verdict:
    """The scores of the targets x (n, 3 C), with the threshold that is best for records held out."""
    threshold = best_threshold(fit.held[records.member], fit.held[~records.member])
    return Verdict(np.asarray(fit.score(x), dtype=np.float64), threshold)


def compleak_sr(
    evidence: Evidence, *, seed: int = 0, fit_or_load: Callable = always_fit, **_
) -> dict[str, Verdict]:
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
    records = pooled_records(evidence, evidence.shadows, other.shadows)
    x = target_features(evidence, evidence.victim, other.victim)
    return {
        "compleak_sr": _verdict(fit_regression(records, seed), records, x),
        "compleak_sr_forest": _verdict(fit_forest(records, seed, fit_or_load), records, x),
    }
