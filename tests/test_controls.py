"""Negative controls: where nothing is memorised, or membership means nothing, attacks must fail."""
import numpy as np
import pytest
import torch
from scipy.stats import binom

import attackers.neural
from attackers import ATTACKS, metrics
from attackers.signals import Shadow, query
from base_model import BaseModel, Recipe, generator
from datasets import load, split
from models import build

CPU = torch.device("cpu")
ROLES = {"victim": 0, "shadow_0": 1, "shadow_1": 2}


@pytest.fixture(scope="module")
def digits():
    records = load("digits", data_root="unused", num_cls=10, input_dim=64)
    return records, split(len(records), seed=7, shadow_num=2)


def signals_of_all(digits, epochs):
    """Shadows, the victim's signals on its targets, and who of them is a member."""
    records, parts = digits
    shadows = []
    for role, part in parts.items():
        draw = generator(1, role)
        network = build("columnfc", shape=records.shape, num_cls=10, generator=draw)
        model = BaseModel(network, device=CPU, generator=draw)
        if epochs:
            model.train(records, torch.from_numpy(part.train), generator=draw, recipe=Recipe(epochs=epochs))
        numbers = np.concatenate([part.train, part.test])
        signals = query(model, records, numbers, generator=draw)
        member = np.arange(len(numbers)) < len(part.train)
        if role == "victim":
            target, is_member = signals, member
        else:
            shadows.append(Shadow(signals, member))
    return shadows, target, is_member


@pytest.fixture(scope="module")
def untrained(digits):
    return signals_of_all(digits, epochs=0)


@pytest.fixture(scope="module")
def memorised(digits):
    """Trained far beyond need, on records of which the model gets a few wrong outside its training set."""
    return signals_of_all(digits, epochs=60)


def verdicts(name, shadows, target):
    return ATTACKS.load(name)(shadows, target, device=CPU, seed=0, watch=lambda *_: (None, lambda: None))


@pytest.fixture(autouse=True)
def short_attack_training(monkeypatch):
    monkeypatch.setattr(attackers.neural, "RECIPE", Recipe(epochs=8, optimizer="sgd", lr=1e-2))


def within_chance(accuracy, n):
    low, high = binom.interval(0.999, n, 0.5)
    return low / n <= accuracy <= high / n


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_an_untrained_model_gives_nothing_away(attack, untrained):
    shadows, target, member = untrained
    for name, verdict in verdicts(attack, shadows, target).items():
        assert verdict.scores.shape == member.shape and np.isfinite(verdict.scores).all()
        assert within_chance(metrics.balanced_accuracy(verdict.member, member), len(member)), name


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_membership_at_random_cannot_be_told(attack, memorised):
    shadows, target, member = memorised
    permuted = np.random.default_rng(0).permutation(member)
    for name, verdict in verdicts(attack, shadows, target).items():
        assert within_chance(metrics.balanced_accuracy(verdict.member, permuted), len(member)), name


def test_the_same_models_are_attacked_with_success_when_membership_is_theirs(memorised):
    """So that the two tests above can fail."""
    shadows, target, member = memorised
    accuracy = metrics.balanced_accuracy(verdicts("threshold", shadows, target)["conf"].member, member)
    assert not within_chance(accuracy, len(member)) and accuracy > 0.5


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_a_record_is_judged_by_its_own_signals_wherever_it_stands(attack, memorised):
    shadows, target, _ = memorised
    order = np.random.default_rng(1).permutation(len(target.labels))
    moved = type(target)(target.logits[order], target.labels[order], target.sensitivity[order])
    again = verdicts(attack, shadows, moved)
    for name, verdict in verdicts(attack, shadows, target).items():
        assert again[name].scores == pytest.approx(verdict.scores[order], abs=1e-5), name
