"""What attacks are judged by, against scikit-learn, scipy, pairs counted one by one and simulations."""
import math

import numpy as np
import pytest
from scipy.stats import beta, norm
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
    return ((decision & member).sum() / member.sum() + (~decision & ~member).sum() / (~member).sum()) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_the_area_equals_a_count_of_pairs(seed):
    scores, member = tied(seed)
    assert len(np.unique(scores)) < len(scores)
    assert metrics.area(scores, member) == pytest.approx(by_pairs(scores, member), abs=1e-12)
    assert metrics.area(scores, member) == pytest.approx(roc_auc_score(member, scores), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_area_of_ranks_equals_scikit_learns(seed):
    scores, member = tied(seed)
    distinct, rank = np.unique(scores, return_inverse=True)
    for spare in (0, 5):
        found = metrics.area_of_ranks(rank[member], rank[~member], len(distinct) + spare)
        assert found == pytest.approx(roc_auc_score(member, scores), abs=1e-12)


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
    assert metrics.tpr_at_fpr(scores, member, limit=limit) == pytest.approx(tpr_by_thresholds(scores, member, limit))


def test_a_tpr_worked_by_hand_without_interpolation():
    # non-members 10, 8, 6, 5, 4, 3, 2, 1, 0, -1; one of ten may pass, so the threshold is above 8
    others = [10, 8, 6, 5, 4, 3, 2, 1, 0, -1]
    for members, exact in [([12, 9, 9, 7], 0.75), ([12, 8, 8, 8], 0.25), ([12, 10, 8, 8], 0.5), ([7, 7, 7, 7], 0)]:
        scores, member = np.array(members + others, float), np.arange(14) < 4
        assert metrics.tpr_at_fpr(scores, member, limit=0.1) == exact
        assert metrics.tpr_at_fpr(scores, member, limit=0.15) == exact  # between one and two of ten
    scores, member = np.array([5, 5, 1] + 2 * [5] + 8 * [0], float), np.arange(13) < 3
    assert metrics.tpr_at_fpr(scores, member, limit=0.1) == 0  # whoever ties passes with them: two of ten


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
        low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
        high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
        assert metrics.rate_interval(k / n, n) == pytest.approx([low, high], rel=1e-6, abs=1e-9)


def test_intervals_of_a_rate_worked_by_hand():
    """Of 0 in n: 1 - .025^(1/n)."""
    assert metrics.rate_interval(0.0, 20) == pytest.approx([0, 1 - 0.025 ** (1 / 20)])
    assert metrics.rate_interval(1.0, 20) == pytest.approx([0.025 ** (1 / 20), 1])


def resampled(figure, values, member, *, rng, times):
    """Percentile bootstrap from indices: members and non-members are drawn again, each among themselves."""
    ins, outs = np.flatnonzero(member), np.flatnonzero(~member)
    found = []
    for _ in range(times):
        drawn = np.concatenate([rng.choice(ins, len(ins)), rng.choice(outs, len(outs))])
        found.append(figure(values[drawn], member[drawn]))
    return np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize("tpr, tnr", [(0.6, 0.7), (0.95, 0.2), (0.5, 0.5), (1.0, 0.9)])
def test_the_interval_of_an_accuracy_is_that_of_a_plain_bootstrap(tpr, tnr):
    draw = np.random.default_rng(1)
    member = np.arange(500) < 200
    decision = np.where(member, draw.random(500) < tpr, draw.random(500) >= tnr)
    plain = resampled(balanced, decision, member, rng=draw, times=4000)
    found = np.mean([metrics.accuracy_interval(decision, member, rng=draw) for _ in range(10)], axis=0)
    assert found == pytest.approx(plain, abs=0.12 * (plain[1] - plain[0]))  # a quantile of 4000 is known to 3 %
    assert plain[0] < balanced(decision, member) < plain[1]


def test_the_interval_of_an_area_is_that_of_a_plain_bootstrap():
    draw = np.random.default_rng(2)
    member = np.arange(150) < 60
    scores = np.round(draw.normal(size=150) + member, 1)
    plain = resampled(metrics.area, scores, member, rng=draw, times=1500)
    found = metrics.area_interval(scores, member, rng=draw)
    assert found == pytest.approx(plain, abs=0.15 * (plain[1] - plain[0]))


def coverage(interval_of, true, draws):
    """Share of the data sets whose interval holds the true value, and how often it lies above and below."""
    ends = np.array([interval_of(draw) for draw in draws])
    return np.mean((ends[:, 0] <= true) & (true <= ends[:, 1])), np.mean(ends[:, 0] > true), np.mean(ends[:, 1] < true)


def test_the_interval_of_an_accuracy_holds_the_true_one_in_95_of_100_data_sets():
    rng, member = np.random.default_rng(3), np.arange(300) < 120

    def interval(draw):
        decision = draw.random(300) < np.where(member, 0.7, 0.4)
        return metrics.accuracy_interval(decision, member, rng=rng)

    inside, above, below = coverage(interval, (0.7 + 0.6) / 2, np.random.default_rng(4).spawn(400))
    assert 0.91 <= inside <= 0.985 and max(above, below) < 0.06


def test_the_interval_of_an_area_holds_the_true_one_in_95_of_100_data_sets(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 300)
    rng, member, d = np.random.default_rng(5), np.arange(160) < 70, 0.8

    def interval(draw):
        return metrics.area_interval(draw.normal(size=160) + d * member, member, rng=rng)

    inside, above, below = coverage(interval, norm.cdf(d / math.sqrt(2)), np.random.default_rng(6).spawn(250))
    assert 0.90 <= inside <= 0.985 and max(above, below) < 0.08


def test_the_interval_of_a_rate_holds_the_true_one_in_95_of_100_data_sets_or_more():
    draws = np.random.default_rng(7).spawn(400)
    inside, above, below = coverage(lambda draw: metrics.rate_interval(draw.binomial(80, 0.1) / 80, 80), 0.1, draws)
    assert 0.93 <= inside and max(above, below) < 0.05  # exact, so never too often outside


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
    assert found["auc"] == metrics.area(verdict.scores, member)
    for name in ("accuracy", "auc"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
    for limit, name in [(0.1, "tpr_at_0.1"), (0.01, "tpr_at_0.01")]:
        assert found[name] == metrics.tpr_at_fpr(verdict.scores, member, limit=limit)
        assert found[f"{name}_interval"] == metrics.rate_interval(found[name], 60)
    assert found["tpr_at_0.001"] is None and found["tpr_at_0.001_interval"] is None


def test_figures_are_plain_numbers_for_json():
    verdict, member, labels = some(others=1000)
    for name, value in metrics.measures(verdict, member, labels, num_cls=3).items():
        for one in value if isinstance(value, list) else [value]:
            assert type(one) in (int, float, type(None)), name


@pytest.mark.parametrize("limit, fewest", [("0.1", 100), ("0.01", 1000), ("0.001", 10_000)])
def test_a_tpr_is_told_from_ten_non_members_over_the_fpr(limit, fewest, monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 2)
    for others in (fewest - 1, fewest):
        verdict, member, labels = some(others=others)
        found = metrics.measures(verdict, member, labels, num_cls=3)
        assert (found[f"tpr_at_{limit}"] is None) == (found[f"tpr_at_{limit}_interval"] is None) == (others < fewest)


@pytest.mark.parametrize("values", [[0.0, 1.0], [1.0], [-3.0, 7.5]])
def test_binary_scores_have_no_tpr_at_a_low_fpr(values):
    verdict, member, labels = some(others=1000, scores=lambda draw, member: draw.choice(values, size=len(member)))
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
        assert found["class_auc"][label] == pytest.approx(by_pairs(verdict.scores[here], member[here]))
    assert found["class_accuracy"][2:] == found["class_auc"][2:] == [None] * 3


def test_the_same_seed_draws_the_same_intervals():
    one, again, other = (metrics.measures(*some(), num_cls=3, seed=seed) for seed in (0, 0, 1))
    assert one == again != other


def test_a_target_without_a_score_is_named():
    verdict = Verdict(np.array([0.1, np.nan, 0.4, 0.3]), 0.2)
    with pytest.raises(ValueError, match="1 of the targets have no score"):
        metrics.measures(verdict, np.array([True, False, True, False]), np.zeros(4, int), num_cls=2)


@pytest.mark.parametrize("member, labels, said", [
    ([1, 1, 1], [0, 0, 0], "members and non-members"), ([0, 0, 0], [0, 0, 0], "members and non-members"),
    ([1, 0], [0, 0, 0], "of the 3 targets"), ([1, 0, 1], [0, 0], "of the 3 targets")])
def test_a_truth_that_does_not_fit_is_refused(member, labels, said):
    with pytest.raises(ValueError, match=said):
        metrics.measures(Verdict(np.array([0.1, 0.2, 0.4]), 0.2), member, labels, num_cls=1)


def test_membership_may_be_written_in_numbers():
    draw = np.random.default_rng(0)
    verdict, member = Verdict(draw.random(300), 0.5), draw.random(300) < 0.5
    as_numbers = metrics.measures(verdict, member.astype(int), [0] * 300, num_cls=1)
    assert as_numbers == metrics.measures(verdict, member, np.zeros(300, int), num_cls=1)
