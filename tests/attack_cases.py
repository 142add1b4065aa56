"""Measured numbers and evidence that tests of several attacks share."""

import numpy as np

from attackers import ATTACKS, Evidence, LabelOnlyEvidence
from attackers.label_only_evidence import ClassSignals
from attackers.signals import Signals, true_and_others
from attackers.statistic import Statistic


def measured(victim, shadows, member, *, target=None, calibration_mask=None, as_victim=None):
    """What an attack sees; all records are targets, and each shadow's own, where nothing else is said."""
    victim, shadows, member = (np.asarray(values) for values in (victim, shadows, member))
    target = np.ones(len(victim), bool) if target is None else np.asarray(target, bool)
    calibration_mask = (
        np.ones(member.shape, bool)
        if calibration_mask is None
        else np.asarray(calibration_mask, bool)
    )
    return Statistic(
        victim.astype(float),
        shadows.astype(float),
        member.astype(bool),
        calibration_mask,
        target,
        as_victim,
    )


def random_measured(seed=0, *, shadows=7, n=40, targets=25):
    """Numbers from 0 to 1; a record may have any number of shadows with and without it, none included."""
    draw = np.random.default_rng(seed)
    member = draw.random((shadows, n)) < draw.choice([0, 0.2, 0.5, 0.8, 1], size=n)
    return measured(
        draw.random(n), draw.random((shadows, n)), member, target=np.arange(n) < targets
    )


def odds_evidence(phi, shadows, member, *, target=None, calibration_mask=None):
    """Evidence of models of two classes whose log-odds for each record, all of class 0, are the given numbers."""

    def signals(values):
        return Signals(np.column_stack([values, np.zeros(len(values))]))

    found = measured(phi, shadows, member, target=target, calibration_mask=calibration_mask)
    return Evidence(
        labels=np.zeros(len(found.victim), np.int64),
        victim=signals(found.victim),
        shadows=[signals(values) for values in found.every_shadow],
        member=found.every_member,
        calibration_mask=found.calibration_mask,
        target=found.target,
        online=bool(found.every_member[:, found.target].any()),
    )


def balanced_member(draw, shadows, n):
    """(S, n): each record is IN exactly half of the shadows."""
    return draw.permuted(np.tile(np.arange(shadows) % 2 == 0, (n, 1)), axis=1).T


def logits_and_labels(n=200, num_cls=5, scale=20, seed=0):
    draw = np.random.default_rng(seed)
    return (scale * draw.normal(size=(n, num_cls))).astype(np.float32), draw.integers(
        num_cls, size=n
    )


N, S, C = 12, 3, 4


FITTING = dict(
    labels=np.arange(N) % C,
    victim=np.full((N, C), 1 / C),
    shadows=np.full((S, N, C), 1 / C),
    member=np.tile(np.arange(N) == N - 1, (S, 1)),
    target=np.arange(N) < 6,
    calibration_mask=np.ones((S, N), bool),
)


def paired_member(draw, shadows, n):
    """(S, n): two shadows at a time take the two halves of the records, as the in/out split deals them."""
    halves = [draw.permutation(np.arange(n) % 2 == 0) for _ in range(shadows // 2)]
    return np.stack([one for half in halves for one in (half, ~half)])


def five_records(victim=(0, 0, 7, 4), labels=(0, 0, 0, 0)):
    """Two shadows on records 0, 1 and 4, the first trained on 0, the second on 1; targets are 2 and 3."""
    evidence = odds_evidence(
        [*victim, 0],
        [[5, 1, 6, 6, 4], [3, 2, 4, 6, 4]],
        [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]],
        target=[0, 0, 1, 1, 0],
        calibration_mask=[[1, 1, 0, 0, 1], [1, 1, 0, 0, 1]],
    )
    return Evidence(**vars(evidence) | {"labels": np.asarray([*labels, 0])})


def gaussian_evidence(shadows, *, n=40, online=True, seed=8):
    draw = np.random.default_rng(seed)
    target = np.arange(n) < n // 2
    member = balanced_member(draw, shadows, n) & (online | ~target)
    return odds_evidence(
        draw.normal(size=n),
        draw.normal(size=(shadows, n)) + member,
        member,
        target=target,
        calibration_mask=None if online else np.tile(~target, (shadows, 1)),
    )


def same_verdict(one, other):
    return np.array_equal(one.scores, other.scores) and one.threshold == other.threshold


def as_seen_by(name, evidence):
    """The same models as the attack of this name sees them."""
    return seen_by_class(evidence) if "label_only" in ATTACKS[name].options else evidence


def seen_by_class(evidence, *, strengths=(0.5, 2.0), copies=8):
    """Evidence of the same models' classes: those of copies are of logits with noise, and the distance is the margin."""
    n, num_cls = evidence.victim.logits.shape
    noise = np.random.default_rng(4).normal(size=(len(strengths), copies, n, num_cls))
    noise *= np.reshape(strengths, (-1, 1, 1, 1))

    def classes(signals):
        true, others = true_and_others(signals.logits, evidence.labels)
        return ClassSignals(
            signals.logits.argmax(axis=1),
            (signals.logits + noise).argmax(axis=-1),
            np.maximum(true - others.max(axis=1), 0.0),
        )

    return LabelOnlyEvidence(
        labels=evidence.labels,
        victim=classes(evidence.victim),
        shadows=[classes(shadow) for shadow in evidence.shadows],
        member=evidence.member,
        calibration_mask=evidence.calibration_mask,
        target=evidence.target,
        strengths=strengths,
        record_ids=evidence.record_ids,
    )
