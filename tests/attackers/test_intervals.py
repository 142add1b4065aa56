"""Confidence intervals: against their definitions, and how often they cover in simulations."""

import math

import numpy as np
import pytest
from metric_cases import SEEDS, by_pairs, some, tied
from scipy.stats import beta, binom, binomtest, norm

from attackers import metrics


@pytest.mark.parametrize("n", [1, 7, 100, 4321])
def test_the_interval_of_a_rate_is_that_of_clopper_and_pearson(n):
    for k in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        found = binomtest(k, n).proportion_ci(0.95, method="exact")
        assert metrics.clopper_pearson(k, n) == pytest.approx(
            [found.low, found.high], rel=1e-6, abs=1e-9
        )


def test_intervals_of_a_rate_worked_by_hand():
    """Of 0 in n: 1 - .025^(1/n); between two whole numbers of successes, between their intervals."""
    assert metrics.clopper_pearson(0, 20) == pytest.approx([0, 1 - 0.025 ** (1 / 20)])
    assert metrics.clopper_pearson(20, 20) == pytest.approx([0.025 ** (1 / 20), 1])
    ends = np.array([metrics.clopper_pearson(k, 20) for k in (3, 3.5, 4)])
    assert (np.diff(ends, axis=0) > 0).all()


def test_intervals_of_an_accuracy_worked_by_hand():
    """Of 5 + 5 records, all right: both rates have [.025^(1/5), 1], so the lower end is 1 - sqrt(2) (1 - .4782) / 2."""
    member = np.arange(10) < 5
    assert metrics.accuracy_interval(member, member) == pytest.approx(
        [1 - 0.5218 / math.sqrt(2), 1], abs=1e-4
    )
    assert metrics.accuracy_interval(~member, member) == pytest.approx(
        [0, 0.5218 / math.sqrt(2)], abs=1e-4
    )
    # 3 of 4 and 2 of 2: [.1941, .9937] and [.1581, 1]
    decision, member = np.array([1, 1, 1, 0, 0, 0], bool), np.arange(6) < 4
    low = 0.875 - math.hypot(0.75 - 0.1941, 1 - 0.1581) / 2
    assert metrics.accuracy_interval(decision, member) == pytest.approx(
        [low, 0.875 + 0.2437 / 2], abs=1e-4
    )


def variance_by_pairs(scores, member):
    """DeLong's variance from its definition: the spread of each record's mean over its pairs."""
    wins = np.array([[(m > o) + (m == o) / 2 for o in scores[~member]] for m in scores[member]])
    return wins.mean(axis=1).var(ddof=1) / len(wins) + wins.mean(axis=0).var(ddof=1) / wins.shape[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_delongs_area_and_variance_equal_those_over_pairs(seed):
    scores, member = tied(seed)
    if 2 <= member.sum() <= len(member) - 2:
        assert metrics.delong(scores, member) == pytest.approx(
            (by_pairs(scores, member), variance_by_pairs(scores, member)), abs=1e-12
        )


def test_delongs_variance_is_that_of_the_areas_of_many_data_sets():
    draw, member = np.random.default_rng(0), np.arange(150) < 60
    areas, variances = zip(
        *(metrics.delong(draw.normal(size=150) + 0.8 * member, member) for _ in range(1500))
    )
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.12)


def test_intervals_of_an_area_worked_by_hand():
    """Where all pairs are in order, that of as many successes as twice the smaller group has records."""
    member = np.arange(15) < 5
    assert metrics.auc_interval(member.astype(float), member) == pytest.approx(
        [0.025 ** (1 / 10), 1]
    )
    assert metrics.auc_interval(-1.0 * member, member) == pytest.approx([0, 1 - 0.025 ** (1 / 10)])
    # members 1, 3 and non-members 0, 2: AUC 3/4; shares of pairs 1/2, 1 and 1, 1/2: variance 2 (1/8) / 2 = 1/8
    scores, member = np.array([1.0, 3, 0, 2]), np.arange(4) < 2
    trials = 0.75 * 0.25 / 0.125
    expected = [
        beta.ppf(0.025, 0.75 * trials, 0.25 * trials + 1),
        beta.ppf(0.975, 0.75 * trials + 1, 0.25 * trials),
    ]
    assert metrics.auc_interval(scores, member) == pytest.approx(expected)
    assert metrics.auc_interval(np.array([1.0, 0.0]), np.array([True, False])) == pytest.approx(
        [0.025**0.5, 1]
    )


