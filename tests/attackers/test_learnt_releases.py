"""compleak_mr and trajectory: networks that learn from several releases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cases import same_verdict
from release_cases import noisy_releases
from sklearn.ensemble import RandomForestClassifier

from attackers import attack, compleak, compleak_mr, trajectory
from attackers.calibration import best_threshold
from attackers.evidence import always_fit
from attackers.forest import Forest
from attackers.metrics import auc, balanced_accuracy
from attackers.signals import Signals
from core.files import packed, unpack
from training.config import CosineConfig

NAMES = ("compleak_mr", "trajectory")


@pytest.fixture(autouse=True)
def shorter(monkeypatch):
    monkeypatch.setattr(compleak, "TREES", 40)
    short = CosineConfig(epochs=15, optimizer="sgd", lr=1e-2)
    monkeypatch.setattr(compleak_mr, "CONFIG", short)


class Kept:
    """A `fit_or_load` that keeps what it is given as the bench does, by name and key."""

    def __init__(self):
        self.kept, self.trained = {}, []

    def __call__(self, name, cache_key, train):
        words = [one.tobytes() if isinstance(one, np.ndarray) else repr(one) for one in cache_key]
        key = name, *words
        if key not in self.kept:
            self.trained.append(name)
            self.kept[key] = packed(train([]))
        return unpack(self.kept[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_releases_tell_what_they_can_and_a_copy_or_another_network_nothing(name):
    """AUC beside that of the best attack on the same records: the log odds, or their sum."""
    case = noisy_releases()
    assert case.best_of_two > case.best_of_one + 0.06
    found = {}
    for other in ("original", "copy", "another network"):
        evidence = case.evidence if other == "original" else case.with_other(other)
        verdict = attack(name, evidence)[name]
        found[other] = auc(verdict.scores, case.truth)
        # the best threshold is half-way between two normals, where (TPR + TNR) / 2 is
        # Phi(d / 2), d = 1 or sqrt(2): .691 and .760
        accuracy = balanced_accuracy(verdict.member, case.truth)
        assert accuracy == pytest.approx(0.76 if other == "original" else 0.691, abs=0.03)
    assert case.best_of_two - 0.02 < found["original"] < case.best_of_two + 0.005
    for other in ("copy", "another network"):
        assert case.best_of_one - 0.015 < found[other] < case.best_of_one + 0.005, other


@pytest.mark.parametrize("name", NAMES)
def test_what_was_learnt_is_kept_and_is_the_seeds(name):
    evidence = noisy_releases(n=200).evidence
    keeper = Kept()
    first = attack(name, evidence, fit_or_load=keeper)[name]
    trained = list(keeper.trained)
    assert same_verdict(first, attack(name, evidence, fit_or_load=keeper)[name])
    assert keeper.trained == trained and len(trained) == len(set(trained))
    assert same_verdict(first, attack(name, evidence)[name])
    assert not same_verdict(first, attack(name, evidence, seed=1)[name])
    # the victim has no part in it; whom a shadow was trained on has
    other = replace(evidence, victim=evidence.also["original"].victim)
    attack(name, other, fit_or_load=keeper)
    assert keeper.trained == trained
    turned = replace(evidence, member=evidence.member[::-1])
    attack(name, turned, fit_or_load=keeper)
    assert keeper.trained == 2 * trained


def test_compleak_sr_and_mr_share_their_forest():
    evidence, keeper = noisy_releases(n=200).evidence, Kept()
    attack("compleak_sr", evidence, fit_or_load=keeper)
    assert keeper.trained == ["compleak_forest"]
    attack("compleak_mr", evidence, fit_or_load=keeper)
    assert keeper.trained.count("compleak_forest") == 1


@pytest.mark.parametrize("leaf", [1, 30, 1000])
def test_a_forest_in_arrays_says_what_scikit_learns_does_digit_by_digit(leaf):
    """1000: each tree is a leaf."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(500, 6)).astype(np.float32)
    y = x[:, 0] + draw.normal(size=500) > 0
    fitted = RandomForestClassifier(25, min_samples_leaf=leaf, random_state=1).fit(x, y)
    new = draw.normal(size=(300, 6)).astype(np.float32)
    assert np.array_equal(Forest.of(fitted).mean_share(new), fitted.predict_proba(new)[:, 1])


