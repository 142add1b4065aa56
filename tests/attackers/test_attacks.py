"""Each attack's formula against a source of its own: hand-worked numbers, loops, scipy, torch, closed forms."""

import itertools
import math
from dataclasses import replace
from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm, trim_mean
from torch.distributions import Normal

import attackers.neural
import attackers.qmia
from attackers import ATTACKS, Evidence, attack, blindmi, lira, rmia, unfit
from attackers.calibration import identity_score, threshold_attack
from attackers.loss import calibrated_score, population_score
from attackers.metrics import auc, balanced_accuracy, tpr_at_fpr
from attackers.qmia import GaussianHead, margin
from attackers.signals import Signals, Statistic, cross_entropy, log_odds, mean_where
from base_model import TrainConfig
from core.console import UserError
from datasets import Records, split


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


@pytest.fixture
def short_training(monkeypatch):
    monkeypatch.setattr(attackers.neural, "CONFIG", TrainConfig(epochs=2, optimizer="sgd"))
    monkeypatch.setattr(attackers.qmia, "CONFIG", TrainConfig(epochs=2))


# ---- signals ---------------------------------------------------------------------------------------------------------


def logits_and_labels(n=200, num_cls=5, scale=20, seed=0):
    draw = np.random.default_rng(seed)
    return (scale * draw.normal(size=(n, num_cls))).astype(np.float32), draw.integers(
        num_cls, size=n
    )


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


# ---- evidence --------------------------------------------------------------------------------------------------------

N, S, C = 12, 3, 4
FITTING = dict(
    labels=np.arange(N) % C,
    victim=np.full((N, C), 1 / C),
    shadows=np.full((S, N, C), 1 / C),
    member=np.tile(np.arange(N) == N - 1, (S, 1)),
    target=np.arange(N) < 6,
    calibration_mask=np.ones((S, N), bool),
)


def test_arrays_that_fit_are_taken():
    evidence = Evidence.from_posteriors(**FITTING, x=np.zeros((N, 2), np.float32))
    assert len(evidence.shadows) == S and not evidence.online and len(evidence.records) == N
    assert evidence.victim.posteriors()[0] == pytest.approx(FITTING["victim"])


