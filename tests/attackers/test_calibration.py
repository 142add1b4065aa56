"""Thresholds from shadows alone: each in turn plays the victim against the others."""

import math

import numpy as np
import pytest
from attack_cases import five_records, measured, odds_evidence, paired_member, random_measured

from attackers import ATTACKS, attack, lira, unfit
from attackers.calibration import identity_score, threshold_attack
from attackers.metrics import auc
from attackers.signals import log_odds
from core.console import UserError
from datasets import split


def test_each_shadow_in_turn_is_left_out_of_the_shadows():
    found = random_measured(shadows=4, n=6)
    calibration_mask = np.random.default_rng(1).random((4, 6)) < 0.5
    found = measured(
        found.victim,
        found.every_shadow,
        found.every_member,
        target=np.arange(6) < 2,
        calibration_mask=calibration_mask,
    )
    roles = list(found.leave_one_out())
    assert len(roles) == 4
    for index, (role, member) in enumerate(roles):
        others = [number for number in range(4) if number != index]
        assert (role.victim == found.every_shadow[index]).all()
        assert (role.shadows == found.every_shadow[others]).all()
        assert (role.member == found.every_member[others]).all()
        assert (role.target == calibration_mask[index]).all()
        assert (member == found.every_member[index][calibration_mask[index]]).all()
    assert (found.shadows == found.every_shadow).all() and (
        found.member == found.every_member
    ).all()


def test_the_partner_of_a_shadow_that_plays_the_victim_is_left_out_too():
    draw = np.random.default_rng(0)
    member = paired_member(draw, 6, 40)
    member = np.concatenate(
        [member, draw.random((1, 40)) < 0.5]
    )  # a seventh that is nobody's partner
    calibration_mask = np.tile(np.arange(40) < 30, (7, 1))
    member[1, 35] = member[0, 35]  # elsewhere than on the targets partners may agree
    found = measured(
        draw.random(40), draw.random((7, 40)), member, calibration_mask=calibration_mask
    )
    for index, (role, _) in enumerate(found.leave_one_out()):
        others = [
            number for number in range(7) if number not in {index, index ^ 1 if index < 6 else 6}
        ]
        assert (role.shadows == found.every_shadow[others]).all() and (
            role.member == member[others]
        ).all()
        if index < 6:  # of the others that are dealt in pairs, each record is IN half
            assert (role.member[:4, :30].sum(axis=0) == 2).all()


@pytest.mark.parametrize("kind", ["inout", "paper"])
def test_partners_are_those_of_the_split(kind):
    """In the paper's split, where shadows' records are drawn at random, nobody has one."""
    played = split_evidence(kind, 6).measure(log_odds)
    for index, (role, _) in enumerate(played.leave_one_out()):
        left_out = {index, index ^ 1} if kind == "inout" else {index}
        assert set(np.flatnonzero(~role.references)) == left_out


@pytest.mark.parametrize("fix_variance", [False, True])
def test_counts_of_shadows_with_a_record_tell_a_threshold_nothing(fix_variance):
    """Where models answer alike for members and for others, shadows' scores of the two are distributed alike.

    With the partner among six shadows, a member is IN two of the others and a non-member in three, and the worse
    fit of the fewer lowers the score of members: an AUC of about .37 (shared variance: .45).
    """
    draw, n = np.random.default_rng(0), 2000
    ease = draw.normal(0, 2, n)
    phi = measured(ease, ease + draw.normal(size=(6, n)), paired_member(draw, 6, n))
    scores, member = map(
        np.concatenate,
        zip(
            *(
                (lira.online_score(role, fix_variance=fix_variance), truth)
                for role, truth in phi.leave_one_out()
            )
        ),
    )
    spread = math.sqrt((len(scores) + 1) / (12 * member.sum() * (~member).sum()))
    assert abs(auc(scores, member) - 0.5) < 4 * spread


def excess(phi):
    """By how much a target exceeds the mean of the shadows."""
    return (phi.victim - phi.shadows.mean(axis=0))[phi.target]


def test_a_threshold_worked_by_hand():
    # the first against the second: 5 - 3 = 2 of a member, 1 - 2 = -1; the second: -2, and 2 - 1 = 1 of a member
    # record 4 is nobody's member: 0 twice
    # members 2 and 1, others -1, -2 and 0: of all, 1 parts them best; the victim: 7 - 5 = 2, 4 - 6 = -2
    verdict = threshold_attack(five_records(), log_odds, excess)
    assert (
        verdict.threshold == 1
        and verdict.scores.tolist() == [2, -2]
        and verdict.member.tolist() == [True, False]
    )
    assert (
        threshold_attack(five_records(), log_odds, identity_score).threshold == 5
    )  # members 5 and 2, others 1, 3, 4 and 4


