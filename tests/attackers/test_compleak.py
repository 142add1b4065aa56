"""CompLeak-SR: features by hand, scikit-learn's classifiers, and what must not matter."""

from dataclasses import replace

import numpy as np
import pytest
from attack_cases import paired_member
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from attackers import Evidence, attack, compleak
from attackers.calibration import best_threshold
from attackers.compleak import ShadowRecords
from attackers.metrics import auc
from attackers.signals import Release, Signals
from core.console import NotApplicable


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(compleak, "TREES", 40)


def of(posteriors):
    return Signals.from_posteriors(np.asarray(posteriors, float))


def test_features_worked_by_hand():
    """Sorted by the other release; ties there by this one, and then by the class."""
    this = of([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.25, 0.5, 0.25]])
    other = of([[0.2, 0.7, 0.1], [0.4, 0.4, 0.2], [0.3, 0.4, 0.3]])
    found = compleak.features(this, other, np.array([1, 0, 0]))
    expected = [
        [0.1, 0.2, 0.7, 0.1, 0.6, 0.3, 0, 0, 1],
        [0.2, 0.4, 0.4, 0.2, 0.3, 0.5, 0, 0, 1],
        [0.3, 0.3, 0.4, 0.25, 0.25, 0.5, 0, 1, 0],
    ]
    assert found == pytest.approx(np.array(expected), rel=1e-6)


def evidence_of(seed=0, *, shadows=6, n=600, num_cls=4, gain=2.0, online=True):
    """Members are surer by `gain` in this release, where others are as sure as in the other one."""
    draw = np.random.default_rng(seed)
    target = np.arange(n) < n // 2
    mask = np.tile(target == online, (shadows, 1))
    pairs = shadows + shadows % 2
    member = paired_member(draw, pairs, n)[:shadows] & mask
    truth = (draw.random(n) < 0.5) & target
    labels, ease = draw.integers(num_cls, size=n), draw.normal(1, 3, size=n)

    def both(member):
        z = 0.3 * draw.normal(size=(2, n, num_cls))
        z[:, np.arange(n), labels] += ease
        z[0, np.arange(n), labels] += gain * member
        p = np.exp(z)
        return p / p.sum(axis=-1, keepdims=True)

    victim, of_shadows = both(truth), np.stack([both(one) for one in member])
    evidence = Evidence.from_posteriors(
        labels,
        victim=victim[0],
        shadows=of_shadows[:, 0],
        member=member,
        target=target,
        calibration_mask=mask,
        also={"original": (victim[1], of_shadows[:, 1])},
    )
    return evidence, truth[target]


def test_scores_are_those_of_scikit_learns_classifiers_on_pooled_records():
    evidence, truth = evidence_of()
    x, y = [], []
    for index, mask in enumerate(evidence.calibration_mask):
        for record in np.flatnonzero(mask):
            p = evidence.shadows[index].posteriors()[0][record]
            q = evidence.also["original"].shadows[index].posteriors()[0][record]
            order = np.argsort(q)
            one_hot = (order == evidence.labels[record]).astype(float)
            x.append([*q[order], *p[order], *one_hot])
            y.append(evidence.member[index, record])
    x, y = np.array(x), np.array(y)
    target = evidence.target
    new = compleak.features(evidence.victim, evidence.also["original"].victim, evidence.labels)[
        target
    ]
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    regression = LogisticRegression(max_iter=400).fit((x - mean) / deviation, y)
    found = attack("compleak_sr", evidence, seed=3)
    expected = regression.decision_function((new - mean) / deviation)
    assert found["compleak_sr"].scores == pytest.approx(expected, abs=0.02)
    forest = RandomForestClassifier(40, min_samples_leaf=30, random_state=3)
    forest.fit(x.astype(np.float32), y)
    assert found["compleak_sr_forest"].scores == pytest.approx(forest.predict_proba(new)[:, 1])
    for verdict in found.values():
        assert auc(verdict.scores, truth) > 0.7


def test_thresholds_are_of_shadow_models_that_were_held_out():
    evidence, truth = evidence_of()
    records = compleak.pooled_records(evidence, evidence.shadows, evidence.also["original"].shadows)
    assert records.x.shape == (6 * 300, 12) and (np.bincount(records.shadow) == 300).all()
    held = np.full(len(records.member), np.nan)
    for learnt, held_out in records.folds(0):
        assert not set(records.shadow[learnt]) & set(records.shadow[held_out])
        assert np.isnan(held[held_out]).all()
        fitted = compleak.logistic_regression(0).fit(records.x[learnt], records.member[learnt])
        held[held_out] = fitted.decision_function(records.x[held_out])
    expected = best_threshold(held[records.member], held[~records.member])
    verdict = attack("compleak_sr", evidence)["compleak_sr"]
    assert verdict.threshold == pytest.approx(expected, abs=1e-6)
    accuracy = (verdict.member[truth].mean() + (~verdict.member[~truth]).mean()) / 2
    assert accuracy > 0.65


