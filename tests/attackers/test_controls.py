"""Negative controls: where nothing is memorised, or membership means nothing, attacks must fail.

Each is judged by its decisions and by the order of its scores: a bad threshold can hide scores that tell, and a good
one scores that don't.
"""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cases import as_seen_by
from scipy.stats import binom, norm
from signal_cases import all_signals

import attackers.compleak
import attackers.compleak_mr
import attackers.distillation
import attackers.neural
import attackers.qmia
import attackers.trajectory
from attackers import (
    ATTACKS,
    VERDICTS,
    Evidence,
    LabelOnlyEvidence,
    Signals,
    attack,
    blindmi,
    metrics,
    unfit,
)
from attackers.copies import UnitCube
from attackers.label_only_evidence import ClassSignals
from attackers.signals import Release
from base_model import BaseModel, TrainConfig, TrainSet
from bench.label_only import class_signals, query_copies, query_distances
from bench.signals import query
from core.devices import generator
from datasets import Records, load, split
from models import build

CPU = torch.device("cpu")
SHADOWS = {"paper": 3, "inout": 6}  # the fewest with which all attacks can be made
KINDS = list(SHADOWS)
# networks that learn from shadow models' signals; all other attacks are a formula for each record
TRAINED = (
    *("samia", "nn", "nn_top3", "nn_cls", "nn_joint", "compleak_sr", "compleak_mr", "trajectory"),
    *("loss_trajectory", "seqmia"),
)


def made_in(kinds=KINDS):
    """Every attack in every split in which it can be made."""
    return [
        pytest.param(
            name,
            kind,
            id=f"{name}-{kind}",
            marks=[] if why is None else pytest.mark.skip(reason=why),
        )
        for kind in kinds
        for name in ATTACKS
        for why in [
            unfit(name, online=kind == "inout", shadow_num=SHADOWS[kind], also=["original"])
        ]
    ]


