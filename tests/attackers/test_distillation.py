"""Trajectories: metrics by hand, networks against torch's own, and sequences of which the optimum
is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cases import paired_member
from scipy.stats import entropy, norm
from torch import nn

from attackers import Evidence, attack, distillation
from attackers.distillation import AttentiveLstm, metrics
from attackers.learning import a_share
from attackers.metrics import auc
from attackers.signals import Signals
from base_model import TrainConfig
from core.console import NotApplicable, UserError
from core.devices import generator
from models.layers import initialise


def test_metrics_worked_by_hand():
    p = np.array([0.5, 0.3, 0.2])
    (found,) = metrics(Signals.from_posteriors(p[None]), np.array([1]))
    modified = -(0.7 * np.log(0.3) + 0.5 * np.log(0.5) + 0.2 * np.log(0.8))
    expected = [-np.log(0.3), 0.5, np.std(p), entropy(p), modified]
    assert found == pytest.approx(expected, rel=1e-6)
    assert distillation.METRICS == ("loss", "max", "sd", "entropy", "mentr")


def test_the_lstm_with_attention_is_torchs_step_by_step():
    draw = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(6, 7, 5, generator=draw)
    network = AttentiveLstm(x, hidden=4)
    initialise(network, draw)
    cell = nn.LSTMCell(5, 4)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell.load_state_dict({name: getattr(network.lstm, f"{name}_l0") for name in names})
    flat = x.reshape(-1, 5)
    with torch.no_grad():
        standard = (x - flat.mean(dim=0)) / flat.std(dim=0)
        for row, expected in zip(standard, network(x)):
            state, states = None, []
            for step in row:
                state = cell(step[None], state)
                states.append(state[0][0])
            scores = torch.stack([state @ states[-1] for state in states])
            weights = scores.exp() / scores.exp().sum()
            context = sum(weight * state for weight, state in zip(weights, states))
            logits = network.out(torch.cat([states[-1], context]))
            assert logits.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_seqmia_sees_fifty_epochs_and_the_model_itself():
    sequence = torch.arange(101.0).view(1, 101, 1).expand(2, 101, 5)
    seen = distillation.first_epochs(sequence)[0, :, 0].tolist()
    assert seen == [*range(50), 100]
    assert distillation.first_epochs(sequence[:, :4])[0, :, 0].tolist() == [0, 1, 2, 3]
    assert distillation.losses(sequence).shape == (2, 101)


def test_a_fifth_of_members_and_of_others_is_held_out():
    member = np.array([1, 0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0]) == 1
    draws = [a_share(member, 0.2, generator(seed, "held out")) for seed in range(20)]
    assert all(member[held].sum() == 1 and held.sum() == 3 for held in draws)
    assert np.sum(draws, axis=0).all()  # each may be drawn
    with pytest.raises(NotApplicable, match="fewer than 2 members"):
        a_share(np.array([True, False, False]), 0.2, generator(0, "held out"))


def evidence_of(shift, *, n=1200, epochs=4, shadows=6, seed=0):
    """Two classes; after each epoch and at the end, the log odds of a record have noise of their
    own, and a member's are higher by `shift` (epochs + 1,); and the truth.

    All say the same of a record alike: the optimum is a sum weighted by `shift`.
    """
    draw = np.random.default_rng(seed)
    member, truth = paired_member(draw, shadows, n), draw.random(n) < 0.5

    def posteriors(member):
        phi = draw.normal(size=(epochs + 1, n)) + np.asarray(shift)[:, None] * member
        p = 1 / (1 + np.exp(-phi))
        return np.stack([p, 1 - p], axis=2)

    victim, of_shadows = posteriors(truth), np.stack([posteriors(one) for one in member])
    evidence = Evidence.from_posteriors(
        np.zeros(n, int),
        victim=victim[-1],
        shadows=of_shadows[:, -1],
        member=member,
        distillation=(victim[:-1], of_shadows[:, :-1]),
    )
    return evidence, truth


@pytest.fixture
def quicker(monkeypatch):
    for name, epochs in (("TRAJECTORY_CONFIG", 8), ("SEQUENCE_CONFIG", 6)):
        config: TrainConfig = getattr(distillation, name)
        monkeypatch.setattr(distillation, name, replace(config, epochs=epochs))


@pytest.mark.parametrize("name", ["loss_trajectory", "seqmia"])
@pytest.mark.parametrize("shift", [(0.7, 0.7, 0.7, 0.7, 0.7), (1.2, 0, 0, 0, 0.6)])
def test_what_epochs_tell_is_added_up(name, shift, quicker):
    """The optimum's AUC is Phi(|shift| / sqrt 2); the model alone has that of its own shift."""
    evidence, truth = evidence_of(shift)
    verdict = attack(name, evidence)[name]
    best, alone = (norm.cdf(np.linalg.norm(of) / 2**0.5) for of in (shift, shift[-1:]))
    error = 3 * 0.5 / np.sqrt(len(truth))
    assert best - 0.02 - error < auc(verdict.scores, truth) < best + error
    assert auc(verdict.scores, truth) > alone + 0.05
    optimal = norm.cdf(np.linalg.norm(shift) / 2)  # its accuracy
    assert np.mean(verdict.member == truth) > optimal - 0.03 - error


@pytest.mark.parametrize("name", ["loss_trajectory", "seqmia"])
def test_the_epoch_and_the_threshold_are_those_of_held_out_records(name, quicker):
    evidence, truth = evidence_of((0, 0, 0, 0, 0))
    verdict = attack(name, evidence)[name]
    assert abs(auc(verdict.scores, truth) - 0.5) < 3 * 0.5 / np.sqrt(len(truth))
    assert verdict.threshold != 0


def test_where_nothing_was_distilled_a_line_says_why():
    evidence, _ = evidence_of((0,) * 5, n=40)
    without = replace(evidence, victim=replace(evidence.victim, distillation=None))
    with pytest.raises(NotApplicable, match="seqmia distils .* at least 20, not 0"):
        attack("seqmia", without)
    few = np.arange(40) < 20
    masks = np.tile(few, (6, 1))
    with pytest.raises(UserError, match=r"distillation=\.\.\.") as caught:
        attack("seqmia", replace(without, target=few, calibration_mask=masks))
    assert not isinstance(caught.value, NotApplicable)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (3, "distillation must be a pair"),
        ((np.zeros((2, 5, 2)), np.zeros((3, 2, 5, 2))), r"distillation\[0\] must be posteriors"),
        (
            (np.full((2, 8, 2), 0.5), np.full((2, 2, 8, 2), 0.5)),
            r"distillation\[1\] must be of the 3 shadows",
        ),
        ((np.full((2, 8, 2), 0.5), np.full((3, 4, 8, 2), 0.5)), r"distillation\[1\]\[0\] must be"),
        (
            (np.full((2, 8, 2), 5.0), np.full((3, 2, 8, 2), 0.5)),
            r"distillation\[0\]\[0\]\[0, 0, 0\]|from 0 to 1",
        ),
    ],
)
def test_trajectories_that_do_not_fit_are_refused(wrong, said):
    half = np.full((8, 2), 0.5)
    with pytest.raises(ValueError, match=said):
        Evidence.from_posteriors(
            np.zeros(8, int),
            victim=half,
            shadows=np.stack([half] * 3),
            member=np.tile(np.arange(8) < 4, (3, 1)),
            distillation=wrong,
        )