def test_the_interval_of_an_area_of_many_records_is_delongs():
    draw, member = np.random.default_rng(1), np.arange(8000) < 4000
    scores = draw.normal(size=8000) + member
    half = norm.ppf(0.975) * math.sqrt(metrics.delong(scores, member)[1])
    found = metrics.auc_interval(scores, member)
    assert found == pytest.approx(
        [metrics.auc(scores, member) + sign * half for sign in (-1, 1)], abs=0.04 * half
    )


def members_above(scores, member, above):
    """How many members lie above a threshold with so many non-members above: the mean of most and least."""
    members, others = (
        sorted(scores[member]),
        [math.inf, *sorted(scores[~member], reverse=True), -math.inf],
    )
    most = sum(m > others[above + 1] for m in members) if above < len(others) - 2 else len(members)
    least = sum(m >= others[above] for m in members) if others[above] > others[above + 1] else most
    return (least + most) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_the_threshold_s_distribution_equals_a_count_for_each_number_of_non_members(seed):
    scores, member = tied(seed)
    for limit in (0.02, 0.3):
        weights, counts = metrics.threshold_distribution(scores, member, limit=limit)
        n, expected = int((~member).sum()), {}
        for above in range(n + 1):
            at = members_above(scores, member, above)
            expected[at] = expected.get(at, 0.0) + math.comb(n, above) * limit**above * (
                1 - limit
            ) ** (n - above)
        found = dict(zip(counts.tolist(), weights.tolist()))
        assert found.keys() <= expected.keys()
        for count, share in expected.items():
            assert found.get(count, 0.0) == pytest.approx(share, abs=1e-7)


@pytest.mark.slow
def test_the_interval_of_a_tpr_is_that_of_a_resampling():
    """The threshold and the members are drawn ten thousand times, as the mixture says, one by one."""
    draw, member = np.random.default_rng(2), np.arange(700) < 300
    scores = np.round(draw.normal(size=700) + 1.2 * member, 1)
    counts = [
        members_above(scores, member, above) for above in draw.binomial(400, 0.1, size=10_000)
    ]
    low = np.quantile(
        [draw.beta(count, 300 - count + 1) if count > 0 else 0.0 for count in counts], 0.025
    )
    high = np.quantile(
        [draw.beta(count + 1, 300 - count) if count < 300 else 1.0 for count in counts], 0.975
    )
    found = metrics.tpr_interval(scores, member, limit=0.1)
    assert found == pytest.approx([low, high], abs=0.05 * (high - low))


def test_the_interval_of_a_tpr_is_near_that_of_a_plain_bootstrap_where_that_holds():
    draw, member = np.random.default_rng(3), np.arange(6000) < 3000
    scores = draw.normal(size=6000) + member
    plain = np.quantile(
        [
            metrics.tpr_at_fpr(*again, limit=0.1)
            for again in (
                (scores[drawn], member)
                for drawn in (
                    np.concatenate([draw.choice(3000, 3000), 3000 + draw.choice(3000, 3000)])
                    for _ in range(600)
                )
            )
        ],
        [0.025, 0.975],
    )
    assert metrics.tpr_interval(scores, member, limit=0.1) == pytest.approx(
        plain, abs=0.15 * (plain[1] - plain[0])
    )


def test_the_interval_of_a_tpr_is_clopper_and_pearsons_where_the_threshold_is_known():
    """Where no member lies near the threshold, whichever non-member sets it; at a TPR of 0 and of 1 too."""
    for above in (0, 8, 20):
        member = np.arange(1020) < 20
        scores = np.concatenate(
            [np.where(np.arange(20) < above, 9.0, -9.0), np.linspace(0, 1, 1000)]
        )
        assert metrics.tpr_interval(scores, member, limit=0.1) == pytest.approx(
            metrics.clopper_pearson(above, 20), abs=1e-6
        )


# What was used before, kept to show that it does not cover.
def former_tpr_interval(scores, member, *, limit):
    """Clopper & Pearson's interval of the members above the threshold, as if that were known."""
    count = round(metrics.tpr_at_fpr(scores, member, limit=limit) * member.sum())
    return metrics.clopper_pearson(count, int(member.sum()))


def former_accuracy_interval(decision, member, *, rng):
    """Stratified percentile bootstrap: of n decisions drawn again, a binomial number is right."""
    rates = [
        rng.binomial(len(right), right.mean(), size=1000) / len(right)
        for right in (decision[member], ~decision[~member])
    ]
    return np.quantile(sum(rates) / 2, [0.025, 0.975])


