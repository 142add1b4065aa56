"""Releases whose log odds are known, so that the best that an attack can do with them is too."""

from dataclasses import dataclass, replace

import numpy as np
from attack_cases import paired_member

from attackers import Evidence
from attackers.metrics import auc
from attackers.signals import Release

CLASSES = 4


def posteriors(phi, labels):
    """Of these log odds (..., N) of the true class; all other classes share the rest."""
    p = 1 / (1 + np.exp(-phi))
    every = np.repeat((1 - p)[..., None] / (CLASSES - 1), CLASSES, axis=-1)
    true = np.broadcast_to(labels[:, None], (*phi.shape, 1))
    np.put_along_axis(every, true, p[..., None], axis=-1)
    return every


@dataclass(frozen=True, eq=False)
class Noisy:
    """Two releases whose log odds are normal of standard deviation 1, each by itself, and higher by
    1 of members: by Neyman & Pearson no attack tells more than one's number or the sum of both."""

    evidence: Evidence
    truth: np.ndarray
    best_of_one: float  # AUC of the log odds in this release
    best_of_two: float

    def with_other(self, name):
        """With the second release, a copy of the first, or an independent network's outputs."""
        if name == "original":
            return self.evidence
        this = self.evidence.releases()[0]
        if name == "another network":
            draw, alpha = np.random.default_rng(9), [1] * CLASSES
            sizes = [len(self.truth), (len(this.shadows), len(self.truth))]
            return replace(
                self.evidence,
                also={name: Release.from_posteriors(*(draw.dirichlet(alpha, n) for n in sizes))},
            )
        assert name == "copy"
        return replace(self.evidence, also={name: this})


def noisy_releases(seed=0, *, n=2000, shadows=4):
    draw = np.random.default_rng(seed)
    labels, member = draw.integers(CLASSES, size=n), paired_member(draw, shadows, n)
    truth = draw.random(n) < 0.5
    phi = [1 + truth + draw.normal(size=n) for _ in range(2)]
    of_shadows = [1 + member + draw.normal(size=member.shape) for _ in range(2)]
    both = [
        (posteriors(one, labels), posteriors(each, labels)) for one, each in zip(phi, of_shadows)
    ]
    evidence = Evidence.from_posteriors(
        labels, victim=both[0][0], shadows=both[0][1], member=member, also={"original": both[1]}
    )
    return Noisy(evidence, truth, auc(phi[0], truth), auc(phi[0] + phi[1], truth))
