"""Differences between releases: each data set by brute force, intervals beside DeLong's and in simulations."""

from dataclasses import replace

import numpy as np
import pytest
from answers_cases import result_of
from scipy.stats import norm, rankdata

from attackers import metrics
from auditing.paired import MEASURES, _Ranked, compare, resamplings


def drawn(seed, n=900, *, rounded=None, gains=(0.8, 0.5), threshold=None):
    """Two releases' scores on the same records, which share half of their noise."""
    draw = np.random.default_rng(seed)
    member, common = draw.random(n) < 0.4, draw.normal(size=n)
    scores = [common + draw.normal(size=n) + 2 * gain * member for gain in gains]
    if rounded is not None:
        scores = [one.round(rounded) for one in scores]
    released, original = (
        result_of(one, member, release=release, threshold=threshold)
        for one, release in zip(scores, ("released", "original"))
    )
    return released, original, member


@pytest.mark.parametrize("rounded", [None, 1, 0])
@pytest.mark.parametrize("n", [40, 700])
def test_a_weighted_data_set_is_measured_as_one_with_its_records_repeated(n, rounded):
    released, _, member = drawn(1, n=n, rounded=rounded)
    ranked = _Ranked.of(released, member)
    for weights in resamplings(member, times=20, seed=3):
        found = ranked.measured(weights)
        for row, one in enumerate(weights.astype(int)):
            chosen = np.repeat(np.arange(n), one)
            truth, scores = member[chosen], released.scores[chosen]
            expected = (
                metrics.balanced_accuracy(released.called[chosen], truth),
                metrics.auc(scores, truth),
                metrics.tpr_at_fpr(scores, truth, limit=0.01),
            )
            assert [found[name][row] for name in MEASURES] == pytest.approx(expected, abs=1e-12)


def test_data_sets_have_as_many_of_either_kind_and_are_the_seed_s():
    member = np.arange(1000) < 300
    pieces = list(resamplings(member, times=1300, seed=0))
    weights = np.concatenate(pieces)
    assert len(pieces) > 1 and weights.shape == (1300, 1000)
    assert (weights[:, member].sum(axis=1) == 300).all()
    assert (weights[:, ~member].sum(axis=1) == 700).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(1000), abs=0.15)
    again = np.concatenate(list(resamplings(member, times=1300, seed=0)))
    other = np.concatenate(list(resamplings(member, times=1300, seed=1)))
    assert np.array_equal(weights, again) and not np.array_equal(weights, other)


def delong_difference(released, original, member):
    """The standard error of a paired difference of AUCs (DeLong et al. 1988), from its definition."""
    of_records = []
    for one in (released, original):
        ranks = rankdata(one.scores)
        of_records.append(
            [
                (ranks[group] - rankdata(one.scores[group])) / (~group).sum()
                for group in (member, ~member)
            ]
        )
    differences = [a - b for a, b in zip(*of_records)]
    return np.sqrt(sum(one.var(ddof=1) / len(one) for one in differences))


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_an_auc_s_difference_is_delong_s(seed):
    released, original, member = drawn(seed, n=2000)
    found = {one.measure: one for one in compare([released, original], member, seed=0)}["auc"]
    assert found.difference.value == released.measures["auc"] - original.measures["auc"]
    half = norm.ppf(0.975) * delong_difference(released, original, member)
    ends = found.difference.value - half, found.difference.value + half
    assert (found.difference.low, found.difference.high) == pytest.approx(ends, abs=0.15 * half)
    alone = np.hypot(
        *(np.diff(one.measures["auc_interval"])[0] / 2 for one in (released, original))
    )
    assert half < 0.9 * alone  # unpaired it would be wider


@pytest.mark.slow
def test_the_intervals_of_differences_cover():
    gains, inside = (0.8, 0.5), {name: 0 for name in MEASURES}
    shifts = [2 * gain / np.sqrt(2) for gain in gains]  # in units of the noise's deviation
    true = {
        "accuracy": np.subtract(*(norm.cdf(shift) / 2 for shift in shifts)),
        "auc": np.subtract(*(norm.cdf(shift / np.sqrt(2)) for shift in shifts)),
        "tpr_at_0.01": np.subtract(*(norm.sf(norm.isf(0.01) - shift) for shift in shifts)),
    }
    for seed in range(100):
        released, original, member = drawn(seed, n=2600, gains=gains, threshold=0.0)
        for one in compare([released, original], member, seed=seed, times=200):
            inside[one.measure] += one.difference.low <= true[one.measure] <= one.difference.high
    assert all(88 <= count <= 99 for count in inside.values()), inside


def test_what_is_measured_on_both_is_compared_and_nothing_else():
    released, original, member = drawn(0)
    both = replace(released, name="lira_joint", release="both")
    lone = replace(released, name="loss")
    found = compare([released, original, both, lone], member, seed=0, times=50)
    assert {(one.attack, one.measure) for one in found} == {
        ("lira", "accuracy"),
        ("lira", "auc"),
    }  # too few non-members for the TPR
    without = replace(released, called=None, measures=released.measures | {"accuracy": None})
    found = compare([without, original], member, seed=0, times=50)
    assert [one.measure for one in found] == ["auc"]
    assert compare([released], member, seed=0) == []


def test_releases_that_are_alike_do_not_differ():
    released, _, member = drawn(0)
    found = compare([released, replace(released, release="original")], member, seed=0, times=50)
    assert all((one.difference.low, one.difference.high) == (0, 0) for one in found)