def verdicts(name, evidence):
    """What an attack says after a short training, if it has one."""
    short = (
        TrainConfig(epochs=3, optimizer="sgd", lr=1e-2)
        if name == "samia"
        else TrainConfig(epochs=8, optimizer="sgd", lr=3e-2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attackers.neural, "CONFIG", short)
        patch.setattr(attackers.qmia, "CONFIG", TrainConfig(epochs=8))
        patch.setattr(attackers.compleak, "TREES", 50)
        patch.setattr(attackers.distillation, "TRAJECTORY_CONFIG", short)
        patch.setattr(attackers.distillation, "SEQUENCE_CONFIG", TrainConfig(epochs=8, lr=5e-3))
        patch.setattr(attackers.compleak_mr, "CONFIG", short)
        patch.setattr(attackers.trajectory, "CONFIG", TrainConfig(epochs=8))
        return attack(
            name, evidence, device=CPU, seed=0, progress=lambda *_: (lambda *_: None, lambda: None)
        )


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """800 digits as a table; seven in ten have any class, so that there is something to memorise."""
    whole, draw = (
        load("digits", data_root="unused", num_cls=10, input_dim=64),
        np.random.default_rng(3),
    )
    chosen = torch.from_numpy(draw.permutation(len(whole))[:800])
    y = whole.y[chosen].clone()
    wrong = torch.from_numpy(draw.random(800) < 0.7)
    y[wrong] = torch.from_numpy(draw.integers(10, size=int(wrong.sum())))
    return Records(x=whole.x[chosen].flatten(1).float() / 128 - 1, y=y, num_cls=10)


def prune_half(network):
    """Set the smaller half of each layer's weights to 0: what is released beside the whole models."""
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight[weight.abs() <= weight.abs().median()] = 0


def evidence_of_models(records, *, kind, epochs):  # long: all that is asked of each model
    """What an attacker has of models that are trained for so long, who of the targets is a member, and the networks."""
    parts = split(len(records), seed=7, shadow_num=SHADOWS[kind], kind=kind)
    everyone, roles = np.arange(len(records)), list(parts)
    member = {role: np.isin(everyone, parts[role].train) for role in roles}
    calibration_mask = {role: member[role] | np.isin(everyone, parts[role].test) for role in roles}
    used = np.logical_or.reduce(
        [calibration_mask[role] for role in roles] + [np.isin(everyone, parts["shadow_0"].dev)]
    )
    record_ids = np.flatnonzero(used)
    signals, pruned, models = {}, {}, {}
    made = blindmi.generate(records, np.flatnonzero(calibration_mask["victim"]), seed=1)
    for role in roles:
        draw = generator(1, role)
        model = BaseModel(
            build("columnfc", shape=records.shape, num_cls=10, generator=draw),
            device=CPU,
            generator=draw,
        )
        if epochs:
            model.train(
                TrainSet(records, torch.from_numpy(parts[role].train)),
                TrainConfig(epochs=epochs),
                generator=draw,
            )
        signals[role] = all_signals(model, records, record_ids, calibration_mask[role], draw)
        if role == "victim":
            generated = Signals(query(model, made, np.arange(len(made)))), made.y.numpy()
        models[role] = copy.deepcopy(model)
        prune_half(model.network)
        pruned[role] = Signals(query(model, records, record_ids))
    shadows = roles[1:]
    evidence = Evidence(
        labels=records.y.numpy()[record_ids],
        victim=signals["victim"],
        shadows=[signals[role] for role in shadows],
        member=np.stack([member[role][record_ids] for role in shadows]),
        calibration_mask=np.stack([calibration_mask[role][record_ids] for role in shadows]),
        target=calibration_mask["victim"][record_ids],
        online=kind == "inout",
        records=records,
        record_ids=record_ids,
        generated=generated,
        also={"pruned": Release(pruned["victim"], [pruned[role] for role in shadows])},
    )
    assert 0 < evidence.target.sum() < len(record_ids)
    return evidence, member["victim"][calibration_mask["victim"]], models


def classes_of_models(evidence, models):
    """What these networks show to an attacker who sees classes alone."""
    cube, signals = UnitCube(evidence.records), []
    for model, mask in zip(models.values(), [evidence.target, *evidence.calibration_mask]):
        record_ids, draw = evidence.record_ids[mask], torch.Generator().manual_seed(3)
        copies = query_copies(model, cube, record_ids, seed=2)
        distances = query_distances(model, cube, record_ids, generator=draw, budget=500)
        of_copies = class_signals("copies", copies, mask)
        signals.append(
            replace(of_copies, distances=class_signals("distances", distances, mask).distances)
        )
    return LabelOnlyEvidence(
        labels=evidence.labels,
        victim=signals[0],
        shadows=signals[1:],
        member=evidence.member,
        calibration_mask=evidence.calibration_mask,
        target=evidence.target,
        strengths=tuple(cube.strengths),
        record_ids=evidence.record_ids,
    )


class Cases:
    """Evidence, and what attacks say of it, both made when first asked for."""

    def __init__(self, records):
        self.records, self.kept = records, {}

    def evidence(self, kind, epochs):
        key = kind, epochs
        if key not in self.kept:
            self.kept[key] = evidence_of_models(self.records, kind=kind, epochs=epochs)
        return self.kept[key]

    def seen_by(self, name, kind, epochs):
        """The evidence of either kind that the attack of this name takes."""
        evidence, _, models = self.evidence(kind, epochs)
        if "label_only" not in ATTACKS[name].options:
            return evidence
        key = "classes", kind, epochs
        if key not in self.kept:
            self.kept[key] = classes_of_models(evidence, models)
        return self.kept[key]

    def verdicts(self, name, kind, epochs):
        key = name, kind, epochs
        if key not in self.kept:
            self.kept[key] = verdicts(name, self.seen_by(name, kind, epochs))
        return self.kept[key]


@pytest.fixture(scope="module")
def cases(digits):
    return Cases(digits)


UNTRAINED, MEMORISED = 0, 60  # epochs; the latter are far beyond need
# The authors' BlindMI has narrow kernels and tells members only where the victim is sure of all of them (p_y of .3 to
# .9 after 60 epochs, of .94 to 1 after 200).
SURE = 200
# judge a record among the twenty of its batch
IN_BATCHES = ("blindmi", "blindmi_scaled")


def memorised(name):
    """After how many epochs the victim of this attack has learnt its records by heart."""
    return SURE if name == "blindmi" else MEMORISED


def within_chance(accuracy, n):
    low, high = binom.interval(0.999, n, 0.5)
    return low / n <= accuracy <= high / n


def beyond_chance(auc, member):
    """By how many of the largest deviations that chance explains (99.9 %) an AUC exceeds one half."""
    m, n = member.sum(), (~member).sum()
    return (auc - 0.5) / (norm.ppf(0.9995) * math.sqrt((m + n + 1) / (12 * m * n)))


@pytest.mark.slow
def test_every_verdict_has_its_control():
    """The registry says which there are, and each comes out under its name; its settings are what it chooses itself."""
    evidence, _ = null_evidence("inout")
    found = {name: verdicts(name, as_seen_by(name, evidence)) for name in ATTACKS}
    assert set(VERDICTS) == {said for of_attack in found.values() for said in of_attack}
    for name, of_attack in found.items():
        in_turn = ATTACKS[name].options.get("in_turn", True)
        assert {one.shadow_scores is not None for one in of_attack.values()} == {in_turn}, name
    made = {param.values[0] for param in made_in() if not param.marks}
    assert made == set(ATTACKS)


def assert_nothing_told(found, member):
    for name, verdict in found.items():
        assert verdict.scores.shape == member.shape and np.isfinite(verdict.scores).all(), name
        assert within_chance(metrics.balanced_accuracy(verdict.member, member), len(member)), name
        assert abs(beyond_chance(metrics.auc(verdict.scores, member), member)) <= 1, name


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", made_in())
def test_an_untrained_model_gives_nothing_away(name, kind, cases):
    _, member, _ = cases.evidence(kind, UNTRAINED)
    assert_nothing_told(cases.verdicts(name, kind, UNTRAINED), member)


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", made_in())
def test_membership_at_random_cannot_be_told(name, kind, cases):
    _, member, _ = cases.evidence(kind, memorised(name))
    assert_nothing_told(
        cases.verdicts(name, kind, memorised(name)), np.random.default_rng(0).permutation(member)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", made_in())
def test_the_same_models_are_attacked_with_success_when_membership_is_theirs(name, kind, cases):
    """So that the two tests above can fail."""
    _, member, _ = cases.evidence(kind, memorised(name))
    found = cases.verdicts(name, kind, memorised(name))
    for verdict_name, verdict in found.items():
        accuracy = metrics.balanced_accuracy(verdict.member, member)
        assert accuracy > 0.5 and not within_chance(accuracy, len(member)), verdict_name
        assert beyond_chance(metrics.auc(verdict.scores, member), member) > 1, verdict_name


# ---- order -----------------------------------------------------------------------------------------------------------


def reordered(evidence, order):
    """The same records in another order."""
    if isinstance(evidence, LabelOnlyEvidence):
        return reordered_classes(evidence, order)

    def moved(signals):
        known = [signals.sensitivity, None, signals.distillation]
        return Signals(
            signals.logits[order], *(None if one is None else one[order] for one in known)
        )

    return replace(
        evidence,
        labels=evidence.labels[order],
        victim=moved(evidence.victim),
        shadows=[moved(shadow) for shadow in evidence.shadows],
        member=evidence.member[:, order],
        calibration_mask=evidence.calibration_mask[:, order],
        target=evidence.target[order],
        record_ids=evidence.record_ids[order],
        also={
            name: Release(moved(release.victim), [moved(one) for one in release.shadows])
            for name, release in evidence.also.items()
        },
    )


def reordered_classes(evidence, order):
    def moved(signals):
        return ClassSignals(*(values[..., order] for values in vars(signals).values()))

    return replace(
        evidence,
        labels=evidence.labels[order],
        victim=moved(evidence.victim),
        shadows=[moved(shadow) for shadow in evidence.shadows],
        member=evidence.member[:, order],
        calibration_mask=evidence.calibration_mask[:, order],
        target=evidence.target[order],
        record_ids=evidence.record_ids[order],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", made_in())
def test_a_record_is_scored_by_its_own_signals_wherever_it_stands(name, kind, cases):
    """Where a network is trained, what it is trained on stays where it is: another order is another training."""
    if name in IN_BATCHES:
        pytest.skip(
            "a record is judged among the twenty of its batch, which depend on where it stands"
        )
    if name in TRAINED and kind == "inout":
        pytest.skip("the targets are what the network is trained on, too")
    evidence = cases.seen_by(name, kind, MEMORISED)
    draw, order = np.random.default_rng(1), np.arange(len(evidence.labels))
    mobile = evidence.target if name in (*TRAINED, "qmia") else np.ones(len(order), bool)
    order[mobile] = draw.permutation(order[mobile])
    again = verdicts(name, reordered(evidence, order))
    for verdict_name, verdict in cases.verdicts(name, kind, MEMORISED).items():
        placed = np.full(len(order), np.nan)
        placed[evidence.target] = verdict.scores
        expected = placed[order][evidence.target[order]]
        assert again[verdict_name].scores == pytest.approx(expected, rel=1e-6, abs=1e-5), (
            verdict_name
        )


# ---- numbers alone ---------------------------------------------------------------------------------------------------


def null_evidence(kind, *, n=800, num_cls=4, shadows=8):
    """Models that all find the same records easy, members no easier than others; who is said to be a member.

    Whom the shadow models were trained on is drawn likewise, in complementary pairs.
    """
    draw = np.random.default_rng(12)
    target = np.arange(n) < n // 2
    calibration_mask = np.tile(target == (kind == "inout"), (shadows, 1))
    halves = [draw.permutation(np.arange(n) % 2 == 0) for _ in range(shadows // 2)]
    member = (
        np.stack([one for half in halves for one in (half, ~half)]) & calibration_mask
    )  # in pairs, as the in/out split
    labels, ease = draw.integers(num_cls, size=n), draw.normal(1, 2, size=n)

    def signals():
        logits = draw.normal(size=(n, num_cls))
        logits[np.arange(n), labels] += ease
        return Signals(
            logits.astype(np.float32),
            draw.exponential(size=(n, num_cls)).astype(np.float32),
            distillation=(ease[:, None, None] + draw.normal(size=(n, 6, 5))).astype(np.float32),
        )

    x = torch.from_numpy(np.column_stack([ease, draw.normal(size=(n, 3))]).astype(np.float32))
    evidence = Evidence(
        labels=labels,
        victim=signals(),
        shadows=[signals() for _ in range(shadows)],
        member=member,
        calibration_mask=calibration_mask,
        target=target,
        online=kind == "inout",
        records=Records(x, torch.from_numpy(labels), num_cls),
        record_ids=np.arange(n),
        generated=(Signals(draw.normal(size=(20, num_cls))), np.arange(20) % num_cls),
    )
    truth = draw.permutation(np.arange(n // 2) % 2 == 0)
    also = {"original": Release(signals(), [signals() for _ in range(shadows)])}
    return replace(evidence, also=also), truth


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", made_in())
def test_members_that_answer_as_others_do_cannot_be_told(name, kind):
    evidence, member = null_evidence(kind)
    assert_nothing_told(verdicts(name, as_seen_by(name, evidence)), member)


def with_views(evidence, count=5):
    """The same, each model asked `count` times more: its logits with noise of their own."""
    draw = np.random.default_rng(13)

    def seen(signals):
        noise = draw.normal(size=(count, *signals.logits.shape))
        return replace(signals, views=tuple(map(Signals, signals.logits + noise)))

    return replace(
        evidence, victim=seen(evidence.victim), shadows=[seen(one) for one in evidence.shadows]
    )


OF_SEVERAL_QUERIES = [
    param
    for param in made_in()
    if "queries" in ATTACKS[param.values[0]].options.get("option_names", ())
]


@pytest.mark.parametrize("name, kind", OF_SEVERAL_QUERIES)
def test_nor_by_several_queries(name, kind):
    evidence, member = null_evidence(kind)
    evidence = with_views(evidence)
    assert_nothing_told(verdicts(name, evidence), member)


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", OF_SEVERAL_QUERIES)
def test_members_are_told_by_several_queries(name, kind, cases):
    evidence, member, _ = cases.evidence(kind, MEMORISED)
    evidence = with_views(evidence)
    for verdict_name, verdict in verdicts(name, evidence).items():
        assert beyond_chance(metrics.auc(verdict.scores, member), member) > 1, verdict_name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lira", "bavaria", "rmia", "base", "calibrated"])
def test_nor_do_thresholds_know_members_of_the_shadow_models(name, kind, monkeypatch):
    """What the shadows' targets score where each plays the victim, from which the threshold comes, tells no more."""
    import attackers.calibration

    pooled, known = attackers.calibration.pooled_scores, []
    monkeypatch.setattr(
        attackers.calibration, "pooled_scores", lambda *of: known.append(pooled(*of)) or known[-1]
    )
    attack(name, null_evidence(kind, n=3000, shadows=6)[0])
    scores, member, _ = known[-1]
    assert len(scores) > 3000 and abs(beyond_chance(metrics.auc(scores, member), member)) <= 1
