"""Several queries a record: against scipy's multivariate normal, votes counted by loops, a simulation of known
gain."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from attack_cases import FITTING, N, S, balanced_member, random_measured, same_verdict
from helpers import fixed_evidence
from scipy.stats import multivariate_normal, norm

from attackers import ATTACKS, Evidence, Signals, attack, lira, rmia, votes
from attackers.loss import is_right
from attackers.metrics import auc
from attackers.signals import cross_entropy, log_odds, mean_of_views
from attackers.statistic import Statistic
from core.console import NotApplicable

C = FITTING["victim"].shape[1]
DRAW = np.random.default_rng(0)
VIEWS = DRAW.dirichlet([1] * C, size=(2, N)), DRAW.dirichlet([1] * C, size=(S, 2, N))
SEVERAL = [name for name in ATTACKS if "queries" in ATTACKS[name].options.get("option_names", ())]
ONE = [
    name
    for name in ATTACKS
    if name not in SEVERAL
    and not {"releases", "sensitivity", "generated", "distillation", "label_only"}
    & {*ATTACKS[name].options}
]


def seen(evidence, *, count=4, noise=1.0, seed=3):
    """The same evidence with so many more queries, whose logits have noise of their own."""
    draw = np.random.default_rng(seed)

    def of(signals):
        return replace(
            signals,
            views=tuple(
                Signals(signals.logits + noise * draw.normal(size=signals.logits.shape))
                for _ in range(count)
            ),
        )

    shadows = [of(one) for one in evidence.shadows]
    return replace(evidence, victim=of(evidence.victim), shadows=shadows)


# ---- what is taken and measured --------------------------------------------------------------------------------------


def test_more_queries_are_taken_digit_by_digit():
    evidence = Evidence.from_posteriors(**FITTING, views=VIEWS)
    assert len(evidence.victim.all_views) == 3 and evidence.victim.all_views[0] is evidence.victim
    for signals, views in zip([evidence.victim, *evidence.shadows], [VIEWS[0], *VIEWS[1]]):
        for one, given in zip(signals.views, views, strict=True):
            assert np.array_equal(one.posteriors()[0], given)


@pytest.mark.parametrize(
    "views, begin",
    [
        (VIEWS[0], "views must be a pair, the victim's (V, N, C)"),
        ((VIEWS[0][0], VIEWS[1]), "views[0] must be posteriors (V, N, C)"),
        ((VIEWS[0][:, :-1], VIEWS[1]), "views[0] must be"),
        ((2 * VIEWS[0], VIEWS[1]), "views[0]"),
        ((VIEWS[0], VIEWS[1][:-1]), "views[1] must be of the 3 shadows"),
        ((VIEWS[0], 1), "views[1] must be of the 3 shadows"),
        ((VIEWS[0], VIEWS[1][:, :1]), "views[1][0] must be posteriors (V, N, C)"),
        ((VIEWS[0], np.log(VIEWS[1])), "views[1][0]"),
    ],
)
def test_what_is_no_posterior_of_a_query_is_refused_by_its_name(views, begin):
    with pytest.raises(ValueError) as raised:
        Evidence.from_posteriors(**FITTING, views=views)
    said = str(raised.value)
    assert said.startswith(begin) and "\n" not in said and len(said) < 250


def test_a_statistic_is_the_mean_over_queries_or_each_on_a_last_axis():
    evidence = Evidence.from_posteriors(**FITTING, views=VIEWS)
    mean, each = evidence.measure(cross_entropy), evidence.measure_views(cross_entropy)
    assert each.victim.shape == (N, 3) and each.every_shadow.shape == (S, N, 3)
    for model, signals in enumerate([evidence.victim, *evidence.shadows]):
        posteriors = [one.posteriors()[0] for one in signals.all_views]
        expected = np.array(
            [[-math.log(p[i, evidence.labels[i]]) for p in posteriors] for i in range(N)]
        )
        of_all = [each.victim, *each.every_shadow][model]
        assert of_all == pytest.approx(expected)
        assert [mean.victim, *mean.every_shadow][model] == pytest.approx(expected.mean(axis=1))


def test_other_releases_are_measured_of_the_record_as_it_is():
    also = {"other": (FITTING["victim"], FITTING["shadows"])}
    plain, richer = (
        Evidence.from_posteriors(**FITTING, also=also, **more).measure_releases(log_odds)
        for more in ({}, {"views": VIEWS})
    )
    assert np.array_equal(plain.victim, richer.victim)
    assert np.array_equal(plain.every_shadow, richer.every_shadow)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("name", ONE)
def test_who_takes_one_query_does_not_care_for_others(name, online, short_training):
    evidence = fixed_evidence(online)
    for verdict, said in attack(name, evidence).items():
        assert same_verdict(said, attack(name, seen(evidence))[verdict])


@pytest.mark.parametrize("name", SEVERAL)
def test_who_takes_several_says_the_same_of_copies_and_another_thing_of_others(
    name, short_training
):
    evidence = fixed_evidence(True)
    if name == "qmia":
        draw = np.random.default_rng(0)
        evidence = Evidence.from_posteriors(
            evidence.labels,
            victim=evidence.victim.posteriors()[0],
            shadows=[one.posteriors()[0] for one in evidence.shadows],
            member=evidence.member,
            target=evidence.target,
            x=draw.normal(size=(len(evidence.labels), 3)),
        )
    alone = attack(name, evidence)
    copies = attack(name, seen(evidence, noise=0))
    others = attack(name, seen(evidence))
    for verdict, said in alone.items():
        if name == "rmia":  # the same order, and shares of the population but for parts of a step
            step = 1 / (~evidence.target).sum()
            assert np.nanmax(np.abs(copies[verdict].scores - said.scores)) <= step
            assert np.array_equal(said.scores.argsort(), copies[verdict].scores.argsort())
        elif name == "ensemble":  # which has rmia in it
            both = np.stack([copies[verdict].scores, said.scores])
            assert np.array_equal(*np.isnan(both))
            assert np.corrcoef(both[:, ~np.isnan(both[0])])[0, 1] > 0.999
        else:
            assert copies[verdict].scores == pytest.approx(said.scores, abs=1e-6, nan_ok=True)
        assert not np.allclose(others[verdict].scores, said.scores, equal_nan=True)


# ---- formulas --------------------------------------------------------------------------------------------------------


def random_queries(seed, *, queries=3, **how):
    """Statistics of several queries, on a last axis."""
    each = [random_measured(seed + k, **how) for k in range(queries)]
    draw = np.random.default_rng(seed)
    shape = each[0].every_shadow.shape
    return replace(
        each[0],
        victim=draw.normal(size=(shape[1], queries)),
        every_shadow=draw.normal(size=(*shape, queries)),
    )


def test_liras_score_is_scipys_ratio_of_multivariate_normals_with_diagonal_covariances():
    phi = random_queries(5, shadows=9, n=50, targets=40)
    found = lira.mean_score(phi, score=partial(lira.online_score, fix_variance=False))
    known = 0
    for record in range(40):
        kinds = [phi.shadows[phi.member[:, record] == kind, record] for kind in (True, False)]
        if min(map(len, kinds)) < 2:
            assert np.isnan(found[record])
            continue
        known += 1
        densities = [
            multivariate_normal(of.mean(axis=0), np.diag(of.var(axis=0, ddof=1))).logpdf(
                phi.victim[record]
            )
            for of in kinds
        ]
        assert found[record] == pytest.approx((densities[0] - densities[1]) / 3)
    assert known > 10


def test_offline_liras_score_is_the_mean_distance():
    phi = random_queries(6, shadows=9, n=50, targets=40)
    found = lira.mean_score(phi, score=partial(lira.offline_score, fix_variance=False))
    for record in range(40):
        out = phi.shadows[~phi.member[:, record], record]
        if len(out) > 1:
            z = (phi.victim[record] - out.mean(axis=0)) / out.std(axis=0, ddof=1)
            assert found[record] == pytest.approx(z.mean())


def test_gap_is_the_share_of_queries_that_are_answered_right():
    labels = np.array([0, 1])
    logits = [[[1.0, 0], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [0, 1]], [[1, 0], [0, 1]]]
    first, *others = (Signals(np.array(one)) for one in logits)
    signals = replace(first, views=tuple(others))
    assert mean_of_views(is_right, signals, labels).tolist() == [0.75, 0.75]


def test_votes_counted_by_hand():
    # of three queries, two must exceed a limit; of two, both
    ratios = np.array([[1.0, 3, 0], [2, 3, 0], [9, 0, 0]])
    limits = np.array([[0.5, 2, 4], [1.5, 2.5, 1], [10, 1, 1]])
    # record 0: 1 > .5, 2 > 1.5; 9 > 1 alone; 2 > 1 and 9 > 1 -> 2 of 3. record 1: 3 > .5, 3 > 1.5;
    # 3 > 2, 3 > 2.5; 3 > 1 alone -> 2 of 3. record 2: none
    parts = np.log1p([2, 3, 0])
    expected = (np.array([2, 2, 0]) + parts / (1 + parts)) / 3
    assert votes.share_outvoted(ratios, limits) == pytest.approx(expected)
    parts = np.log1p([1, 3, 0])  # both: 1 > .5 and 2 > 1.5; 3 > .5, 1.5 and 3 > 2, 2.5; none
    expected = (np.array([1, 2, 0]) + parts / (1 + parts)) / 3
    assert votes.share_outvoted(ratios[:2], limits[:2]) == pytest.approx(expected)


@pytest.mark.parametrize("queries", [2, 3, 18])
@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_votes_are_torchs_mode_over_the_queries(queries, chunk, monkeypatch):
    """As the authors' code counts them: of a draw the smaller value, no, is the mode."""
    import torch

    monkeypatch.setattr(votes, "CHUNK", chunk)
    draw = np.random.default_rng(1)
    ratios, limits = draw.exponential(size=(queries, 40)), draw.exponential(size=(queries, 17))
    ratios[:, 3] = np.nan
    wins = torch.from_numpy(ratios[:, :, None] > limits[:, None, :])
    share = wins.mode(dim=0).values.double().mean(dim=1).numpy()
    found = votes.share_outvoted(ratios, limits)
    assert np.isnan(found[3])
    known = np.arange(40) != 3
    assert np.floor(found[known] * 17 + 1e-9) / 17 == pytest.approx(share[known])


