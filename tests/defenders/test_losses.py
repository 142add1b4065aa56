"""Defences that change the loss alone, against numbers worked out by hand and other code."""

import math

import numpy as np
import pytest
import torch
from helpers import a_batch
from sklearn.metrics.pairwise import rbf_kernel
from torch import nn
from torch.nn import functional as F

from base_model import BaseModel, Context, TrainConfig, TrainSet
from datasets import Records
from defenders import DEFENDERS
from defenders.mixup_mmd import squared_mmd

CRITERIA = ["relaxloss", "labelsmooth", "confpenalty", "ccel", "ccql"]
P = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]], dtype=torch.float64)
Y = torch.tensor([0, 0])  # the first is taken for class 1


def loss_of(name, strength, logits=None, y=Y, epoch=0):
    logits = P.log() if logits is None else logits
    return DEFENDERS.load(name)(strength).criterion(logits, a_batch(logits, y, epoch))


def some_logits(n=9):
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, 4, generator=draw, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(4, (n,), generator=draw)


def slopes(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def test_relaxloss_holds_the_mean_loss_in_even_epochs_from_either_side():
    mean = -(math.log(0.2) + math.log(0.7)) / 2
    assert mean == pytest.approx(0.983056, abs=1e-6)
    for alpha in (0.5, 1.5):
        assert loss_of("relaxloss", alpha, epoch=2).item() == pytest.approx(abs(mean - alpha))
    logits, y = some_logits()
    plain = slopes(F.cross_entropy(logits, y), logits)
    for alpha, sign in ((0.1, 1), (50, -1)):
        torch.testing.assert_close(
            slopes(loss_of("relaxloss", alpha, logits, y), logits), sign * plain
        )


def test_relaxloss_flattens_the_posteriors_of_wrong_records_in_odd_epochs():
    """Of the first record, wrong: target .2, .4, .4; the second, right, only goes up."""
    first = -(0.2 * math.log(0.2) + 0.4 * math.log(0.5) + 0.4 * math.log(0.3)) + math.log(0.2)
    second = math.log(0.7)
    assert (first + second) / 2 == pytest.approx(-0.44269, abs=1e-5)
    assert loss_of("relaxloss", 1.0, epoch=1).item() == pytest.approx((first + second) / 2)
    mean = -(math.log(0.2) + math.log(0.7)) / 2
    assert loss_of("relaxloss", 0.9, epoch=1).item() == pytest.approx(mean)  # above alpha


def test_relaxloss_sends_gradients_through_its_targets_too():
    logits, y = some_logits()
    own = logits.softmax(1)[range(len(y)), y]
    one_hot = F.one_hot(y, 4)
    target = one_hot * own[:, None] + (1 - one_hot) * ((1 - own) / 3)[:, None]
    wrong = (logits.argmax(1) != y).double()
    assert 0 < wrong.sum() < len(y)
    soft = F.cross_entropy(logits, target, reduction="none")
    expected = (wrong * soft - F.cross_entropy(logits, y, reduction="none")).mean()
    found = loss_of("relaxloss", 50, logits, y, epoch=3)
    assert found.item() == pytest.approx(expected.item())
    torch.testing.assert_close(slopes(found, logits), slopes(expected, logits))


@pytest.mark.parametrize("strength", [0, 0.1, 0.6, 1])
def test_label_smoothing_is_torchs(strength):
    logits, y = some_logits()
    expected = F.cross_entropy(logits, y, label_smoothing=strength)
    torch.testing.assert_close(loss_of("labelsmooth", strength, logits, y), expected)
    by_hand = -sum(
        (1 - strength) * math.log(p[0]) + strength * np.log(p).mean() for p in P.tolist()
    )
    assert loss_of("labelsmooth", strength).item() == pytest.approx(by_hand / 2)


def test_the_confidence_penalty_takes_entropy_off():
    logits, y = some_logits()
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    expected = F.cross_entropy(logits, y) - 0.3 * entropy
    torch.testing.assert_close(loss_of("confpenalty", 0.3, logits, y), expected)


@pytest.mark.parametrize(
    "name, gains", [("ccel", (math.exp(0.2), math.exp(0.7))), ("ccql", (0.2 + 0.02, 0.7 + 0.245))]
)
def test_convex_concave_losses_by_hand(name, gains):
    mean = -(math.log(0.2) + math.log(0.7)) / 2
    expected = 0.8 * mean - 0.2 * sum(gains) / 2
    assert loss_of(name, 0.8).item() == pytest.approx(expected)
    assert loss_of(name, 1).item() == pytest.approx(mean)


@pytest.mark.parametrize("name, slope", [("ccel", math.exp), ("ccql", lambda p: 1 + p)])
def test_convex_concave_losses_fall_with_the_posterior_and_curve_less(name, slope):
    p = torch.tensor([[0.6, 0.4]], dtype=torch.float64)
    logits = p.log().requires_grad_()
    found = slopes(loss_of(name, 0.5, logits, Y[:1]), logits)
    # d/dz_y of a function of p_y is its derivative times p (1 - p)
    expected = -(0.5 / 0.6 + 0.5 * slope(0.6)) * 0.6 * 0.4
    assert found[0].tolist() == pytest.approx([expected, -expected])


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_criterion_is_taken_in_float32_of_bfloat16_logits(name, epoch):
    logits = torch.tensor([[9.0, 1.0, 0.0], [2.0, 3.0, 1.0]], dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(name, 0.5, logits, epoch=epoch)
    assert found.dtype == torch.float32
    expected = loss_of(name, 0.5, logits.double(), epoch=epoch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_can_train_stacks_and_mixup_cannot(name):
    assert DEFENDERS.load(name).is_stackable()
    assert not DEFENDERS.load("mixup_mmd").is_stackable()


def test_the_mmd_is_that_of_all_pairs():
    draw = np.random.default_rng(0)
    first, second = draw.random((5, 3)), draw.random((5, 3))
    of = lambda a, b: rbf_kernel(a, b, gamma=0.5).mean()
    expected = of(first, first) + of(second, second) - 2 * of(first, second)
    found = squared_mmd(torch.from_numpy(first), torch.from_numpy(second))
    assert found.item() == pytest.approx(expected)
    assert squared_mmd(torch.eye(2), torch.eye(2)).item() == pytest.approx(0, abs=1e-7)
    two = squared_mmd(torch.zeros(1, 1), torch.full((1, 1), 2.0))  # by hand: 1 + 1 - 2 e^-2
    assert two.item() == pytest.approx(2 - 2 * math.exp(-2))


def mixup_setting(strength=3.0):
    """30 train records of classes 0, 1, 2 and 9 dev records of classes 0 and 1."""
    draw = torch.Generator().manual_seed(0)
    y = torch.cat([torch.arange(30) % 3, torch.arange(9) % 2])
    records = Records(x=torch.randn(39, 5, generator=draw), y=y, num_cls=3)
    defender = DEFENDERS.load("mixup_mmd")(strength)
    data = TrainSet(records, torch.arange(30), torch.arange(30, 39))
    defender.setup(Context(data, batch_size=10, generator=draw))
    torch.manual_seed(0)  # nn.Linear here starts from the global generator
    return defender, nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.9))


def passes(defender, network):
    """(whether posteriors are matched, record numbers) of each batch of an epoch."""
    defender.network = network
    found = []
    for numbers in defender.batches(torch.arange(30), 10, torch.Generator().manual_seed(1)):
        found.append((defender.matching, numbers.tolist()))
    return found


def with_accuracies(network, defender, *, train, dev):
    """A network that is right for so many train and dev records."""
    records = defender.records
    with torch.no_grad():
        records.x.zero_()
        for right, first, last in ((train, 0, 30), (dev, 30, 39)):
            says = records.y[first:last].clone()
            says[right:] = (says[right:] + 1) % 3
            records.x[first:last, :3] = F.one_hot(says, 3).float()
        network[0].weight.copy_(torch.eye(3, 5))
        network[0].bias.zero_()
    return network.train()


@pytest.mark.parametrize(
    "train, dev, strength, matched",
    [(30, 6, 3.0, True), (20, 6, 3.0, False), (10, 9, 3.0, True), (30, 6, 0.0, False)],
)
def test_posteriors_are_matched_after_an_epoch_where_accuracies_are_apart(
    train, dev, strength, matched
):
    defender, network = mixup_setting(strength)
    found = passes(defender, with_accuracies(network, defender, train=train, dev=dev))
    assert network.training
    mixed = [number for matching, batch in found if not matching for number in batch]
    again = [number for matching, batch in found if matching for number in batch]
    assert sorted(mixed) == list(range(30))
    # those of the class that dev does not have are left out
    assert sorted(again) == ([n for n in range(30) if n % 3 < 2] if matched else [])
    assert [matching for matching, _ in found] == sorted(matching for matching, _ in found)


def test_a_batch_is_mixed_with_itself_in_another_order():
    defender, network = mixup_setting()
    defender.matching = False
    network = network[:1]
    x, y = defender.records.batch(torch.arange(10))
    before = defender.generator.get_state()
    loss = defender.loss(network, a_batch(x, y))
    again = torch.Generator()
    again.set_state(before)
    weight, order = torch.rand((), generator=again), torch.randperm(10, generator=again)
    target = weight * F.one_hot(y, 3) + (1 - weight) * F.one_hot(y[order], 3)
    log_p = network(weight * x + (1 - weight) * x[order]).log_softmax(1)
    assert 0 < weight < 1 and loss.item() == pytest.approx(-(target * log_p).sum(1).mean().item())


def test_weights_of_mixtures_are_uniform():
    defender, network = mixup_setting()
    defender.matching = False
    x, y = torch.ones(2, 1), torch.tensor([0, 1])
    seen = []
    # w x + (1 - w) x' of x = 0 and x' = 1, where the order is the other one
    x[0] = 0
    for _ in range(4000):
        defender.loss(
            lambda mixed: seen.append(mixed[0].item()) or torch.zeros(2, 3), a_batch(x, y)
        )
    weights = np.array([value for value in seen if value > 0])
    assert len(weights) == pytest.approx(2000, abs=150)
    assert np.histogram(weights, bins=4, range=(0, 1))[0] / len(weights) == pytest.approx(
        [0.25] * 4, abs=0.04
    )


def test_a_dev_record_of_the_same_class_is_drawn_any_as_often():
    defender, _ = mixup_setting()
    y = torch.arange(9000) % 2
    drawn = defender._alike(y)
    assert torch.equal(defender.records.y[drawn], y)
    counts = drawn.bincount(minlength=39)
    assert counts[:30].sum() == 0
    # five dev records of class 0, four of class 1
    expected = [4500 / (5 if number % 2 == 0 else 4) for number in range(9)]
    assert counts[30:].tolist() == pytest.approx(expected, rel=0.15)


def test_matching_moves_the_members_alone_and_in_evaluation_mode():
    defender, network = mixup_setting()
    defender.matching = True
    network.train()
    x, y = defender.records.batch(torch.tensor([0, 1, 3, 4]))
    before = defender.generator.get_state()
    loss = defender.loss(network, a_batch(x, y))
    assert network.training
    defender.generator.set_state(before)
    others = defender.records.batch(defender._alike(y))[0]
    still = network[0](others).softmax(1).detach()
    expected = 3 * squared_mmd(network[0](x).softmax(1), still)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and loss > 0
    for found, wanted in zip(
        torch.autograd.grad(loss, network.parameters()),
        torch.autograd.grad(expected, network.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_mixup_mmd_trains_in_bfloat16_with_kernels_in_float32():
    defender, network = mixup_setting()
    dtypes = []
    loss = defender.loss

    def watched(network, batch):
        value = loss(network, batch)
        dtypes.append((defender.matching, value.dtype))
        return value

    defender.loss = watched
    data = TrainSet(defender.records, torch.arange(30))
    with_accuracies(network, defender, train=30, dev=3)
    model = BaseModel(
        network, device=torch.device("cpu"), generator=torch.Generator(), precision="bf16"
    )
    recipe = TrainConfig(epochs=1, batch_size=10, lr=1e-6)
    model.train(data, recipe, generator=defender.generator, objective=defender)
    assert dtypes == [(False, torch.float32)] * 3 + [(True, torch.float32)] * 2
