"""Attacks on the loss, worked by hand and against loops."""

import numpy as np
import pytest
from attack_cases import odds_evidence, random_measured

from attackers import Evidence, attack
from attackers.loss import calibrated_score, population_score
from core.console import UserError


def test_loss_and_gap_worked_by_hand():
    labels, target = np.array([0, 1, 0, 1, 0, 1]), np.arange(6) < 3
    victim = np.array([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.3, 0.7]])
    shadow = np.array([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.4, 0.6], [0.7, 0.3]]])
    evidence = Evidence.from_posteriors(
        labels, victim=victim, shadows=shadow, member=[[0, 0, 0, 1, 0, 0]], target=target
    )
    verdict = attack("loss", evidence)["loss"]
    assert verdict.scores == pytest.approx(
        np.log([0.8, 0.4, 0.5])
    ) and verdict.threshold == pytest.approx(np.log(0.9))
    verdict = attack("gap", evidence)["gap"]
    assert verdict.scores.tolist() == [1, 0, 1] and verdict.member.tolist() == [True, False, True]


def test_calibrated_scores_equal_a_loop():
    loss = random_measured(1)
    found, unknown = calibrated_score(loss), 0
    for record in range(25):
        of_out = [loss.shadows[s, record] for s in range(7) if not loss.member[s, record]]
        if len(of_out) < 2:
            unknown += 1
            assert np.isnan(found[record])
        else:
            assert found[record] == pytest.approx(sum(of_out) / len(of_out) - loss.victim[record])
    assert 0 < unknown < 25 and len(found) == 25


def test_attack_p_scores_equal_a_loop():
    loss = random_measured(2)
    loss.victim[30] = loss.victim[3]  # an equal loss is not a larger one
    population = loss.victim[25:]
    for value, found in zip(loss.victim[:25], population_score(loss), strict=True):
        assert found == pytest.approx(sum(other > value for other in population) / 15)


def test_without_a_population_attacks_that_need_one_say_so():
    evidence = odds_evidence(np.zeros(6), np.zeros((6, 6)), np.tile([1, 0], (6, 3)))
    for name in ("attack_p", "rmia", "qmia"):
        with pytest.raises(UserError, match="population"):
            attack(name, evidence)