@pytest.mark.parametrize("online", [False, True])
def test_rmias_votes_are_by_the_ratios_of_each_query(online):
    phi = random_queries(7, shadows=9, n=60, targets=35)
    p = replace(phi, victim=norm.cdf(phi.victim), every_shadow=norm.cdf(phi.every_shadow))
    settings = rmia.Settings(temperature=1, trim=0, a=0.4, gamma=1.3)
    found = rmia.score_of_queries(p, settings, online=online)

    def ratio(record, query, online, least):
        of = p.shadows[:, record, query]
        kinds = [of[p.member[:, record]], of[~p.member[:, record]]]
        if len(kinds[1]) < least or (online and len(kinds[0]) < least):
            return None
        out = kinds[1].mean()
        mean = (kinds[0].mean() + out) / 2 if online else (1.4 * out + 0.6) / 2
        return p.victim[record, query] / mean

    for x in range(35):
        ratios = [ratio(x, k, online, 2) for k in range(3)]
        if ratios[0] is None:
            assert np.isnan(found[x])
            continue
        wins, count = 0, 0
        for z in range(35, 60):
            of_z = [ratio(z, k, False, 1) for k in range(3)]
            if of_z[0] is not None:
                count += 1
                wins += sum(a > 1.3 * b for a, b in zip(ratios, of_z)) > 1.5
        assert wins <= found[x] * count + 1e-9 < wins + 1