def former_area_interval(scores, member, *, rng, times=300):
    """Stratified percentile bootstrap, from the matrix of all pairs."""
    ins, outs = scores[member], scores[~member]
    wins = (ins[:, None] > outs) + (ins[:, None] == outs) / 2
    weights = [
        rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=times) / len(group)
        for group in (ins, outs)
    ]
    return np.quantile(((weights[0] @ wins) * weights[1]).sum(axis=1), [0.025, 0.975])


def coverage(interval_of, true, draws):
    """Share of the data sets whose interval holds the true value, and how often it lies above and below."""
    ends = np.array([interval_of(draw) for draw in draws])
    return (
        np.mean((ends[:, 0] <= true) & (true <= ends[:, 1])),
        np.mean(ends[:, 0] > true),
        np.mean(ends[:, 1] < true),
    )


RATES = (0.02, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)


@pytest.mark.parametrize("members, others", [(5, 5), (20, 20), (50, 50), (20, 100)])
def test_the_interval_of_an_accuracy_covers_at_all_rates(members, others):
    """No simulation but the sum over all counts of right decisions, at each pair of a TPR and a TNR."""
    member = np.arange(members + others) < members
    ends = np.array(
        [
            [
                metrics.accuracy_interval(
                    np.concatenate([np.arange(members) < ins, np.arange(others) >= outs]), member
                )
                for outs in range(others + 1)
            ]
            for ins in range(members + 1)
        ]
    )
    for tpr in RATES:
        for tnr in RATES:
            true = (tpr + tnr) / 2
            inside = (ends[..., 0] <= true + 1e-12) & (true - 1e-12 <= ends[..., 1])
            share = (
                binom.pmf(np.arange(members + 1), members, tpr)
                @ inside
                @ binom.pmf(np.arange(others + 1), others, tnr)
            )
            assert share >= 0.93, (tpr, tnr)


@pytest.mark.parametrize("n, right, most", [(20, 0.95, 0.9), (50, 0.99, 0.75)])
def test_the_former_interval_of_an_accuracy_does_not_cover_at_the_edge(n, right, most):
    rng, member = np.random.default_rng(3), np.arange(2 * n) < n

    def decisions(draw):
        return (draw.random(2 * n) < right) == member

    draws = np.random.default_rng(4).spawn(600)
    former = coverage(
        lambda draw: former_accuracy_interval(decisions(draw), member, rng=rng), right, draws
    )[0]
    draws = np.random.default_rng(4).spawn(600)
    assert (
        coverage(lambda draw: metrics.accuracy_interval(decisions(draw), member), right, draws)[0]
        >= 0.92
    )
    assert former < most


def members_by(family, auc):
    """Draws (draw, m) of members' scores, and (draw, n) of non-members', whose AUC is this."""
    if family == "exponential":
        return (
            lambda draw, m: draw.exponential(auc / (1 - auc), m)
        ), lambda draw, n: draw.exponential(size=n)
    if (
        family == "mixture"
    ):  # a share of the members is above all non-members, the rest is as they are
        return (
            lambda draw, m: draw.random(m) + (draw.random(m) < 2 * auc - 1)
        ), lambda draw, n: draw.random(n)
    if family == "binary":  # ties: all but 2 % of the non-members have the same score
        return (
            lambda draw, m: (draw.random(m) < 2 * auc - 0.98) * 1.0
        ), lambda draw, n: (draw.random(n) < 0.02) * 1.0
    sd = {"normal": 1.0, "narrow": 0.3, "wide": 3.0}[family]
    shift = norm.ppf(auc) * math.sqrt(1 + sd**2)
    return (lambda draw, m: draw.normal(shift, sd, m)), lambda draw, n: draw.normal(size=n)


FAMILIES = ("normal", "narrow", "wide", "exponential", "mixture", "binary")


