"""MemGuard against the authors' search for one record at a time, and what its budget promises."""

import numpy as np
import pytest
import torch
from torch import nn

from base_model import Context, TrainSet
from datasets import Records
from defenders import DEFENDERS
from defenders.memguard import (
    DISTORTION_WEIGHTS,
    STEPS,
    _descend,
    of_half,
    sorted_posteriors,
    undecided,
)


def a_classifier(seed=0, inputs=4):
    draw = torch.Generator().manual_seed(seed)
    layers = nn.Linear(inputs, 8), nn.Linear(8, 1)
    for layer in layers:
        nn.init.normal_(layer.weight, std=1.5, generator=draw)
        nn.init.normal_(layer.bias, std=0.3, generator=draw)
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Flatten(0)).double()
    network.requires_grad_(False)
    layers[1].bias -= network(sorted_posteriors(some_logits())).median()
    return network


def some_logits(n=40, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, 4, generator=draw, dtype=torch.float64)


def h_of(classifier, z):
    return classifier(torch.softmax(z, 0).sort().values[None])[0]


def search(classifier, start):
    """What the authors' loop does for one record; sorted anew in each step, as ours is."""
    start, best = start.clone(), start.clone()
    top, p_0, h_0 = start.argmax(), torch.softmax(start, 0), h_of(classifier, start)
    if abs(torch.sigmoid(h_0) - 0.5) <= 1e-5:
        return best
    c = 0.1
    while c <= 1.0001e5:
        z, tries = start.clone(), 0
        while tries < 299 and (z.argmax() != top or h_of(classifier, z) * h_0 > 0):
            z.requires_grad_()
            others = torch.cat([z[:top], z[top + 1 :]])
            loss = h_of(classifier, z).abs() + 10 * torch.relu(others.max() - z[top])
            loss = loss + c * (torch.softmax(z, 0) - p_0).abs().sum()
            (slope,) = torch.autograd.grad(loss, z)
            if slope.norm() == 0:
                break
            z = z.detach() - 0.1 * slope / slope.norm()
            tries += 1
        if z.argmax() != top or h_of(classifier, z) * h_0 > 0:
            break
        best, c = z, 10 * c
    return best


def test_all_records_at_once_as_each_alone():
    classifier, z = a_classifier(), some_logits(12)
    found = undecided(classifier, z)
    expected = torch.stack([search(classifier, one) for one in z])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    changed = (found != z).any(dim=1)
    assert 0.4 < changed.float().mean() <= 1
    assert torch.equal(found.argmax(1), z.argmax(1))
    # a step of 0.1 behind one half at most
    side = classifier(z.softmax(1).sort(1).values)
    after = classifier(found.softmax(1).sort(1).values)
    assert (side * after)[changed].le(0).all()
    assert of_half(classifier, found)[changed].max() < 0.05 < of_half(classifier, z)[changed].mean()


def test_one_step_by_hand():
    """h = 2 p_min - p_max of two classes: from p = (.8, .2), h = -.4, the logits go together."""
    classifier = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)).double().requires_grad_(False)
    classifier[0].weight.copy_(torch.tensor([[2.0, -1.0]]))
    classifier[0].bias.zero_()
    start = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
    z, crossed = _descend(classifier, start, 0.0)
    # h is 0 where the posteriors are 2/3, 1/3: log 4 - log 2 apart, in steps of 0.1 sqrt 2
    count = int(np.ceil((np.log(4) - np.log(2)) / (0.1 * np.sqrt(2))))
    assert crossed.all() and count == 5
    moved = 0.1 * count / np.sqrt(2)
    assert z[0].tolist() == pytest.approx([np.log(0.8) - moved, np.log(0.2) + moved])


def test_where_there_is_no_way_the_answer_stays():
    classifier = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double().requires_grad_(False)
    classifier[0].weight.zero_()
    classifier[0].bias.fill_(3.0)
    z = some_logits(5)
    assert torch.equal(undecided(classifier, z), z)
    classifier[0].bias.zero_()  # at one half as it is
    assert torch.equal(undecided(classifier, z), z)
    saturated = torch.tensor([[2000.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.isfinite(undecided(a_classifier(), saturated)).all()
    assert STEPS == 299 and [*DISTORTION_WEIGHTS] == pytest.approx([0.1, 1, 10, 100, 1e3, 1e4, 1e5])


class Separating(nn.Module):
    """Confident on records whose first number is high."""

    def forward(self, x):
        return torch.stack([4 * x[:, 0], x[:, 1], x[:, 2], x[:, 3]], dim=1)


@pytest.fixture(scope="module")
def setting():
    n, draw = 600, torch.Generator().manual_seed(0)
    x = torch.rand(n, 4, generator=draw)
    x[: n // 2, 0] += 1
    records = Records(x=x, y=torch.zeros(n, dtype=torch.int64), num_cls=4)
    data = TrainSet(records, torch.arange(n // 2), torch.arange(n // 2, n))
    network = Separating()
    defence = DEFENDERS.load("memguard")(2.0)
    defence.setup_release(network.eval(), Context(data, batch_size=8, generator=draw))
    return defence, network, x


def test_the_classifier_learns_from_train_and_dev_and_noise_takes_that_from_it(setting):
    defence, network, x = setting
    logits = network(x)
    member = torch.arange(len(x)) < len(x) // 2
    guess = defence.classifier(logits.double().softmax(1).sort(1).values)
    assert ((guess > 0) == member).float().mean() > 0.85
    shown = defence.release(logits, x)
    assert shown.dtype == logits.dtype and torch.equal(shown.argmax(1), logits.argmax(1))
    of_answers = of_half(defence.classifier, shown.double())
    assert of_answers.mean() < 0.15
    assert of_half(defence.classifier, logits.double()).mean() > 0.25
    # alike in any batch and order
    parts = [defence.release(logits[i : i + 150], x[i : i + 150]) for i in range(0, 600, 150)]
    torch.testing.assert_close(torch.cat(parts), shown, rtol=1e-6, atol=1e-6)
    backwards = defence.release(logits.flip(0), x.flip(0)).flip(0)
    torch.testing.assert_close(backwards, shown, rtol=1e-6, atol=1e-6)


def test_the_budget_bounds_the_expected_distortion(setting, monkeypatch):
    defence, network, x = setting
    logits = network(x)
    p = logits.double().softmax(1)
    full = (defence.release(logits, x).double().softmax(1) - p).abs().sum(1)
    assert 0.2 < full.mean() < 2
    for budget in (0.0, 0.05, 0.2):
        monkeypatch.setattr(defence, "strength", budget)
        length = (defence.release(logits, x).double().softmax(1) - p).abs().sum(1)
        added = length > 0
        torch.testing.assert_close(length[added], full[added])  # whole or not at all
        expected = torch.where(full > 0, (budget / full).clamp(max=1), 0).mean().item()
        assert added.float().mean().item() == pytest.approx(expected, abs=0.06)
        assert length.mean().item() <= budget * 1.2
