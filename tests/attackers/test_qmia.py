"""QMIA: its Gaussian head against torch, and what its network learns from."""

import math

import numpy as np
import pytest
import torch
from attack_cases import gaussian_evidence, logits_and_labels, same_verdict
from torch.distributions import Normal

import attackers.neural
import attackers.qmia
from attackers import Evidence, attack
from attackers.metrics import auc
from attackers.qmia import GaussianHead, margin
from attackers.signals import Signals
from base_model import TrainConfig
from core.console import UserError


def test_the_margin_is_to_the_largest_other_logit():
    logits, labels = logits_and_labels()
    exact = [
        z[y] - max(other for c, other in enumerate(z) if c != y)
        for z, y in zip(logits.astype(float), labels)
    ]
    assert margin(Signals(logits), labels) == pytest.approx(exact)


def test_the_gaussian_heads_loss_is_torchs_log_likelihood_of_each_records_number():
    draw = torch.Generator().manual_seed(0)
    record_ids = torch.randn(30, generator=draw, dtype=torch.float64)
    labels = torch.randint(4, (30,), generator=draw)
    y = torch.randperm(30, generator=draw)[:12]  # positions of the batch's records
    outputs = torch.randn(12, 8, generator=draw, dtype=torch.float64)
    exact = []
    for row, position in zip(outputs, y):
        mean, raw = row[2 * labels[position]], row[2 * labels[position] + 1]
        deviation = (torch.log1p(torch.exp(raw)) + 1e-3).sqrt()
        exact.append(
            -Normal(mean, deviation).log_prob(record_ids[position]) - math.log(2 * math.pi) / 2
        )
    head = GaussianHead(record_ids, labels)
    assert float(head.negative_log_likelihood(outputs, y)) == pytest.approx(
        float(torch.stack(exact).mean()), rel=1e-6
    )


def predictable(seed, *, n=1500, shift=1.0):
    """Records whose margin is 4 f(x) + noise of .5 for models without them and more by `shift` for models with."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 4)).astype(np.float32)
    target = np.arange(n) < n // 3
    truth = (draw.random(n) < 0.5) & target
    member = (draw.random((1, n)) < 0.5) & ~target
    labels = draw.integers(2, size=n)

    def answers(member):
        s = 4 * np.where(labels, x[:, 0], -x[:, 1]) + 0.5 * draw.normal(size=n) + shift * member
        logits = np.zeros((n, 2))
        logits[np.arange(n), labels] = s
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    victim = answers(truth)
    return Evidence.from_posteriors(
        labels,
        victim=victim,
        shadows=answers(member[0])[None],
        member=member,
        target=target,
        calibration_mask=~target[None],
        x=x,
    ), truth[target]


@pytest.mark.slow
def test_qmia_tells_members_by_margins_that_are_too_large_for_their_record(monkeypatch):
    monkeypatch.setattr(
        attackers.qmia, "CONFIG", TrainConfig(epochs=40, batch_size=64, early_stop=10)
    )
    evidence, truth = predictable(0)
    verdict = attack("qmia", evidence)["qmia"]
    plain = auc(margin(evidence.victim, evidence.labels)[evidence.target], truth)
    assert plain < 0.65 and auc(verdict.scores, truth) > plain + 0.25
    others = verdict.scores[~truth]  # about N(0, 1)
    assert abs(others.mean()) < 0.4 and 0.65 < others.std() < 1.4
    decided = (verdict.member[truth].mean() + (~verdict.member[~truth]).mean()) / 2
    assert decided > 0.65  # the threshold, from the shadow, serves too
    again = attack("qmia", evidence)["qmia"]
    assert same_verdict(verdict, again) and not same_verdict(
        verdict, attack("qmia", evidence, seed=1)["qmia"]
    )


def test_qmia_learns_from_the_population_alone(short_training):
    """Other answers for half of the targets change the scores of no other target, nor the threshold."""
    evidence, _ = predictable(2, n=300)
    changed = evidence.target & (np.arange(300) % 2 == 0)
    other = Signals(np.where(changed[:, None], 5 * evidence.victim.logits, evidence.victim.logits))
    one, two = (
        attack("qmia", Evidence(**vars(evidence) | {"victim": victim}))["qmia"]
        for victim in (evidence.victim, other)
    )
    kept = ~changed[evidence.target]
    assert (one.scores[kept] == two.scores[kept]).all() and (
        one.scores[~kept] != two.scores[~kept]
    ).all()
    assert one.threshold == two.threshold


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 32, 32)])
def test_qmia_takes_images(monkeypatch, shape):
    monkeypatch.setattr(attackers.qmia, "CONFIG", TrainConfig(epochs=1))
    evidence, _ = predictable(1, n=60)
    x = np.random.default_rng(0).integers(256, size=(60, *shape), dtype=np.uint8)
    p = np.stack([evidence.victim.posteriors()[0], evidence.shadows[0].posteriors()[0]])
    evidence = Evidence.from_posteriors(
        evidence.labels,
        victim=p[0],
        shadows=p[1:],
        member=evidence.member,
        target=evidence.target,
        x=x,
    )
    assert np.isfinite(attack("qmia", evidence)["qmia"].scores).all()


def test_without_the_records_qmia_says_so():
    with pytest.raises(UserError, match="x="):
        attack("qmia", gaussian_evidence(2, online=False))
