"""What attacks are judged by, against scikit-learn, scipy, pairs counted one by one and simulations."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest, norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from attackers import Verdict, metrics

SEEDS = range(12)


def tied(seed):
    """Scores with many ties, members' larger on the whole, and who is a member."""
    draw = np.random.default_rng(seed)
    member = draw.random(draw.integers(20, 90)) < draw.uniform(0.2, 0.8)
    member[:2] = [True, False]
    levels = int(draw.integers(1, 12))
    return np.floor(levels * (draw.normal(size=len(member)) + member)) / levels, member


def by_pairs(scores, member):
    """AUC by its definition: the share of pairs of a member and a non-member in order, of equal ones half."""
    pairs = [(m > o) + (m == o) / 2 for m in scores[member] for o in scores[~member]]
    return sum(pairs) / len(pairs)


def balanced(decision, member):
    """(TPR + TNR) / 2 from its definition."""
    return (
        (decision & member).sum() / member.sum() + (~decision & ~member).sum() / (~member).sum()
    ) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_the_area_equals_a_count_of_pairs(seed):
    scores, member = tied(seed)
    assert len(np.unique(scores)) < len(scores)
    assert metrics.auc(scores, member) == pytest.approx(by_pairs(scores, member), abs=1e-12)
    assert metrics.auc(scores, member) == pytest.approx(roc_auc_score(member, scores), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_balanced_accuracy_is_the_mean_of_two_rates(seed):
    scores, member = tied(seed)
    found = metrics.balanced_accuracy(scores >= 0.5, member)
    assert found == pytest.approx(balanced(scores >= 0.5, member)) and isinstance(found, float)
    assert found == pytest.approx(balanced_accuracy_score(member, scores >= 0.5))


# ---- TPR at a low FPR ------------------------------------------------------------------------------------------------


def tpr_by_thresholds(scores, member, limit):
    """The largest TPR of all thresholds that let at most this share of non-members pass."""
    best = 0.0
    for threshold in [*scores, math.inf]:
        said = scores >= threshold
        if said[~member].sum() <= limit * (~member).sum() + 1e-9:
            best = max(best, said[member].mean())
    return best


@pytest.mark.parametrize("limit", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_tpr_at_an_fpr_is_the_largest_of_all_thresholds(seed, limit):
    scores, member = tied(seed)
    assert metrics.tpr_at_fpr(scores, member, limit=limit) == pytest.approx(
        tpr_by_thresholds(scores, member, limit)
    )


def test_a_tpr_worked_by_hand_without_interpolation():
    # non-members 10, 8, 6, 5, 4, 3, 2, 1, 0, -1; one of ten may pass, so the threshold is above 8
    others = [10, 8, 6, 5, 4, 3, 2, 1, 0, -1]
    for members, exact in [
        ([12, 9, 9, 7], 0.75),
        ([12, 8, 8, 8], 0.25),
        ([12, 10, 8, 8], 0.5),
        ([7, 7, 7, 7], 0),
    ]:
        scores, member = np.array(members + others, float), np.arange(14) < 4
        assert metrics.tpr_at_fpr(scores, member, limit=0.1) == exact
        assert metrics.tpr_at_fpr(scores, member, limit=0.15) == exact  # between one and two of ten
    scores, member = np.array([5, 5, 1] + 2 * [5] + 8 * [0], float), np.arange(13) < 3
    assert (
        metrics.tpr_at_fpr(scores, member, limit=0.1) == 0
    )  # whoever ties passes with them: two of ten


@pytest.mark.parametrize("count", [10, 30, 70, 1000, 10_000])
def test_exactly_the_limit_may_pass(count):
    """That no rounding keeps out the last non-member whom the limit lets pass."""
    for limit in metrics.FPRS:
        passing = round(count * limit)
        if passing / count == pytest.approx(limit):
            others = np.arange(count)[::-1]
            members = np.array([count - passing - 0.5] * 3 + [count - passing - 1.5])
            scores, member = np.concatenate([members, others]), np.arange(count + 4) < 4
            assert metrics.tpr_at_fpr(scores, member, limit=limit) == 0.75


def test_the_tpr_of_gaussian_scores_is_the_analytic_one():
    draw, n, d = np.random.default_rng(0), 200_000, 1.0
    member = np.arange(2 * n) < n
    scores = draw.normal(size=2 * n) + d * member
    for limit in metrics.FPRS:
        cut = norm.ppf(limit)
        rate, slope = norm.cdf(d + cut), norm.pdf(d + cut) / norm.pdf(cut)
        spread = math.sqrt((rate * (1 - rate) + slope**2 * limit * (1 - limit)) / n)
        assert abs(metrics.tpr_at_fpr(scores, member, limit=limit) - rate) < 4 * spread


# ---- intervals -------------------------------------------------------------------------------------------------------


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
        coverage(lambda draw: metrics.auc_interval(scores(draw), member), 0.98, draws[1])[0]
        >= 0.92
    )


def above_normal(mean, sd):
    """How members' scores are drawn, and their TPR where the FPR among N(0, 1) is given."""
    return (lambda draw, m: draw.normal(mean, sd, m)), lambda fpr: norm.sf(norm.isf(fpr), mean, sd)


NORMALS = {
    f"N({mean}, {sd})": above_normal(mean, sd)
    for mean, sd in ((1, 1), (2, 1), (1, 1.5), (2, 2), (4, 1))
}


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


# ---- all of them -----------------------------------------------------------------------------------------------------


def some(members=60, others=200, num_cls=3, seed=0, scores=None):
    """A verdict, who is a member, and the classes."""
    draw = np.random.default_rng(seed)
    member = draw.permutation(np.arange(members + others) < members)
    scores = draw.normal(size=len(member)) + member if scores is None else scores(draw, member)
    return Verdict(scores, 0.5), member, draw.integers(num_cls, size=len(member))


def test_every_figure_is_that_of_its_own_function():
    verdict, member, labels = some(others=1000)
    found = metrics.measures(verdict, member, labels, num_cls=3)
    assert found["members"] == 60 and found["non_members"] == 1000
    assert found["accuracy"] == pytest.approx(balanced(verdict.scores >= 0.5, member))
    assert found["auc"] == metrics.auc(verdict.scores, member)
    for name in ("accuracy", "auc"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
    for limit, name in [(0.1, "tpr_at_0.1"), (0.01, "tpr_at_0.01")]:
        assert found[name] == metrics.tpr_at_fpr(verdict.scores, member, limit=limit)
        assert found[f"{name}_interval"] == metrics.tpr_interval(
            verdict.scores, member, limit=limit
        )
        assert found[f"{name}_interval"][0] <= found[name] <= found[f"{name}_interval"][1]
    assert found["tpr_at_0.001"] is None and found["tpr_at_0.001_interval"] is None


def test_figures_are_plain_numbers_for_json():
    verdict, member, labels = some(others=1000)
    for name, value in metrics.measures(verdict, member, labels, num_cls=3).items():
        for one in value if isinstance(value, list) else [value]:
            assert type(one) in (int, float, type(None)), name


@pytest.mark.parametrize("limit, fewest", [("0.1", 100), ("0.01", 1000), ("0.001", 10_000)])
def test_a_tpr_is_told_from_ten_non_members_over_the_fpr(limit, fewest):
    for others in (fewest - 1, fewest):
        verdict, member, labels = some(others=others)
        found = metrics.measures(verdict, member, labels, num_cls=3)
        assert (
            (found[f"tpr_at_{limit}"] is None)
            == (found[f"tpr_at_{limit}_interval"] is None)
            == (others < fewest)
        )


@pytest.mark.parametrize("values", [[0.0, 1.0], [1.0], [-3.0, 7.5]])
def test_binary_scores_have_no_tpr_at_a_low_fpr(values):
    verdict, member, labels = some(
        others=1000, scores=lambda draw, member: draw.choice(values, size=len(member))
    )
    found = metrics.measures(verdict, member, labels, num_cls=3)
    assert found["tpr_at_0.1"] is found["tpr_at_0.1_interval"] is found["tpr_at_0.01"] is None
    if len(values) == 1:
        assert found["auc"] is found["auc_interval"] is None  # see test_ties.py
    else:
        assert found["auc"] == pytest.approx(by_pairs(verdict.scores, member))
    three = np.where(np.arange(1060) == np.flatnonzero(member)[0], 99, verdict.scores)
    found = metrics.measures(Verdict(three, 0.5), member, labels, num_cls=3)
    assert (found["tpr_at_0.1"] is None) == (values == [1.0])


def test_figures_of_a_class_are_of_its_records_alone():
    verdict, member, labels = some(seed=1, num_cls=4)
    verdict = Verdict(verdict.scores, np.array([0.2, 0.5, 0.8, 1.1])[labels])
    labels[(labels == 2) & ~member] = 1  # members only
    labels[(labels == 3) & member] = 0  # non-members only
    found = metrics.measures(verdict, member, labels, num_cls=5)  # and none of the last
    assert len(found["class_accuracy"]) == len(found["class_auc"]) == 5
    for label in (0, 1):
        rights, here = {True: [], False: []}, labels == label
        for i in np.flatnonzero(here):
            rights[bool(member[i])].append((verdict.scores[i] >= verdict.threshold[i]) == member[i])
        accuracy = sum(sum(kind) / len(kind) for kind in rights.values()) / 2
        assert found["class_accuracy"][label] == pytest.approx(accuracy)
        assert found["class_auc"][label] == pytest.approx(
            by_pairs(verdict.scores[here], member[here])
        )
    assert found["class_accuracy"][2:] == found["class_auc"][2:] == [None] * 3


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_score_that_all_share_has_an_area_and_an_interval_around_it(value):
    verdict, member, labels = some(
        others=60, scores=lambda draw, member: np.full(len(member), value)
    )
    found = metrics.measures(verdict, member, labels, num_cls=3)
    assert metrics.auc(verdict.scores, member) == 0.5
    assert sum(metrics.auc_interval(verdict.scores, member)) == pytest.approx(1)
    assert found["auc"] is found["auc_interval"] is found["tpr_at_0.1"] is None  # but says nothing


def test_a_target_without_a_score_is_named():
    verdict = Verdict(np.array([0.1, np.nan, 0.4, 0.3]), 0.2)
    with pytest.raises(ValueError, match="1 of the targets have no score"):
        metrics.measures(verdict, np.array([True, False, True, False]), np.zeros(4, int), num_cls=2)


@pytest.mark.parametrize(
    "member, labels, said",
    [
        ([1, 1, 1], [0, 0, 0], "members and non-members"),
        ([0, 0, 0], [0, 0, 0], "members and non-members"),
        ([1, 0], [0, 0, 0], "^member must .* of the 3 targets"),
        ([1, 0, 1], [0, 0], r"^labels must .*\(3,\), not .*\(2,\)"),
        ([1, -1, 1], [0, 0, 0], r"^member\[1\] is -1: .* 1 or 0"),
        ("yyn", [0, 0, 0], "^member must be numbers, not 'yyn'"),
        (["yes", "no", "no"], [0, 0, 0], "^member must be numbers, not 'yes'"),
        ([1, 0.5, 0], [0, 0, 0], r"^member\[1\] is 0.5"),
        ([1, None, 0], [0, 0, 0], "^member must be numbers, not None"),
        ([1, 0, 1], [0, 1, 0], r"^labels\[1\] is 1: .* from 0 to 0"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(member, labels, said):
    with pytest.raises(ValueError, match=said):
        metrics.measures(Verdict(np.array([0.1, 0.2, 0.4]), 0.2), member, labels, num_cls=1)


def test_membership_may_be_written_in_numbers():
    draw = np.random.default_rng(0)
    verdict, member = Verdict(draw.random(300), 0.5), draw.random(300) < 0.5
    as_numbers = metrics.measures(verdict, member.astype(int), [0] * 300, num_cls=1)
    assert as_numbers == metrics.measures(verdict, member, np.zeros(300, int), num_cls=1)