def test_one_shadow_model_is_held_out_by_its_records():
    evidence, truth = evidence_of(shadows=1)
    records = compleak.pooled_records(evidence, evidence.shadows, evidence.also["original"].shadows)
    held_out = [held_out for _, held_out in records.folds(0)]
    assert sorted(np.concatenate(held_out)) == list(range(300)) and len(held_out) == 3
    for verdict in attack("compleak_sr", evidence).values():
        assert np.isfinite(verdict.scores).all() and auc(verdict.scores, truth) > 0.6


@pytest.mark.parametrize(
    "member, shadow",
    [
        (np.arange(40) < 2, np.arange(40) % 4),  # too few members
        (np.arange(40) < 20, np.arange(40) // 20),  # all members of one shadow model
    ],
)
def test_too_little_to_learn_from_is_said(member, shadow):
    with pytest.raises(NotApplicable, match="a classifier needs"):
        list(ShadowRecords(np.zeros((40, 3)), member, shadow).folds(0))


def test_of_several_other_releases_the_first_counts():
    evidence, _ = evidence_of()
    noise, _ = evidence_of(1)
    more = replace(evidence, also=evidence.also | {"int8": noise.also["original"]})
    for name, verdict in attack("compleak_sr", evidence).items():
        assert np.array_equal(verdict.scores, attack("compleak_sr", more)[name].scores)


@pytest.mark.parametrize("online", [True, False])
def test_the_numbers_of_classes_and_the_order_of_shadows_do_not_matter(online):
    evidence, _ = evidence_of(online=online)
    classes = np.random.default_rng(5).permutation(4)

    def renamed(signals):
        return of(signals.posteriors()[0][:, classes])

    def of_classes(release):
        return Release(renamed(release.victim), [renamed(one) for one in release.shadows])

    moved = of_classes(evidence.releases()[0])
    other = replace(
        evidence,
        labels=np.argsort(classes)[evidence.labels],
        victim=moved.victim,
        shadows=moved.shadows,
        also={"original": of_classes(evidence.also["original"])},
    )
    expected = attack("compleak_sr", evidence)
    for name, verdict in attack("compleak_sr", other).items():
        assert np.array_equal(verdict.scores, expected[name].scores)
        assert verdict.threshold == expected[name].threshold
    back = slice(None, None, -1)
    turned = replace(
        evidence,
        shadows=evidence.shadows[back],
        member=evidence.member[back],
        calibration_mask=evidence.calibration_mask[back],
        also={name: Release(one.victim, one.shadows[back]) for name, one in evidence.also.items()},
    )
    # the forest's draws are of rows in their order: another order is another forest
    found = attack("compleak_sr", turned)["compleak_sr"]
    assert found.scores == pytest.approx(expected["compleak_sr"].scores, abs=0.02)


def auc_of_one_release(evidence, truth):
    """Of the regression on this release's posteriors in rising order and the class."""
    copy = replace(evidence, also={"copy": evidence.releases()[0]})
    this = evidence.releases()[0]
    records = compleak.pooled_records(copy, copy.shadows, this.shadows)
    x = compleak.features(this.victim, this.victim, evidence.labels)[evidence.target]
    fitted = compleak.logistic_regression(0).fit(records.x[:, 4:], records.member)
    return auc(fitted.decision_function(x[:, 4:]), truth)


def test_a_second_release_adds_what_it_tells_and_a_copy_or_another_network_nothing(monkeypatch):
    """AUC of the regression over eight seeds, 99 % intervals of the mean."""
    monkeypatch.setattr(compleak, "TREES", 1)
    gains: dict[str, list[float]] = {"original": [], "copy": [], "another network": []}
    for seed in range(8):
        evidence, truth = evidence_of(seed, n=400)
        draw = np.random.default_rng(100 + seed)
        others = evidence.also | {
            "copy": evidence.releases()[0],
            "another network": Release(
                of(draw.dirichlet([1] * 4, size=400)),
                [of(draw.dirichlet([1] * 4, size=400)) for _ in evidence.shadows],
            ),
        }
        before = auc_of_one_release(evidence, truth)
        for name, release in others.items():
            found = attack("compleak_sr", replace(evidence, also={name: release}))["compleak_sr"]
            gains[name].append(auc(found.scores, truth) - before)
    low, high = {}, {}
    for name, values in gains.items():
        half = 2.576 * np.std(values, ddof=1) / np.sqrt(len(values))
        low[name], high[name] = np.mean(values) - half, np.mean(values) + half
    assert low["original"] > 0.05
    assert low["copy"] <= 0 <= high["copy"] and high["copy"] - low["copy"] < 0.01
    # an order of classes that has nothing to do with this release's hides what this one tells
    assert high["another network"] < 0
