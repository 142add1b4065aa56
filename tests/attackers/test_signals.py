"""Log-odds, losses and means over shadows: against definitions, loops and torch."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from attack_cases import logits_and_labels

from attackers.signals import Signals, cross_entropy, log_odds
from attackers.statistic import mean_where


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_log_odds_equal_their_definition_in_fifty_digits(temperature):
    logits, labels = logits_and_labels()
    found = log_odds(Signals(logits), labels, temperature=temperature)
    with localcontext(prec=50):
        for row, label, phi in zip(logits, labels, found):
            e = [(Decimal(float(z)) / Decimal(temperature)).exp() for z in row]
            p = [part / sum(e) for part in e]
            exact = p[label].ln() - sum(p[c] for c in range(len(p)) if c != label).ln()
            assert phi == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


def test_log_odds_and_losses_of_huge_logits_are_finite():
    logits = np.array([[500, -500, 0], [-500, 500, 0], [500, 500, -500]], np.float32)
    labels = np.array([0, 0, 0])
    assert log_odds(Signals(logits), labels) == pytest.approx([500, -1000, 0])
    assert cross_entropy(Signals(logits), labels) == pytest.approx([0, 1000, math.log(2)])


def test_cross_entropy_equals_torchs_in_float64():
    logits, labels = logits_and_labels(scale=5)
    exact = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(labels), reduction="none"
    )
    assert cross_entropy(Signals(logits), labels) == pytest.approx(
        exact.numpy(), rel=1e-9, abs=1e-13
    )


def test_a_loss_next_to_zero_keeps_its_digits():
    found = cross_entropy(Signals(np.array([[60.0, 0.0], [700.0, 0.0]])), np.array([0, 0]))
    assert found == pytest.approx([math.exp(-60), math.exp(-700)], rel=1e-9, abs=0)


def test_given_posteriors_have_the_log_odds_of_themselves_and_finite_ones_where_saturated():
    p = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    phi = log_odds(Signals.from_posteriors(p), np.array([1, 0, 1]))
    assert phi == pytest.approx([math.log(0.2 / 0.8), math.log(1 / 2e-30), math.log(1e-30)])


def test_means_over_chosen_shadows_equal_a_loop():
    draw = np.random.default_rng(0)
    values, chosen = draw.normal(size=(6, 50)), draw.random((6, 50)) < 0.4
    for least in (1, 2, 3):
        for found, column, here in zip(mean_where(values, chosen, least=least), values.T, chosen.T):
            assert (
                np.isnan(found)
                if here.sum() < least
                else found == pytest.approx(column[here].mean())
            )