@pytest.mark.parametrize("members, others", [(10, 10), (50, 50), (30, 100), (300, 300)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_interval_of_an_area_covers(family, members, others):
    member = np.arange(members + others) < members
    for auc in (0.6, 0.9, 0.98):
        ins, outs = members_by(family, auc)
        inside, above, below = coverage(
            lambda draw: metrics.auc_interval(
                np.concatenate([ins(draw, members), outs(draw, others)]), member
            ),
            auc,
            np.random.default_rng(5).spawn(200),
        )
        assert inside >= 0.92 and max(above, below) <= 0.06, auc


@pytest.mark.parametrize("family", ["normal", "wide", "exponential", "mixture"])
def test_the_former_interval_of_an_area_does_not_cover_at_the_edge(family):
    rng, member = np.random.default_rng(6), np.arange(40) < 20
    ins, outs = members_by(family, 0.98)

    def scores(draw):
        return np.concatenate([ins(draw, 20), outs(draw, 20)])

    draws = [np.random.default_rng(7).spawn(300) for _ in range(2)]
    assert (
        coverage(lambda draw: former_area_interval(scores(draw), member, rng=rng), 0.98, draws[0])[
            0
        ]
        < 0.88
    )
    assert (
        coverage(lambda draw: metrics.auc_interval(scores(draw), member), 0.98, draws[1])[0] >= 0.92
    )


def above_normal(mean, sd):
    """How members' scores are drawn, and their TPR where the FPR among N(0, 1) is given."""
    return (lambda draw, m: draw.normal(mean, sd, m)), lambda fpr: norm.sf(norm.isf(fpr), mean, sd)


NORMALS = {
    f"N({mean}, {sd})": above_normal(mean, sd)
    for mean, sd in ((1, 1), (2, 1), (1, 1.5), (2, 2), (4, 1))
}


@pytest.mark.slow
@pytest.mark.parametrize("n, limit, times", [(1127, 0.01, 200), (10_000, 0.001, 150)])
@pytest.mark.parametrize("name", NORMALS)
def test_the_interval_of_a_tpr_covers_and_the_former_does_not(name, n, limit, times):
    (ins, tpr), member = NORMALS[name], np.arange(2 * n) < n
    sets = [
        np.concatenate([ins(draw, n), draw.normal(size=n)])
        for draw in np.random.default_rng(8).spawn(times)
    ]
    inside, above, _ = coverage(
        lambda scores: metrics.tpr_interval(scores, member, limit=limit), tpr(limit), sets
    )
    assert inside >= 0.92 and above <= 0.05  # a decision rests on the lower end
    former, above, _ = coverage(
        lambda scores: former_tpr_interval(scores, member, limit=limit), tpr(limit), sets
    )
    assert former < 0.85 and above > 0.07


OTHERS = {
    "as non-members": above_normal(0, 1),
    "all below": above_normal(-3, 0.5),
    "all above": above_normal(6, 1),
    "exponential": (
        (lambda draw, m: norm.isf(np.exp(-draw.exponential(2, m)))),
        lambda fpr: fpr**0.5,
    ),
    "uniform": ((lambda draw, m: norm.ppf(draw.random(m) * 0.5 + 0.5)), lambda fpr: 2 * fpr),
}


@pytest.mark.parametrize(
    "members, others, limit", [(50, 1000, 0.01), (100, 100, 0.1), (2000, 400, 0.1)]
)
@pytest.mark.parametrize("name", OTHERS)
def test_the_interval_of_a_tpr_covers_at_both_ends_and_with_groups_of_other_sizes(
    name, members, others, limit
):
    (ins, tpr), member = OTHERS[name], np.arange(members + others) < members
    inside, above, _ = coverage(
        lambda draw: metrics.tpr_interval(
            np.concatenate([ins(draw, members), draw.normal(size=others)]), member, limit=limit
        ),
        tpr(limit),
        np.random.default_rng(9).spawn(200),
    )
    assert inside >= 0.92 and above <= 0.05


def test_the_interval_of_a_tpr_covers_with_ties():
    """Scores rounded down to quarters: the threshold is the lowest quarter that at most 1 % of non-members reach."""
    threshold = math.ceil(norm.isf(0.01) * 4) / 4
    member = np.arange(2400) < 1200
    inside, above, _ = coverage(
        lambda draw: metrics.tpr_interval(
            np.floor(4 * (draw.normal(size=2400) + member)) / 4, member, limit=0.01
        ),
        norm.sf(threshold - 1),
        np.random.default_rng(10).spawn(300),
    )
    assert inside >= 0.92 and above <= 0.06


def test_intervals_of_thirty_thousand_records_take_no_time():
    import time

    verdict, member, labels = some(members=15_000, others=15_000)
    metrics.measures(verdict, member, labels, num_cls=3)
    start = time.process_time()
    metrics.measures(verdict, member, labels, num_cls=3)
    assert time.process_time() - start < 2