def test_the_second_stage_learns_from_probabilities_of_records_held_out():
    """Of a forest that has learnt noise by heart, its own records would be known."""
    case = noisy_releases(n=300)
    draw = np.random.default_rng(5)
    noise = draw.random(case.evidence.member.shape) < 0.5
    evidence = replace(case.evidence, member=noise)
    records, of_targets = compleak_mr.stacked_inputs(evidence, 0, always_fit)
    assert records.x.shape == (4 * 300, 3) and of_targets.shape == (300, 3)
    assert records.x[:, 0] + records.x[:, 1] == pytest.approx(np.ones(1200), abs=1e-6)
    pooled = compleak.pooled_records(evidence, evidence.shadows, evidence.also["original"].shadows)
    by_heart = compleak.fit_forest(pooled, 0, always_fit).score(pooled.x)
    assert auc(by_heart, records.member) > 0.65
    assert auc(records.x[:, 1], records.member) == pytest.approx(0.5, abs=0.06)


def test_inputs_worked_by_hand():
    """Release by release the probabilities of a non-member and a member, then all losses."""
    found = compleak_mr.inputs(
        [np.array([0.25, 1.0]), np.array([0.5, 0.125])],
        [np.array([1.0, 2.0]), np.array([3.0, 4.0])],
    )
    assert found.dtype == np.float32
    assert found.tolist() == [[0.75, 0.25, 0.5, 0.5, 1, 3], [0, 1, 0.875, 0.125, 2, 4]]


def test_the_releases_but_the_first_other_one_are_the_compressed_ones():
    """Their losses are in the inputs: this one's and the third one's, and not the reference's."""
    evidence = noisy_releases(n=200).evidence
    third = noisy_releases(1, n=200).evidence.releases()[0]
    evidence = replace(evidence, also=evidence.also | {"int8": third})
    records, of_targets = compleak_mr.stacked_inputs(evidence, 0, always_fit)
    assert of_targets.shape == (200, 6)
    rows = np.arange(200), evidence.labels
    for column, release in ((4, evidence.releases()[0]), (5, third)):
        expected = -np.log(release.victim.posteriors()[0][rows])
        assert of_targets[:, column] == pytest.approx(expected, rel=1e-5)
        of_shadows = [-np.log(one.posteriors()[0][rows]) for one in release.shadows]
        assert records.x[:, column] == pytest.approx(np.concatenate(of_shadows), rel=1e-5)


def test_a_sequence_is_the_log_odds_of_each_release_and_the_class():
    p = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    q = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    of = [Signals.from_posteriors(one) for one in (p, q)]
    found = trajectory.sequences(of, np.array([0, 2]), np.array([True, True]))
    expected = [[0, np.log(4), 1, 0, 0], [np.log(1.5), np.log(4), 0, 0, 1]]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
    one = trajectory.sequences(of, np.array([0, 2]), np.array([False, True]))
    assert np.array_equal(one, found[1:])


def test_thresholds_of_trajectory_are_of_records_that_a_network_did_not_learn(monkeypatch):
    """The networks are those of the folds; the score is the mean of all three."""
    evidence = noisy_releases(n=200, shadows=6).evidence
    seen = []
    fit = trajectory.Learner.fit

    def watched(self, network, x, member, config, *, part="", dev=None):
        model = fit(self, network, x, member, config, part=part, dev=dev)
        seen.append((model, x, member, dev))
        return model

    monkeypatch.setattr(trajectory.Learner, "fit", watched)
    verdict = attack("trajectory", evidence)["trajectory"]
    x, member = seen[0][1], seen[0][2]
    shadow = np.repeat(np.arange(6), 200)
    assert len(seen) == 3 and sum(dev.astype(int) for *_, dev in seen).tolist() == [1] * 1200
    held = np.empty(1200)
    for model, _, _, dev in seen:
        assert len(set(shadow[dev])) == 2  # whole shadow models
        held[dev] = trajectory.member_log_odds(model, x[dev])
    assert verdict.threshold == best_threshold(held[member], held[~member])
    releases = [one.victim for one in evidence.releases()]
    targets = torch.from_numpy(trajectory.sequences(releases, evidence.labels, evidence.target))
    each = [trajectory.member_log_odds(model, targets) for model, *_ in seen]
    assert verdict.scores == pytest.approx(np.mean(each, axis=0))


def test_one_shadow_model_is_enough():
    case = noisy_releases(n=600, shadows=2)
    one = replace(
        case.evidence,
        shadows=case.evidence.shadows[:1],
        member=case.evidence.member[:1],
        calibration_mask=case.evidence.calibration_mask[:1],
        also={
            name: replace(release, shadows=release.shadows[:1])
            for name, release in case.evidence.also.items()
        },
    )
    for name in NAMES:
        assert auc(attack(name, one)[name].scores, case.truth) > 0.7, name