@pytest.mark.parametrize(
    "what, wrong",
    [
        ("labels", FITTING["labels"][:-1]),
        ("labels", FITTING["labels"] - 1),
        ("labels", FITTING["labels"] + 1),
        ("labels", FITTING["labels"] + 0.5),
        ("victim", FITTING["victim"][:-1]),
        ("victim", FITTING["victim"][:, :-1]),
        ("victim", FITTING["victim"][:, 0]),
        ("shadows", FITTING["shadows"][0]),
        ("shadows", FITTING["shadows"][:, :-1]),
        ("shadows", FITTING["shadows"][:, :, :-1]),
        ("member", FITTING["member"][0]),
        ("member", FITTING["member"][:-1]),
        ("member", FITTING["member"][:, :-1]),
        ("target", FITTING["target"][:-1]),
        ("target", FITTING["target"][:, None]),
        ("labels", FITTING["labels"][:, None]),
        ("calibration_mask", FITTING["calibration_mask"][:-1]),
        ("calibration_mask", FITTING["calibration_mask"][:, :-1]),
        ("calibration_mask", FITTING["calibration_mask"][0]),
        ("x", np.zeros((N - 1, 2), np.float32)),
        ("x", np.zeros(N, np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(what, wrong):
    with pytest.raises(ValueError):
        Evidence.from_posteriors(**FITTING | {what: wrong})


def test_online_is_where_a_shadow_was_trained_on_a_target():
    member = np.zeros((S, N), bool)
    member[1, 7] = True  # of the population
    assert not Evidence.from_posteriors(**FITTING | {"member": member}).online
    member[2, 5] = True
    assert Evidence.from_posteriors(**FITTING | {"member": member}).online


# ---- calibration -----------------------------------------------------------------------------------------------------


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


def paired_member(draw, shadows, n):
    """(S, n): two shadows at a time take the two halves of the records, as the in/out split deals them."""
    halves = [draw.permutation(np.arange(n) % 2 == 0) for _ in range(shadows // 2)]
    return np.stack([one for half in halves for one in (half, ~half)])


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


def small(victim=(0, 0, 7, 4), labels=(0, 0, 0, 0)):
    """Two shadows on records 0, 1 and 4, the first trained on 0, the second on 1; targets are 2 and 3."""
    evidence = odds_evidence(
        [*victim, 0],
        [[5, 1, 6, 6, 4], [3, 2, 4, 6, 4]],
        [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]],
        target=[0, 0, 1, 1, 0],
        calibration_mask=[[1, 1, 0, 0, 1], [1, 1, 0, 0, 1]],
    )
    return Evidence(**vars(evidence) | {"labels": np.asarray([*labels, 0])})


def test_a_threshold_worked_by_hand():
    # the first against the second: 5 - 3 = 2 of a member, 1 - 2 = -1; the second: -2, and 2 - 1 = 1 of a member
    # record 4 is nobody's member: 0 twice
    # members 2 and 1, others -1, -2 and 0: of all, 1 parts them best; the victim: 7 - 5 = 2, 4 - 6 = -2
    verdict = threshold_attack(small(), log_odds, excess)
    assert (
        verdict.threshold == 1
        and verdict.scores.tolist() == [2, -2]
        and verdict.member.tolist() == [True, False]
    )
    assert (
        threshold_attack(small(), log_odds, identity_score).threshold == 5
    )  # members 5 and 2, others 1, 3, 4 and 4


def test_a_threshold_does_not_depend_on_the_victim():
    one, other = (
        threshold_attack(small(victim), log_odds, excess)
        for victim in [(0, 0, 7, 4), (-9, 9, 100, 50)]
    )
    assert one.threshold == other.threshold and (one.scores != other.scores).all()


def test_a_score_that_is_not_a_number_is_left_out_of_the_threshold():
    def unsure(phi):
        return np.where(excess(phi) == 1, np.nan, excess(phi))

    assert (
        threshold_attack(small(), log_odds, unsure).threshold == 2
    )  # the second shadow's member is gone
    with pytest.raises(UserError, match="2 shadow models"):
        threshold_attack(
            small(), log_odds, lambda phi: np.where(excess(phi) > 0, np.nan, excess(phi))
        )


def test_a_threshold_for_each_class_is_of_its_own_records_and_else_the_global_one():
    both = small(labels=(1, 0, 1, 0))
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
@pytest.mark.parametrize("name", ["calibrated", "lira", "lira_online", "lira_offline", "rmia"])
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


@pytest.mark.parametrize("name", list(ATTACKS))
def test_one_shadow_is_enough_for_attacks_that_only_learn_from_it(name):
    options = ATTACKS[name].options
    for online in (False, True):
        reason = unfit(name, online=online, shadow_num=1)
        assert (reason is None) == ("shadows" not in options)
    if name == "lira_online":
        assert "use lira" in unfit(name, online=False, shadow_num=1000)
    assert unfit(name, online=True, shadow_num=6) is None


# ---- the loss --------------------------------------------------------------------------------------------------------


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


# ---- LiRA ------------------------------------------------------------------------------------------------------------


def test_logits_of_two_classes_have_the_log_odds_that_these_tests_are_built_on():
    phi = np.random.default_rng(0).normal(size=50) * 10
    assert log_odds(
        odds_evidence(phi, [phi], [phi > 0]).victim, np.zeros(50, int)
    ) == pytest.approx(phi)


def test_a_gaussian_for_each_record_is_numpys():
    phi = random_measured(3, n=60, targets=60)
    mu, sigma = lira.gaussian_fit(phi.shadows, phi.member, fix_variance=False)
    few = 0
    for record in range(60):
        here = phi.shadows[phi.member[:, record], record]
        if len(here) < 2:
            few += 1
            assert np.isnan(mu[record])
        else:
            assert mu[record] == pytest.approx(np.mean(here))
            assert sigma[record] == pytest.approx(np.std(here, ddof=1))
    assert 0 < few < 60


def test_a_pooled_variance_worked_by_hand():
    # means 2 and 6; squares of residuals 1 + 0 + 1 and 4 + 4; degrees of freedom 2 and 1; a third has too few
    phi = np.array([[1.0, 4.0, 9.0], [2.0, 8.0, 9.0], [3.0, 5.0, 9.0]])
    chosen = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
    mu, sigma = lira.gaussian_fit(phi, chosen, fix_variance=True)
    assert mu[:2].tolist() == [2, 6] and np.isnan(mu[2])
    assert sigma[:2] == pytest.approx(math.sqrt(10 / 3))
    assert lira.gaussian_fit(phi, chosen, fix_variance=False)[1][:2] == pytest.approx([1, math.sqrt(8)])


def pooled(phi, member, kind):
    """A variance for all records, from those of whom two shadows or more are of the kind."""
    groups = [
        phi[member[:, i] == kind, i]
        for i in range(phi.shape[1])
        if (member[:, i] == kind).sum() >= 2
    ]
    return sum(((group - group.mean()) ** 2).sum() for group in groups) / sum(
        len(group) - 1 for group in groups
    )


@pytest.mark.parametrize("fix_variance", [False, True])
def test_scores_equal_scipys_densities_record_by_record(fix_variance):
    phi = random_measured(4, shadows=9, n=60, targets=45)
    online, offline = (
        lira.online_score(phi, fix_variance=fix_variance),
        lira.offline_score(phi, fix_variance=fix_variance),
    )
    of_all = {
        kind: math.sqrt(pooled(phi.shadows[:, :45], phi.member[:, :45], kind))
        for kind in (True, False)
    }
    known = 0
    for record in range(45):
        fits = {}
        for kind in (True, False):
            here = phi.shadows[phi.member[:, record] == kind, record]
            if len(here) >= 2:
                fits[kind] = norm(here.mean(), of_all[kind] if fix_variance else here.std(ddof=1))
        value = phi.victim[record]
        if False in fits:
            assert norm.logcdf(offline[record]) == pytest.approx(fits[False].logcdf(value))
        else:
            assert np.isnan(offline[record])
        if len(fits) == 2:
            known += 1
            assert online[record] == pytest.approx(
                fits[True].logpdf(value) - fits[False].logpdf(value)
            )
        else:
            assert np.isnan(online[record])
    assert 10 < known < 45 and len(online) == len(offline) == 45


def gaussian_models(draw, *, shadows, mu_out, mu_in, sigma_out, sigma_in, truth):
    """phi of victim and shadows from N(mu_in, sigma_in) with the record, N(mu_out, sigma_out) without."""
    n = len(truth)
    member = balanced_member(draw, shadows, n)

    def phi(member):
        return draw.normal(np.where(member, mu_in, mu_out), np.where(member, sigma_in, sigma_out))

    return measured(phi(truth), phi(member), member)


def test_with_many_shadows_the_online_score_approaches_the_true_likelihood_ratio():
    """Its error falls as one over the root of their number."""
    draw, n = np.random.default_rng(5), 300
    mu_out, sigma_out, sigma_in = (
        draw.normal(0, 3, n),
        draw.uniform(0.5, 2, n),
        draw.uniform(0.5, 2, n),
    )
    known = dict(
        mu_out=mu_out, mu_in=mu_out + draw.uniform(0, 2, n), sigma_out=sigma_out, sigma_in=sigma_in
    )
    error = {}
    for shadows in (100, 400, 1600):
        phi = gaussian_models(draw, shadows=shadows, truth=draw.random(n) < 0.5, **known)
        true = norm.logpdf(phi.victim, known["mu_in"], sigma_in) - norm.logpdf(
            phi.victim, mu_out, sigma_out
        )
        found = lira.online_score(phi, fix_variance=False)
        error[shadows] = np.median(np.abs(found - true))
        assert np.corrcoef(found, true)[0, 1] > 0.95
    assert error[400] < 0.12 and 2.8 < error[100] / error[1600] < 5.6


@pytest.mark.parametrize("fix_variance", [False, True])
def test_the_roc_of_gaussian_records_is_the_analytic_one(fix_variance):
    """AUC is Phi(d / sqrt 2) and TPR at FPR a is Phi(d + Phi^-1(a)), within four standard errors."""
    draw, d, n = np.random.default_rng(6), 1.5, 4000
    truth = np.arange(n) % 2 == 0
    phi = gaussian_models(
        draw, shadows=400, mu_out=0.0, mu_in=d, sigma_out=1.0, sigma_in=1.0, truth=truth
    )
    scores, half = lira.online_score(phi, fix_variance=fix_variance), n // 2
    exact = norm.cdf(d / math.sqrt(2))
    q1, q2 = exact / (2 - exact), 2 * exact**2 / (1 + exact)  # Hanley & McNeil 1982
    spread = math.sqrt((exact * (1 - exact) + (half - 1) * (q1 + q2 - 2 * exact**2)) / half**2)
    assert abs(auc(scores, truth) - exact) < 4 * spread
    for limit in (0.1, 0.01):
        cut = norm.ppf(limit)
        rate, slope = norm.cdf(d + cut), norm.pdf(d + cut) / norm.pdf(cut)
        spread = math.sqrt((rate * (1 - rate) + slope**2 * limit * (1 - limit)) / half)
        assert abs(tpr_at_fpr(scores, truth, limit=limit) - rate) < 4 * spread


def test_where_all_records_are_separated_alike_the_offline_score_orders_them_as_the_ratio_does():
    """Its AUC is the analytic one too."""
    draw, d = np.random.default_rng(7), 1.5
    truth = np.arange(4000) % 2 == 0
    phi = gaussian_models(
        draw, shadows=400, mu_out=0.0, mu_in=d, sigma_out=1.0, sigma_in=1.0, truth=truth
    )
    scores = lira.offline_score(phi, fix_variance=True)
    assert auc(scores, truth) == pytest.approx(norm.cdf(d / math.sqrt(2)), abs=0.025)
    assert np.corrcoef(scores, phi.victim)[0, 1] > 0.99


def test_offline_scores_have_the_order_of_log_phi_and_no_ties_where_that_rounds_to_zero():
    draw = np.random.default_rng(13)
    out = draw.normal(size=(5, 200))
    for reach, ties in ((3, False), (100, True)):
        phi = measured(np.linspace(-reach, reach, 200), out - out.mean(axis=0), np.zeros((5, 200)))
        mu, sigma = lira.gaussian_fit(phi.shadows, ~phi.member, fix_variance=True)
        log_phi, scores = (
            norm.logcdf(phi.victim, mu, sigma),
            lira.offline_score(phi, fix_variance=True),
        )
        assert len(np.unique(scores)) == 200 and (len(np.unique(log_phi)) < 200) == ties
        order = np.argsort(scores)
        assert (np.diff(log_phi[order]) >= 0).all() and (order == np.arange(200)).all()


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


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("shadows, shared", [(6, True), (62, True), (64, False)])
def test_below_64_shadows_all_records_share_a_variance(shadows, shared, online):
    evidence = gaussian_evidence(shadows, online=online)
    phi, score = evidence.measure(log_odds), lira.online_score if online else lira.offline_score
    by_default = attack("lira", evidence)["lira"].scores
    assert (by_default == score(phi, fix_variance=shared)).all()
    for asked in (True, False):
        assert (
            attack("lira", evidence, fix_variance=asked)["lira"].scores
            == score(phi, fix_variance=asked)
        ).all()
    assert (by_default != score(phi, fix_variance=not shared)).all()


def same(one, other):
    return np.array_equal(one.scores, other.scores) and one.threshold == other.threshold


def test_lira_is_the_online_attack_where_it_can_be_and_else_the_offline_one():
    evidence = gaussian_evidence(8)
    online, offline = (attack(name, evidence)[name] for name in ("lira_online", "lira_offline"))
    assert same(attack("lira", evidence)["lira"], online) and not same(online, offline)
    evidence = gaussian_evidence(8, online=False)
    assert same(attack("lira", evidence)["lira"], attack("lira_offline", evidence)["lira_offline"])
    with pytest.raises(UserError, match="use lira"):
        attack("lira_online", evidence)


def test_the_threshold_of_lira_is_that_of_shadows_against_all_others():
    """On many Gaussian records, near where the two likelihoods are equal: a ratio of 1."""
    draw, n = np.random.default_rng(9), 1000
    member = balanced_member(draw, 16, n)
    evidence = odds_evidence(draw.normal(size=n), draw.normal(size=(16, n)) + 3 * member, member)
    assert attack("lira", evidence)["lira"].threshold == pytest.approx(0, abs=0.7)


# ---- RMIA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_true_classes_posterior_is_torchs_softmax_at_a_temperature(temperature):
    logits, labels = logits_and_labels(scale=5)
    exact = torch.softmax(torch.from_numpy(logits).double() / temperature, dim=1).numpy()
    exact = exact[np.arange(len(labels)), labels]
    assert rmia.true_posterior(Signals(logits), labels, temperature=temperature) == pytest.approx(
        exact, rel=1e-9
    )


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.4])
def test_trimmed_means_over_chosen_shadows_are_scipys(trim):
    draw = np.random.default_rng(0)
    values, chosen = draw.normal(size=(13, 80)), draw.random((13, 80)) < draw.random(80)
    for found, column, here in zip(
        mean_where(values, chosen, least=2, trim=trim), values.T, chosen.T
    ):
        assert (
            np.isnan(found)
            if here.sum() < 2
            else found == pytest.approx(trim_mean(column[here], trim))
        )


def rmia_ratios(p, *, a, online, trim=0.0):
    """r(x) of each record by loops, None where too few shadows are known; the population offline, from one OUT on."""

    def mean(values):
        return float(trim_mean(values, trim)) if trim else sum(values) / len(values)

    ratios = []
    for record in range(len(p.victim)):
        out = [p.shadows[s, record] for s in range(len(p.shadows)) if not p.member[s, record]]
        inside = [p.shadows[s, record] for s in range(len(p.shadows)) if p.member[s, record]]
        if p.target[record] and online:
            fit, m = len(out) >= 2 and len(inside) >= 2, min(len(out), len(inside))
            evidence = fit and (
                (mean(inside) + mean(out)) / 2 if not trim else mean(inside[:m] + out[:m])
            )
        else:
            fit = len(out) >= (2 if p.target[record] else 1)
            evidence = fit and ((1 + a) * mean(out) + 1 - a) / 2
        ratios.append(p.victim[record] / evidence if fit else None)
    return ratios


def rmia_score(p, *, a, gamma, online, trim=0.0):
    """Share of the population that each target's ratio is more than gamma times, by loops."""
    ratios = rmia_ratios(p, a=a, online=online, trim=trim)
    population = [
        ratio for ratio, target in zip(ratios, p.target) if not target and ratio is not None
    ]
    return np.array(
        [
            np.nan
            if ratio is None
            else sum(ratio / other > gamma for other in population) / len(population)
            for ratio, target in zip(ratios, p.target)
            if target
        ]
    )


def settings_of(a=0.3, gamma=1.0, trim=0.0, temperature=2.0):
    return rmia.Settings(temperature=temperature, trim=trim, a=a, gamma=gamma)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("trim", [0.0, 0.2])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_rmia_scores_are_the_share_of_a_double_loop_and_part_of_a_step(a, gamma, trim, online):
    p = random_measured(10, shadows=11, n=160, targets=80)
    none_out, few_out = p.member.all(axis=0), (~p.member).sum(axis=0) < 2
    assert none_out[80:].any() and few_out[:80].any()
    found = rmia.score(p, settings_of(a, gamma, trim), online=online)
    share = rmia_score(p, a=a, gamma=gamma, online=online, trim=trim)
    assert (np.isnan(found) == np.isnan(share)).all() and np.isnan(found[few_out[:80]]).all()
    known, population = (
        ~np.isnan(share),
        sum(ratio is not None for ratio in rmia_ratios(p, a=a, online=False)[80:]),
    )
    part = (found - share)[known] * population
    assert (part > 0).all() and (part <= 1).all()
    # between two steps it grows with the ratio, and over all of them: no two records tie
    ratios = np.array(
        [np.nan if r is None else r for r in rmia_ratios(p, a=a, online=online, trim=trim)[:80]]
    )[known]
    assert len(np.unique(found[known])) == known.sum() > len(np.unique(share[known]))
    assert (np.argsort(found[known]) == np.argsort(ratios)).all()


def test_of_one_model_the_order_is_the_ratios_whatever_gamma():
    """So that gamma moves no AUC and no TPR, also where no target is more than gamma times a population record."""
    p, truth = (
        random_measured(14, shadows=8, n=300, targets=200),
        np.random.default_rng(0).random(200) < 0.5,
    )
    orders = []
    for gamma in (1.0, 2.0, 1e6):
        scores = rmia.score(p, settings_of(gamma=gamma), online=False)
        known = ~np.isnan(scores)
        orders.append(np.argsort(scores[known]))
        assert rmia.rank_auc(scores[known], truth[known]) == pytest.approx(
            auc(scores[known], truth[known])
        )
    shares = rmia_score(p, a=0.3, gamma=1e6, online=False)
    assert (shares[known] == 0).all() and len(np.unique(scores[known])) == known.sum()
    assert all((order == orders[0]).all() for order in orders)
    ratios = np.array(
        [np.nan if r is None else r for r in rmia_ratios(p, a=0.3, online=False)[:200]]
    )[known]
    assert (np.argsort(ratios) == orders[0]).all()


def test_ranks_among_limits_worked_by_hand():
    limits = np.array([1.0, 2.0, 2.0, 4.0])
    ratios = np.array([0.0, 0.25, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, np.nan])
    # below and above all: x / (1 + x) of x = ln(1 + r); between 1 and 2 half, all; between 2 and 4 half, all
    outside = lambda r: math.log(1 + r) / (1 + math.log(1 + r))
    expected = [0, outside(0.25), outside(1), 1.5, 2, 3.5, 3 + 1, 4 + outside(5), np.nan]
    assert rmia.rank_without_ties(ratios, limits) == pytest.approx(expected, nan_ok=True)
    assert rmia.rank_without_ties(np.array([0.0, 3.0]), np.zeros(2)) == pytest.approx(
        [0, 2 + outside(3)]
    )
    huge = rmia.rank_without_ties(np.array([1e12, 1e20, 1e100, 1e300]), np.ones(2500))
    assert (np.diff(huge) > 0).all() and huge.max() < 2501


@pytest.mark.parametrize("online", [False, True])
def test_rmia_scores_every_target_however_large_the_logits(online):
    """Posteriors of 0 under the victim and all shadows are no ratio of two zeros."""
    evidence = rmia_evidence(shadows=8, online=online)
    scaled = replace(
        evidence,
        victim=replace(evidence.victim, logits=3000 * evidence.victim.logits),
        shadows=[replace(shadow, logits=3000 * shadow.logits) for shadow in evidence.shadows],
    )
    with np.errstate(all="raise", under="ignore"):
        for a in (1.0, "choose"):
            assert not np.isnan(attack("rmia", scaled, rmia_a=a)["rmia"].scores).any()


def rmia_evidence(seed=0, *, n=160, shadows=5, online=False):
    draw = np.random.default_rng(seed)
    target = np.arange(n) < n // 2
    calibration_mask = (
        np.tile(target, (shadows, 1)) if online else ~target & (draw.random((shadows, n)) < 0.8)
    )
    member = balanced_member(draw, shadows, n) & calibration_mask
    return odds_evidence(
        draw.normal(1, 2, n),
        draw.normal(1, 2, n) + draw.normal(size=(shadows, n)) + member,
        member,
        target=target,
        calibration_mask=calibration_mask,
    )


def pair_count(scores, member):
    """AUC from its definition: the share of pairs in order, ties half."""
    wins = [(m > o) + (m == o) / 2 for m in scores[member] for o in scores[~member]]
    return sum(wins) / len(wins)


def roles_of(evidence, temperature):
    """Each shadow as the victim against all others, of which none is its complement here; who is its member."""
    p = evidence.measure(partial(rmia.true_posterior, temperature=temperature))
    for s in range(len(evidence.shadows)):
        others = [other for other in range(len(evidence.shadows)) if other != s]
        yield (
            measured(
                p.every_shadow[s],
                p.every_shadow[others],
                p.every_member[others],
                target=evidence.calibration_mask[s],
            ),
            p.every_member[s][evidence.calibration_mask[s]],
        )


@pytest.mark.parametrize("online", [False, True])
def test_the_ratios_settings_that_are_chosen_have_the_largest_mean_area_over_the_shadows(online):
    evidence, areas = rmia_evidence(0, n=100, shadows=8, online=online), {}
    assert rmia.SETTINGS_GRID["a"] == pytest.approx(np.arange(11) / 10)
    for temperature, trim, a in itertools.product(
        (1.0, 2.0), (0.0, 0.2), (0.5,) if online else rmia.SETTINGS_GRID["a"]
    ):
        found = []
        for role, member in roles_of(evidence, temperature):
            ratios = [
                r
                for r, here in zip(rmia_ratios(role, a=a, online=online, trim=trim), role.target)
                if here
            ]
            known = np.array([r is not None for r in ratios])
            found.append(pair_count(np.array(ratios)[known].astype(float), member[known]))
        areas[temperature, trim, a] = np.mean(found)
    chosen = rmia.choose(evidence, {})
    key = chosen.temperature, chosen.trim, 0.5 if online else chosen.a
    assert (
        areas[key] == pytest.approx(max(areas.values()), abs=1e-12) and len(set(areas.values())) > 3
    )


@pytest.mark.parametrize("online", [False, True])
def test_the_gamma_that_is_chosen_has_the_best_threshold_of_all_shadows_together(online):
    evidence, rates = rmia_evidence(3, shadows=8, online=online), {}
    given = {"temperature": 2.0, "trim": 0.0} | ({} if online else {"a": 0.4})
    for gamma, a in itertools.product((1.0, 2.0), rmia.SETTINGS_GRID["a"] if online else (0.4,)):
        parts = [
            (rmia.score(role, settings_of(a, gamma), online=online), member)
            for role, member in roles_of(evidence, 2.0)
        ]
        scores, member = map(np.concatenate, zip(*parts))
        scores, member = scores[~np.isnan(scores)], member[~np.isnan(scores)]
        rates[gamma, a] = max(
            ((scores[member] >= limit).mean() + (scores[~member] < limit).mean()) / 2
            for limit in scores
        )
    chosen = rmia.choose(evidence, given)
    assert rates[chosen.gamma, chosen.a] == pytest.approx(max(rates.values()), abs=1e-12)
    assert len(set(rates.values())) > 1


def evidence_made_for(
    *, a=None, temperature=1.0, wild=False, online=False, seed=0, n=4000, shadows=10
):
    """Evidence in which one setting is best by construction.

    `a`: what a non-member's posterior would be with the record is just a p + 1 - a, and records differ in p. `wild`:
    every tenth answer of a shadow, at random, is far off, so that means without trimming are spoilt.
    """
    draw = np.random.default_rng(seed)
    target = np.arange(n) < n // 2
    member = paired_member(draw, shadows, n) & (target == online)
    truth = (draw.random(n) < 0.5) & target
    base = draw.uniform(0.02, 0.98, n)

    def phi(member):
        p = np.where(member, a * base + 1 - a, base)
        noisy = np.log(p / (1 - p)) + 0.3 * draw.normal(size=n)
        return np.where(wild & (draw.random(n) < 0.1), draw.choice([-15, 15], size=n), noisy)

    return odds_evidence(
        phi(truth),
        np.stack([phi(one) for one in member]),
        member,
        target=target,
        calibration_mask=np.tile(target == online, (shadows, 1)),
    ), truth[target]


@pytest.mark.parametrize("a", [0.2, 0.5, 0.8])
def test_the_a_by_which_models_remember_is_found(a):
    evidence, truth = evidence_made_for(a=a)
    chosen = attack("rmia", evidence, rmia_temperature=1.0)["rmia"]
    assert chosen.chosen["a"] == pytest.approx(a, abs=0.21) and set(chosen.chosen) == {
        "a",
        "gamma",
        "trim",
    }
    far = 1.0 if a < 0.5 else 0.0
    other = attack("rmia", evidence, rmia_temperature=1.0, rmia_a=far)["rmia"]
    assert auc(chosen.scores, truth) > auc(other.scores, truth)


@pytest.mark.parametrize("online", [False, True])
def test_trimming_is_chosen_where_shadows_answer_wildly(online):
    evidence, truth = evidence_made_for(a=0.5, wild=True, online=online, n=2000, shadows=20)
    found = attack("rmia", evidence)["rmia"]
    assert found.chosen["trim"] == 0.2
    assert auc(found.scores, truth) > auc(
        attack("rmia", evidence, rmia_trim=0)["rmia"].scores, truth
    )


@pytest.mark.parametrize("online", [False, True])
def test_the_rmia_attack_scores_its_targets_by_the_formula(online):
    evidence = rmia_evidence(1, shadows=8, online=online)
    for options, temperature, trim, a, gamma in [
        ({"rmia_a": "paper", "rmia_gamma": 2, "rmia_temperature": 2, "rmia_trim": 0}, 2, 0, 0.3, 2),
        (
            {"rmia_a": 0.7, "rmia_gamma": 1.0, "rmia_temperature": 1, "rmia_trim": 0.2},
            1,
            0.2,
            0.7,
            1,
        ),
    ]:
        found = attack("rmia", evidence, **options)["rmia"]
        p = evidence.measure(partial(rmia.true_posterior, temperature=temperature))
        share = rmia_score(p, a=a, gamma=gamma, online=online, trim=trim)
        assert (
            found.scores == pytest.approx(share, abs=1.0001 / 80, nan_ok=True)
            and found.chosen == {}
        )
    free = attack("rmia", evidence)["rmia"]
    assert set(free.chosen) == {"a", "gamma", "temperature", "trim"}
    fixed = {f"rmia_{name}": value for name, value in free.chosen.items()}
    assert same(free, attack("rmia", evidence, **fixed)["rmia"])


@pytest.mark.parametrize(
    "x, a", [(np.zeros((160, 3), np.float32), 0.2), (np.zeros((160, 1, 4, 4), np.uint8), 0.3)]
)
def test_the_papers_a_is_another_for_tables_than_for_images(x, a):
    known, draw = rmia_evidence(2), np.random.default_rng(0)
    p = draw.dirichlet([1, 1], size=(6, 160))
    evidence = Evidence.from_posteriors(
        known.labels,
        victim=p[0],
        shadows=p[1:],
        member=known.member,
        target=known.target,
        calibration_mask=known.calibration_mask,
        x=x,
    )
    paper = attack("rmia", evidence, rmia_a="paper")["rmia"]
    assert same(paper, attack("rmia", evidence, rmia_a=a)["rmia"])
    assert not same(paper, attack("rmia", evidence, rmia_a=0.5 - a)["rmia"])


def test_rmia_does_not_choose_by_the_victim():
    evidence = rmia_evidence(4, shadows=8)
    other = Evidence(**vars(evidence) | {"victim": Signals(evidence.victim.logits[::-1].copy())})
    one, two = (attack("rmia", of)["rmia"] for of in (evidence, other))
    assert (
        one.chosen == two.chosen
        and one.threshold != pytest.approx(0)
        and not (one.scores == two.scores).all()
    )


@pytest.mark.parametrize(
    "name, value",
    [
        ("a", 1.1),
        ("a", "papers"),
        ("a", None),
        ("gamma", 0),
        ("gamma", math.nan),
        ("temperature", -1),
        ("temperature", math.inf),
        ("trim", 0.5),
        ("trim", "x"),
    ],
)
def test_a_setting_of_rmia_out_of_its_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"rmia_{name} must be a number .* not {value!r}"):
        attack("rmia", rmia_evidence(), **{f"rmia_{name}": value})


# ---- QMIA ------------------------------------------------------------------------------------------------------------


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
    assert float(head.criterion(outputs, y)) == pytest.approx(
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
    assert same(verdict, again) and not same(verdict, attack("qmia", evidence, seed=1)["qmia"])


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


# ---- BlindMI ---------------------------------------------------------------------------------------------------------


def kernel_of_points(p, q):
    """The sum of Gaussian kernels of BlindMIUtil.py, point by point."""
    distance = sum((a - b) ** 2 for a, b in zip(p, q))
    sigmas = [10.0**power for power in range(-6, 7) if power != 1] + [5, 10, 15, 20, 25, 30, 35]
    assert len(sigmas) == 19
    return math.fsum(math.exp(-distance / (2 * sigma)) for sigma in sigmas)


def mmd_of_points(kernel, ins, outs):
    """Biased squared MMD of points of these numbers as a double sum over pairs, each with itself too; at least 1e-4.

    NaN where there are no points on one side.
    """
    if not ins or not outs:
        return math.nan

    def mean(one, other):
        return math.fsum(kernel[p][q] for p in one for q in other) / len(one) / len(other)

    return max(mean(ins, ins) + mean(outs, outs) - 2 * mean(ins, outs), 1e-4)


def width_of_points(points):
    pairs = [(p, q) for i, p in enumerate(points) for j, q in enumerate(points) if i != j]
    return sum((a - b) ** 2 for p, q in pairs for a, b in zip(p, q)) / len(pairs)


def members_by_brute_force(batch, outside, *, at_once=True, one_kernel=False):
    """BlindMI-Diff-w from its description, and in how many sweeps: the distance is summed anew for every trial.

    Every trial is of the sets before the sweep, and the non-members are the same in every sweep; unless `at_once` is
    False, where whoever leaves does so before the next trial, and joins the non-members.
    """
    points = [*batch, *outside]
    if one_kernel:
        width = width_of_points(points)
        kernel = [
            [math.exp(-sum((a - b) ** 2 for a, b in zip(p, q)) / width) for q in points]
            for p in points
        ]
    else:
        kernel = [[kernel_of_points(p, q) for q in points] for p in points]
    inside, outs, sweeps = list(range(len(batch))), list(range(len(batch), len(points))), 0
    while True:
        before, leave = list(inside), []
        for i in before:
            without = [j for j in inside if j != i]
            if mmd_of_points(kernel, without, outs + [i]) > mmd_of_points(kernel, inside, outs):
                leave.append(i)
                if not at_once:
                    inside, outs = without, outs + [i]
        if not leave:
            return np.isin(np.arange(len(batch)), inside), sweeps
        inside, sweeps = [i for i in before if i not in leave], sweeps + 1


def points_near_two_corners(draw, *shape):
    """Points (*shape, 3), half of them in a dense cloud, the other half scattered."""
    dense = draw.random(shape) < 0.5
    return np.where(
        dense[..., None],
        0.9 + 0.02 * draw.normal(size=(*shape, 3)),
        draw.dirichlet([1, 1, 1], size=shape),
    )


def test_the_kernel_equals_its_sum_point_by_point():
    draw = np.random.default_rng(0)
    points = draw.random((2, 5, 3)) * np.logspace(-4, 0, 5)[:, None]
    exact = [[[kernel_of_points(p, q) for q in batch] for p in batch] for batch in points]
    squares = ((points[:, :, None] - points[:, None]) ** 2).sum(axis=3)
    assert blindmi.summed(squares) == pytest.approx(np.array(exact), rel=1e-12)


def test_kernels_worked_by_hand():
    # exponents of a squared distance of 2e-3: 1000, 100, 10, 1, .1, .01, .001, then 1e-3 / sigma of 5 to 1e6
    small = sum(
        math.exp(-1e-3 / sigma) for sigma in (5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6)
    )
    exact = (
        math.exp(-100)
        + math.exp(-10)
        + math.exp(-1)
        + math.exp(-0.1)
        + math.exp(-0.01)
        + math.exp(-0.001)
        + small
    )
    found = blindmi.summed(np.array([[[0, 2e-3], [2e-3, 0]]]))
    assert found[0] == pytest.approx(np.array([[19, exact], [exact, 19]]), rel=1e-12)
    # of three points, mean squared distance (1 + 2 + 6) / 3 = 3
    found = blindmi.scaled(np.array([[[0, 1, 2], [1, 0, 6], [2, 6, 0]]]))
    exact = np.exp(-np.array([[0, 1, 2], [1, 0, 6], [2, 6, 0]]) / 3)
    assert found[0] == pytest.approx(exact, rel=1e-12)
    assert (blindmi.scaled(np.zeros((1, 4, 4))) == 1).all()


@pytest.mark.parametrize("kernel", [blindmi.summed, blindmi.scaled])
@pytest.mark.parametrize("seed", range(4))
def test_members_are_those_that_sweeps_over_raw_points_leave(seed, kernel):
    draw = np.random.default_rng(seed)
    batches, outside = points_near_two_corners(draw, 12, 9), draw.dirichlet([1, 1, 1], size=6)
    found = blindmi.members_among(batches, outside, kernel)
    one_kernel = kernel is blindmi.scaled
    exact, sweeps = zip(
        *(members_by_brute_force(batch, outside, one_kernel=one_kernel) for batch in batches)
    )
    assert (found == np.array(exact)).all() and 0 < found.sum() < found.size
    assert max(sweeps) > 1  # so that what the non-members are in a later sweep matters


def test_non_members_leave_at_once_and_not_one_after_the_other():
    draw = np.random.default_rng(0)
    batches, outside = points_near_two_corners(draw, 12, 9), draw.dirichlet([1, 1, 1], size=6)
    leave_one_out = [members_by_brute_force(batch, outside, at_once=False)[0] for batch in batches]
    assert (blindmi.members_among(batches, outside) != np.array(leave_one_out)).any()


def test_two_clusters_are_told_apart_exactly():
    draw = np.random.default_rng(1)
    truth = draw.permuted(np.tile(np.arange(20) < 12, (50, 1)), axis=1)
    batches = np.where(truth[..., None], [0.98, 0.98, 0.01], [0.4, 0.5, 0.4]) + 0.01 * draw.normal(
        size=(50, 20, 3)
    )
    outside = np.array([0.4, 0.5, 0.4]) + 0.01 * draw.normal(size=(20, 3))
    assert (blindmi.members_among(batches, outside) == truth).mean() > 0.99


@pytest.mark.parametrize("point", [0.0, 1 / 3, 1.0])
@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.filterwarnings("error")
def test_points_that_are_all_equal_stay_members(point, count):
    """Their distance is 0 wherever they are, and rounding is below the least distance that counts."""
    found = blindmi.members_among(np.full((1, count, 3), point), np.full((20, 3), point))
    assert found.shape == (1, count) and found.dtype == bool and found.all()


@pytest.mark.filterwarnings("error")
def test_all_of_a_batch_may_leave_but_never_one_alone():
    """With two points, either would by itself leave the other farther away: both leave, and nobody is a member."""
    outside = np.zeros((20, 3))
    pair = np.array([[0.5, 0.5, 0.5], [0.5, -0.5, -0.5]])
    exact, _ = members_by_brute_force(pair, outside)
    assert (blindmi.members_among(pair[None], outside)[0] == exact).all() and not exact.any()
    assert blindmi.members_among(pair[None, :1], outside).tolist() == [[True]]


def test_features_are_the_true_classes_posterior_and_the_two_largest():
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    found = blindmi.features(Signals.from_posteriors(p), np.array([0, 0]))
    assert found == pytest.approx(np.array([[0.1, 0.6, 0.3], [0.5, 0.5, 0.3]]))


def blindmi_evidence(n=93, order=None):
    """Of n targets behind 60 others, a third of them with posteriors next to 1; and who they are."""
    draw = np.random.default_rng(2)
    sure = np.arange(n + 60) % 3 == 0
    p = draw.dirichlet([2] * 4, size=n + 60)
    rest = (
        0.1 * draw.random((n + 60, 1)) ** 3
    )  # few of them are far from 1: it depends on the batch who stays
    p = np.where(sure[:, None], (1 - rest) * (p == p.max(axis=1, keepdims=True)) + rest * p, p)
    labels, order = p.argmax(axis=1), np.arange(n + 60) if order is None else order
    made = draw.dirichlet([2] * 4, size=20), np.arange(20) % 4
    target = np.arange(n + 60) >= 60
    evidence = Evidence.from_posteriors(
        labels[order],
        victim=p[order],
        shadows=p[None, order],
        member=[~target],
        target=target,
        generated=made,
    )
    return evidence, sure[order][60:]


@pytest.mark.parametrize("name", ["blindmi", "blindmi_scaled"])
def test_blindmi_deals_the_targets_to_batches_of_twenty_by_the_seed(name):
    evidence, _ = blindmi_evidence()
    verdict = attack(name, evidence, seed=5)[name]
    points = blindmi.features(evidence.victim, evidence.labels)[60:]
    order = np.random.default_rng((5, *b"blindmi")).permutation(93)
    assert (order != np.arange(93)).sum() > 60
    exact = np.zeros(93, bool)
    for at in range(0, 93, 20):
        batch = order[at : at + 20]
        exact[batch], _ = members_by_brute_force(
            points[batch],
            blindmi.features(*evidence.generated),
            one_kernel=name == "blindmi_scaled",
        )
    assert (verdict.member == exact).all() and set(verdict.scores) == {0.0, 1.0}
    again, *others = (attack(name, evidence, seed=seed)[name].scores for seed in (5, 6, 7, 8, 9))
    assert (again == verdict.scores).all() and (np.array(others) != again).any()


@pytest.mark.parametrize("batches", [1, 2, 1000])
def test_blindmi_says_the_same_however_many_batches_are_in_memory(batches, monkeypatch):
    evidence, _ = blindmi_evidence()
    whole = attack("blindmi", evidence)["blindmi"].scores
    monkeypatch.setattr(blindmi, "BATCHES", batches)
    assert (attack("blindmi", evidence)["blindmi"].scores == whole).all()


def test_blindmi_finds_the_same_where_records_are_sorted():
    """Among twenty of one kind nobody stands out; dealt by the seed, batches have both kinds, sorted or not."""
    n = 1500
    _, sure = blindmi_evidence(n)
    by_kind = 60 + np.argsort(~sure, kind="stable")
    agreement = []
    for order in (None, np.concatenate([np.arange(60), by_kind])):
        evidence, truth = blindmi_evidence(n, order)
        agreement.append(balanced_accuracy(attack("blindmi", evidence)["blindmi"].member, truth))
    assert min(agreement) > 0.85 and abs(agreement[0] - agreement[1]) < 0.03
    points, outside = (
        blindmi.features(evidence.victim, evidence.labels)[60:],
        blindmi.features(*evidence.generated),
    )
    unshuffled = blindmi.members_among(
        points.reshape(-1, 20, 3), outside
    ).ravel()  # the last order: sorted
    assert balanced_accuracy(unshuffled, truth) < agreement[1] - 0.05


@pytest.mark.parametrize("count", [1, 19, 20, 21])
def test_blindmi_judges_every_target_however_many_there_are(count):
    evidence, _ = blindmi_evidence(count)
    scores = attack("blindmi", evidence)["blindmi"].scores
    assert scores.shape == (count,) and np.isin(scores, [0, 1]).all()


def test_the_sobel_gradient_of_a_step_edge_worked_by_hand():
    # (1, 2, 1) across an edge of height 10 adds up to 40 in the two columns next to it, and nothing else: half is 20
    step = np.zeros((1, 2, 5, 6), np.uint8)
    step[0, 0, :, 3:] = 10
    step[0, 1, 2:, :] = 100  # 400, cut off at 255, half of it rounded to the even 128
    found = blindmi.sobel(step)
    assert found.dtype == np.uint8 and found.shape == step.shape
    assert found[0, 0].tolist() == [[0, 0, 20, 20, 0, 0]] * 5
    assert found[0, 1].tolist() == [[0] * 6, [128] * 6, [128] * 6, [0] * 6, [0] * 6]


def test_the_sobel_gradient_adds_both_directions():
    corner = np.zeros((1, 1, 5, 5), np.uint8)
    corner[0, 0, 2:, 2:] = 8
    # at its upper left pixel: across 8 (2 + 1) = 24, down 8 (2 + 1) = 24; half of each
    assert blindmi.sobel(corner)[0, 0, 2, 2] == 24


def test_the_sobel_gradient_equals_opencvs():
    """Sobel, convertScaleAbs and addWeighted of OpenCV 5.0.0, as the authors call them; cut off in one corner."""
    image = [[34, 4, 24, 1, 250], [21, 38, 9, 26, 25], [26, 11, 23, 17, 14], [5, 10, 16, 4, 22]]
    exact = [[0, 22, 15, 128, 0], [1, 21, 21, 227, 128], [44, 36, 21, 22, 25], [0, 8, 0, 3, 0]]
    assert blindmi.sobel(np.array([[image]], np.uint8))[0, 0].tolist() == exact


def numbered(x, mean=None):
    """Records whose label is their number, which tells of what they were made."""
    return Records(torch.from_numpy(x), torch.arange(len(x)), len(x), mean, mean)


def test_generated_rows_of_a_binary_table_have_a_tenth_of_their_entries_flipped():
    draw = np.random.default_rng(0)
    records = numbered((draw.random((200, 400)) < 0.3).astype(np.uint8))
    made = blindmi.generate(records, np.arange(100, 200), seed=0)
    assert made.x.dtype == torch.uint8 and set(made.x.unique().tolist()) == {0, 1}
    assert len(made) == 20 and made.y.min() >= 100
    flipped = (made.x != records.x[made.y]).float().mean()
    assert abs(flipped - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 8000)


def test_generated_images_are_gradients_of_their_own_shape():
    x = np.random.default_rng(0).integers(256, size=(30, 3, 8, 8), dtype=np.uint8)
    records = numbered(x, (0.5,) * 3).to("cpu")  # channels last, as models like them
    made = blindmi.generate(records, np.arange(30), seed=0)
    assert (
        made.x.dtype == torch.uint8 and made.x.shape == (20, 3, 8, 8) and made.mean == records.mean
    )
    assert (made.x.numpy() == blindmi.sobel(x[made.y])).all()


def test_generated_rows_of_another_table_have_noise_of_each_columns_spread():
    draw = np.random.default_rng(0)
    scale = np.array([0.1, 1, 50, 0])
    records = numbered((draw.normal(size=(400, 4)) * scale + 3).astype(np.float32))
    noise = []
    for seed in range(30):
        made = blindmi.generate(records, np.arange(400), seed=seed)
        assert made.x.dtype == torch.float32 and made.x.isfinite().all()
        noise.append((made.x - records.x[made.y]).numpy())
    noise = np.concatenate(noise).astype(float)
    assert noise.std(axis=0) == pytest.approx(scale, rel=0.15, abs=1e-4)
    assert np.abs(noise.mean(axis=0)) == pytest.approx([0] * 4, abs=6 * 50 / math.sqrt(600))


def test_a_record_made_of_an_image_has_nothing_of_another_image():
    """Nor of another channel: what is made of one channel of one image is made of it where it is alone, too."""
    images = np.random.default_rng(0).integers(256, size=(3, 2, 8, 8), dtype=np.uint8) // 8
    alone = blindmi.sobel(images[1:2, 1:2])
    assert (blindmi.sobel(images)[1:2, 1:2] == alone).all()


@pytest.mark.parametrize(
    "x",
    [
        np.eye(30, dtype=np.uint8),
        np.random.default_rng(0).normal(size=(30, 5)).astype("f4"),
        np.arange(30 * 16, dtype=np.uint16).astype(np.uint8).reshape(30, 1, 4, 4),
    ],
)
def test_what_is_generated_is_the_seeds(x):
    records = numbered(x, (0.5,) if x.ndim == 4 else None)
    one, same_seed, other = (
        blindmi.generate(records, np.arange(30), seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(one.x, same_seed.x) and torch.equal(one.y, same_seed.y)
    assert not torch.equal(one.y, other.y)


def test_records_are_drawn_with_replacement():
    """Of 40 records, twenty draws hit 40 (1 - (39 / 40)^20) = 15.9 different ones on average; of 7 there are twenty."""
    records = numbered(np.eye(40, dtype=np.uint8))
    different = [
        len(blindmi.generate(records, np.arange(40), seed=seed).y.unique()) for seed in range(200)
    ]
    assert np.mean(different) == pytest.approx(40 * (1 - (39 / 40) ** 20), abs=0.4)
    few = blindmi.generate(numbered(np.eye(7, dtype=np.uint8)), np.arange(7), seed=0)
    assert len(few) == 20 and set(few.y.tolist()) <= set(range(7))


# ---- arrays alone ----------------------------------------------------------------------------------------------------


def arrays(online, *, n=120, num_cls=3, shadows=8, labels=np.int64):
    draw = np.random.default_rng(11)
    target = np.arange(n) < n // 2
    member = balanced_member(draw, shadows, n) & (target == online)
    return dict(
        labels=draw.integers(num_cls, size=n).astype(labels),
        victim=draw.dirichlet([1] * num_cls, size=n),
        shadows=draw.dirichlet([1] * num_cls, size=(shadows, n)),
        member=member,
        target=target,
        x=draw.normal(size=(n, 5)).astype(np.float32),
        generated=(draw.dirichlet([1] * num_cls, size=20), np.arange(20) % num_cls),
    )


@pytest.mark.parametrize(
    "name, online", [(name, online) for name in ATTACKS for online in (False, True)]
)
@pytest.mark.filterwarnings("error")
def test_an_attack_takes_arrays_and_no_options(name, online, short_training):
    evidence = Evidence.from_posteriors(**arrays(online))
    assert evidence.online == online
    if name == "samia" or name == "lira_online" and not online:
        with pytest.raises(UserError):
            attack(name, evidence)
        return
    found = attack(name, evidence)
    assert list(found) == list(ATTACKS[name].options.get("reports", [name]))
    for verdict in found.values():
        assert (
            verdict.scores.shape == verdict.member.shape == (60,)
            and np.isfinite(verdict.scores).all()
        )
        assert np.shape(verdict.threshold) in {(), (60,)} and np.isfinite(verdict.threshold).all()
        assert (verdict.member == (verdict.scores >= verdict.threshold)).all()


@pytest.mark.parametrize(
    "name, kind",
    [
        (name, kind)
        for name in ATTACKS
        if name not in ("samia", "lira_online")
        for kind in (np.int32, np.uint8)
    ],
)
def test_labels_may_be_integers_of_any_kind(name, kind, short_training):
    wide, narrow = (
        attack(name, Evidence.from_posteriors(**arrays(False, labels=labels)))
        for labels in (np.int64, kind)
    )
    for verdict in wide:
        assert wide[verdict].scores == pytest.approx(narrow[verdict].scores)


@pytest.mark.parametrize("name", ["nn", "qmia"])
def test_an_attack_that_trains_is_the_seeds(name, short_training):
    evidence = Evidence.from_posteriors(**arrays(False))
    one, again, other = (attack(name, evidence, seed=seed)[name] for seed in (0, 0, 1))
    assert same(one, again) and not same(one, other)


@pytest.mark.parametrize(
    "what, wrong",
    [
        ("victim", np.log(FITTING["victim"] + 1e-9)),
        ("shadows", FITTING["shadows"] * 9),
        ("victim", np.where(np.arange(N)[:, None] == 3, np.nan, FITTING["victim"])),
        ("member", np.zeros((S, N), bool)),
    ],
)
def test_what_is_no_posterior_of_a_shadow_model_is_refused(what, wrong):
    with pytest.raises(ValueError, match="posteriors|no shadow model was trained"):
        Evidence.from_posteriors(**FITTING | {what: wrong})


def test_an_option_that_an_attack_does_not_have_is_refused():
    evidence = Evidence.from_posteriors(**arrays(True))
    for name, wrong in (("lira", "fix_varianc"), ("loss", "fix_variance"), ("rmia", "gamma")):
        with pytest.raises(TypeError, match=f"{name} has no option {wrong}"):
            attack(name, evidence, **{wrong: 1})
