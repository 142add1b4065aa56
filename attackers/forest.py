"""scikit-learn's random forests as arrays, which can be kept without pickles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier


@dataclass(frozen=True, eq=False)
class Forest:
    """The trees of a forest that tells two classes apart, their nodes one after the other.

    Attributes:
        root: (T,) int64, where each tree begins; its other nodes are counted from there.
        left, right: (M,) int64, the node below; -1 of a leaf.
        feature: (M,) int64, which one decides at a node.
        threshold: (M,) float64, up to which it goes left.
        share: (M,) float64, of the second class among what a node was learnt from.
    """

    root: np.ndarray
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, classifier: RandomForestClassifier) -> Forest:
        """Of one that is fitted."""
        trees = [one.tree_ for one in classifier.estimators_]
        sizes = [one.node_count for one in trees]

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(one, name) for one in trees])

        return cls(
            np.cumsum([0, *sizes[:-1]]),
            joined("children_left"),
            joined("children_right"),
            joined("feature"),
            joined("threshold"),
            joined("value")[:, 0, 1],
        )

    def mean_share(self, x: np.ndarray) -> np.ndarray:
        """The second class's share in the leaf of each of x (n, D) float32, averaged over the
        trees; (n,), digit by digit scikit-learn's `predict_proba`."""
        total = np.zeros(len(x))
        for root in self.root:
            node = np.full(len(x), root)
            while len(inside := np.flatnonzero(self.left[node] >= 0)):
                at = node[inside]
                is_left = x[inside, self.feature[at]] <= self.threshold[at]
                node[inside] = root + np.where(is_left, self.left[at], self.right[at])
            total += self.share[node]
        return total / len(self.root)
