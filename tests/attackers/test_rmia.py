"""RMIA: against the formula record by record, and the choice of its settings."""

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from attack_cases import (
    balanced_member,
    logits_and_labels,
    measured,
    odds_evidence,
    paired_member,
    random_measured,
    same_verdict,
)
from scipy.stats import trim_mean

from attackers import Evidence, attack, rmia
from attackers.metrics import auc
from attackers.signals import Signals
from attackers.statistic import mean_where


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


@pytest.mark.slow
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


def evidence_made_for(  # many parameters: tests set one or two of them
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
    assert same_verdict(free, attack("rmia", evidence, **fixed)["rmia"])


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
    assert same_verdict(paper, attack("rmia", evidence, rmia_a=a)["rmia"])
    assert not same_verdict(paper, attack("rmia", evidence, rmia_a=0.5 - a)["rmia"])


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
