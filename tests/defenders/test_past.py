"""Privacy-aware sparsity tuning, against differences and sums by hand."""

import math

import pytest
import torch
from helpers import a_batch
from torch import nn
from torch.nn import functional as F

from base_model import BaseModel, Context, TrainConfig, TrainSet
from datasets import Records
from defenders import DEFENDERS
from pruner import mask

TRAIN, DEV = torch.arange(12), torch.arange(12, 18)


class Exact(Records):
    """Records in float64, as differences need them."""

    def batch(self, indices):
        return self.x[indices], self.y[indices]


def setting(strength=0.1, size=5, train=TRAIN):
    """A network in float64 with a mask and dropout, and a defender that is set up."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(18, 4, generator=draw, dtype=torch.float64)
    records = Exact(x=x, y=torch.arange(18) % 3, num_cls=3)
    torch.manual_seed(0)  # nn.Linear here starts from the global generator
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    keep = torch.ones(5, 4, dtype=torch.bool)
    keep[:, 1] = False
    mask.attach_masks(network, {"0.weight": keep})
    defender = DEFENDERS.load("past")(strength)
    defender.setup(Context(TrainSet(records, train, DEV), batch_size=size, generator=draw))
    return defender, network, keep


def gap(network, records, members):
    """Mean loss of dev less that of members, without dropout."""
    network.eval()
    with torch.no_grad():
        value = F.cross_entropy(network(records.x[DEV]), records.y[DEV]) - F.cross_entropy(
            network(records.x[members]), records.y[members]
        )
    network.train()
    return value.item()


def difference(network, parameter, place, of):
    """The derivative of a function of the network by a weight, from both sides."""
    with torch.no_grad():
        parameter[place] += 1e-5
        above = of()
        parameter[place] -= 2e-5
        below = of()
        parameter[place] += 1e-5
    return (above - below) / 2e-5


def test_a_weight_s_factor_is_its_share_of_the_gap_s_slope_in_its_layer():
    """As many train records as dev has; here these are all, so that none is drawn by chance."""
    defender, network, keep = setting(train=TRAIN[:6])
    network.train()
    defender.loss(network, a_batch(*defender.data.records.batch(TRAIN[:6])))
    assert network.training
    for layer, count in ((network[0], 15 + 5), (network[3], 15 + 3)):
        slopes = {
            parameter: torch.tensor(
                [
                    difference(
                        network,
                        parameter,
                        tuple(place.tolist()),
                        lambda: gap(network, defender.data.records, TRAIN[:6]),
                    )
                    for place in torch.ones(parameter.shape).nonzero()
                ],
                dtype=torch.float64,
            ).view(parameter.shape)
            for parameter in layer.parameters()
        }
        if layer is network[0]:
            slopes[layer.weight] *= keep
        total = sum(slope.abs().sum() for slope in slopes.values())
        for parameter, slope in slopes.items():
            expected = (count * slope.abs() / total) ** 2.5
            torch.testing.assert_close(defender.factors[parameter], expected, rtol=1e-5, atol=1e-9)
    assert defender.factors[network[0].weight][~keep].eq(0).all()
    roots = [(factor**0.4).sum().item() for factor in defender.factors.values()]
    assert [roots[0] + roots[1], roots[2] + roots[3]] == pytest.approx([20, 18])


def test_the_penalty_is_the_weighted_l1_norm_and_sends_its_slope_through_weights_alone():
    defender, network, _ = setting(strength=0.3)
    network[2].p = 0.0
    batch = a_batch(*defender.data.records.batch(TRAIN))
    loss = defender.loss(network, batch)
    plain = F.cross_entropy(network(batch.x), batch.y)
    penalty = sum(
        factor * abs(weight)
        for parameter, factors in defender.factors.items()
        for weight, factor in zip(parameter.flatten().tolist(), factors.flatten().tolist())
    )
    assert penalty > 1 and loss.item() == pytest.approx(plain.item() + 0.3 * penalty)
    parameters = list(network.parameters())
    found, expected = (torch.autograd.grad(one, parameters) for one in (loss, plain))
    for parameter, slope, without in zip(parameters, found, expected):
        more = 0.3 * defender.factors[parameter] * parameter.detach().sign()
        torch.testing.assert_close(slope, without + more)


def test_factors_are_of_the_epoch_and_other_train_records_each_time():
    defender, network, _ = setting()
    x, y = defender.data.records.batch(TRAIN)
    weight, drawn = network[3].weight, []
    for epoch in (0, 0, 1):
        defender.loss(network, a_batch(x, y, epoch))
        drawn.append(defender.factors[weight])
    assert drawn[0] is drawn[1] and not torch.equal(drawn[0], drawn[2])


def test_the_gap_is_the_same_in_smaller_batches():
    found = []
    for size in (2, 5, 100):
        defender, network, _ = setting(size=size)
        defender.loss(network, a_batch(*defender.data.records.batch(TRAIN)))
        found.append(torch.cat([factor.flatten() for factor in defender.factors.values()]))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_a_layer_that_does_not_bear_on_the_gap_is_not_penalised():
    defender, network, _ = setting()
    with torch.no_grad():
        network[3].weight.zero_()
        network[3].bias.zero_()
    loss = defender.loss(network, a_batch(*defender.data.records.batch(TRAIN)))
    assert loss.item() == pytest.approx(math.log(3))
    assert all(defender.factors[parameter].eq(0).all() for parameter in network[0].parameters())


def gap_after_tuning(strength):
    """Test less train loss of a network that has memorised records with wrong labels."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(120, 10, generator=draw)
    wrong = torch.rand(120, generator=draw) < 0.3
    records = Records(x=x, y=((x[:, 0] > 0) ^ wrong).long(), num_cls=2)
    data = TrainSet(records, torch.arange(40), torch.arange(40, 80))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 2))
    model = BaseModel(network, device=torch.device("cpu"), generator=draw)
    last = TrainSet(records, data.train)  # without dev the last epoch is kept
    config = TrainConfig(epochs=60, batch_size=40, lr=1e-2)
    model.train(last, config, generator=draw)
    defender = DEFENDERS.load("past")(strength)
    defender.setup(Context(data, batch_size=40, generator=draw))
    model.train(last, config, generator=draw, objective=defender)
    with torch.no_grad():
        losses = F.cross_entropy(network(x), records.y, reduction="none")
    return (losses[80:].mean() - losses[:40].mean()).item()


def test_it_closes_the_gap():
    assert gap_after_tuning(1e-2) < gap_after_tuning(0.0) / 2