def test_a_threshold_does_not_depend_on_the_victim():
    one, other = (
        threshold_attack(five_records(victim), log_odds, excess)
        for victim in [(0, 0, 7, 4), (-9, 9, 100, 50)]
    )
    assert one.threshold == other.threshold and (one.scores != other.scores).all()


def test_a_score_that_is_not_a_number_is_left_out_of_the_threshold():
    def unsure(phi):
        return np.where(excess(phi) == 1, np.nan, excess(phi))

    assert (
        threshold_attack(five_records(), log_odds, unsure).threshold == 2
    )  # the second shadow's member is gone
    with pytest.raises(UserError, match="2 shadow models"):
        threshold_attack(
            five_records(), log_odds, lambda phi: np.where(excess(phi) > 0, np.nan, excess(phi))
        )


def test_a_threshold_for_each_class_is_of_its_own_records_and_else_the_global_one():
    both = five_records(labels=(1, 0, 1, 0))
    label = lambda signals, labels: signals.logits[:, 0]  # whatever the class
    # class 1 (record 0): member 2, other -2; class 0 (records 1 and 4): member 1, others -1 and 0
    assert threshold_attack(both, label, excess, per_class=True).threshold.tolist() == [2, 1]
    # class 1 has record 0 alone, and where it scores below -1 it is not a number: no non-member
    unsure = lambda phi: np.where(excess(phi) == -2, np.nan, excess(phi))
    assert threshold_attack(both, label, unsure, per_class=True).threshold.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["calibrated", "lira", "lira_offline", "rmia"])
def test_two_shadows_are_too_few_offline(name):
    draw = np.random.default_rng(0)
    target = np.arange(60) < 20
    evidence = odds_evidence(
        draw.normal(size=60),
        draw.normal(size=(2, 60)),
        (draw.random((2, 60)) < 0.5) & ~target,
        target=target,
        calibration_mask=np.tile(~target, (2, 1)),
    )
    with pytest.raises(UserError, match="2 shadow models"):
        attack(name, evidence)


def split_evidence(kind, shadow_num, n=400):
    """Evidence of the shape that a split gives, with numbers that say nothing."""
    draw, parts = np.random.default_rng(0), split(n, seed=0, shadow_num=shadow_num, kind=kind)
    shadows = [part for role, part in parts.items() if role != "victim"]
    everyone = np.arange(n)
    of = lambda part: np.isin(everyone, np.concatenate([part.train, part.test]))
    return odds_evidence(
        draw.normal(size=n),
        draw.normal(size=(len(shadows), n)),
        [np.isin(everyone, part.train) for part in shadows],
        target=of(parts["victim"]),
        calibration_mask=[of(part) for part in shadows],
    )


@pytest.mark.parametrize("kind", ["paper", "inout"])
@pytest.mark.parametrize(
    "name", ["calibrated", "lira", "lira_online", "lira_offline", "rmia", "base", "bavaria"]
)
def test_the_fewest_shadows_that_are_said_to_do_will_do(name, kind):
    online = kind == "inout"
    if name == "lira_online" and not online:
        pytest.skip("has its own test below")
    fewest = ATTACKS[name].options["shadows"][online]
    assert unfit(name, online=online, shadow_num=fewest) is None
    assert f"at least {fewest}" in unfit(name, online=online, shadow_num=fewest - 1)
    verdict = attack(name, split_evidence(kind, fewest))[name]
    assert np.isfinite(verdict.scores).all() and np.isfinite(verdict.threshold)


@pytest.mark.parametrize("name", ["lira", "lira_online"])
def test_four_shadows_are_too_few_online(name):
    """One plays the victim: of a record's two with and two without it, only one is left of either kind."""
    with pytest.raises(UserError, match="4 shadow models"):
        attack(name, split_evidence("inout", 4))


@pytest.mark.parametrize("name", ["base", "bavaria"])
def test_one_shadow_with_a_record_and_one_without_are_enough_of_the_others(name):
    """But not the partner alone, which is left out: two shadows are too few online."""
    for shadows in (2, 3):
        assert "at least 4" in unfit(name, online=True, shadow_num=shadows)
    with pytest.raises(UserError, match="2 shadow models"):
        attack(name, split_evidence("inout", 2))
    assert "at least 2" in unfit(name, online=False, shadow_num=1)
    with pytest.raises(UserError, match="1 shadow models"):
        attack(name, split_evidence("paper", 1))


@pytest.mark.parametrize("name", list(ATTACKS))
def test_one_shadow_is_enough_for_attacks_that_only_learn_from_it(name):
    options = ATTACKS[name].options
    for online in (False, True):
        reason = unfit(name, online=online, shadow_num=1, also=["original"])
        assert (reason is None) == ("shadows" not in options)
    if name == "lira_online":
        assert "use lira" in unfit(name, online=False, shadow_num=1000)
    assert unfit(name, online=True, shadow_num=6, also=["original"]) is None