def test_rmia_without_a_known_population_record_says_so():
    p = random_queries(8, n=20, targets=10)
    member = p.every_member.copy()
    member[:, 10:] = True
    with pytest.raises(NotApplicable, match="of no population record"):
        rmia.score_of_queries(
            replace(p, every_member=member, victim=abs(p.victim)),
            rmia.Settings(1, 0, 0.5, 1),
            online=False,
        )


# ---- what they gain --------------------------------------------------------------------------------------------------


def normal_queries(queries, *, shift=1.0, n=1500, shadows=400, seed=9):
    """Log odds of unit variance, independent in each query, that are higher by `shift` for members."""
    draw = np.random.default_rng(seed)
    member = balanced_member(draw, shadows, n)
    truth = draw.permutation(np.arange(n) % 2 == 0)
    every = draw.normal(size=(shadows, n, queries)) + shift * member[..., None]
    victim = draw.normal(size=(n, queries)) + shift * truth[:, None]
    mask = np.ones_like(member)
    return Statistic(victim, every, member, mask, np.ones(n, bool)), truth


@pytest.mark.parametrize("queries", [1, 2, 4])
@pytest.mark.parametrize("form", ["online", "offline"])
def test_independent_queries_are_worth_the_root_of_their_number(queries, form):
    """The distance of members from others, in standard deviations, grows by sqrt(Q): AUC = Phi(shift sqrt(Q / 2))."""
    phi, truth = normal_queries(queries)
    score = {"online": lira.online_score, "offline": lira.offline_score}[form]
    found = auc(lira.mean_score(phi, score=partial(score, fix_variance=True)), truth)
    assert found == pytest.approx(norm.cdf(math.sqrt(queries / 2)), abs=0.02)


@pytest.mark.parametrize("name", ["lira", "rmia", "bavaria", "base", "calibrated"])
def test_more_queries_help_an_attack_on_noisy_answers(name):
    found = []
    for count in (0, 8):
        draw = np.random.default_rng(2)
        n, shadows = 1600, 12
        halves = [draw.permutation(np.arange(n) % 2 == 0) for _ in range(shadows // 2)]
        member = np.stack([one for half in halves for one in (half, ~half)])
        target = np.arange(n) < n // 2
        truth = draw.permutation(np.arange(n) % 2 == 0) & target
        labels, ease = draw.integers(4, size=n), draw.normal(1, 1, size=n)

        def signals(who, count=count, draw=draw, labels=labels, ease=ease, n=n):
            logits = draw.normal(size=(9, n, 4))
            logits[:, np.arange(n), labels] += ease + who
            first, *others = map(Signals, logits)
            return replace(first, views=tuple(others[:count]))

        evidence = Evidence(
            labels=labels,
            victim=signals(truth),
            shadows=[signals(one) for one in member & target],
            member=member & target,
            calibration_mask=np.tile(target, (shadows, 1)),
            target=target,
            online=True,
        )
        found.append(auc(attack(name, evidence)[name].scores, truth[target]))
    assert found[1] > found[0] + 0.1
