"""The losses of the defences against numbers worked out by hand."""

import itertools
import math

import pytest
import torch
from helpers import a_batch
from torch import nn
from torch.nn import functional as F

from base_model import BaseModel, Context, TrainConfig, TrainSet
from datasets import Records
from defenders import DEFENDERS
from defenders.adv import ATTACK_STEPS, AdversarialRegularization
from defenders.ppb import pair_divergence


def logits_of(*posteriors):
    return torch.tensor(posteriors, dtype=torch.float64).log()


def test_ppb_on_four_records_worked_by_hand():
    # ranked: pairs (.8 .2 | .6 .4) and (.5 .5 | .9 .1); KL(second half || first half)
    logits = logits_of([0.2, 0.8], [0.5, 0.5], [0.6, 0.4], [0.1, 0.9])
    first = 0.6 * math.log(0.6 / 0.8) + 0.4 * math.log(0.4 / 0.2)
    second = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert pair_divergence(logits).item() == pytest.approx((first + second) / 2)
    assert (first + second) / 2 == pytest.approx(0.23636, abs=1e-5)


def test_ppb_leaves_an_odd_record_out_of_the_pairs_alone():
    four = logits_of([0.2, 0.8], [0.5, 0.5], [0.6, 0.4], [0.1, 0.9])
    five = torch.cat([four, logits_of([0.3, 0.7])])
    assert pair_divergence(five) == pair_divergence(four)
    y = torch.tensor([0, 1, 0, 1, 0])
    loss = DEFENDERS.load("ppb")(4.0).loss(nn.Identity(), a_batch(five, y))
    cross_entropy = -sum(math.log(p) for p in (0.2, 0.5, 0.6, 0.9, 0.3)) / 5
    assert loss.item() == pytest.approx(cross_entropy + 4 * pair_divergence(four).item())


def test_ppb_sends_gradients_through_both_halves_and_bears_a_single_record():
    logits = logits_of([0.2, 0.8], [0.6, 0.4]).requires_grad_()
    pair_divergence(logits).backward()
    assert logits.grad.abs().sum(dim=1).gt(0).all()
    assert pair_divergence(logits[:1]).item() == 0


def adv_setting(strength):
    draw = torch.Generator().manual_seed(0)
    records = Records(x=torch.randn(40, 5, generator=draw), y=torch.arange(40) % 3, num_cls=3)
    defender = DEFENDERS.load("adv")(strength)
    defender.setup(
        Context(
            TrainSet(records, torch.arange(30), torch.arange(30, 40)), batch_size=8, generator=draw
        )
    )
    network = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))
    return records, defender, network


def test_adv_trains_its_attack_seven_steps_and_then_subtracts_its_loss():
    records, defender, network = adv_setting(2.0)
    calls = []
    step = defender.optimizer.step
    defender.optimizer.step = lambda: (
        calls.append((network.training, defender.attack.training)) or step()
    )
    network.train()
    x, y = records.batch(torch.arange(8))
    torch.manual_seed(0)  # nn.Dropout here draws from the global generator
    loss = defender.loss(network, a_batch(x, y))
    assert calls == [(False, True)] * ATTACK_STEPS == [(False, True)] * 7
    assert network.training and not defender.attack.training
    torch.manual_seed(0)
    logits = network(x)
    seen = torch.cat([logits.softmax(1), F.one_hot(y, 3).float()], dim=1)
    member = defender.attack(seen).softmax(1)[:, 1]
    by_hand = F.cross_entropy(logits, y) + 2.0 * member.log().mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_adv_multiplies_its_attacks_own_loss_by_the_strength_too():
    gradients = []
    for strength in (1.0, 3.0):
        torch.manual_seed(0)  # nn.Linear here starts from the global generator
        records, defender, network = adv_setting(strength)
        defender._attack_step(network.eval())
        gradients.append([parameter.grad for parameter in defender.attack.parameters()])
    for once, thrice in zip(*gradients, strict=True):
        torch.testing.assert_close(thrice, 3 * once)


def test_advs_attack_learns_to_tell_train_from_dev():
    records, defender, network = adv_setting(1.0)
    records.x[:30, 0] += 20  # a network that gives its members away
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].weight[0, 0] = 1.0
    for _ in range(30):
        defender.loss(network, a_batch(*records.batch(torch.arange(8))))
    posterior = network.eval()(records.x).softmax(1)
    says = defender.attack(torch.cat([posterior, F.one_hot(records.y, 3).float()], dim=1)).argmax(1)
    assert says[:30].float().mean() > 0.9 and says[30:].float().mean() < 0.4


def test_adv_learns_and_teaches_in_bfloat16_too():
    """The attack's steps are seen by the next, and the classifier gets gradients, although autocast casts weights."""
    draw = torch.Generator().manual_seed(0)
    records = Records(x=torch.randn(40, 4, generator=draw), y=torch.arange(40) % 3, num_cls=3)
    network, defender = torch.nn.Linear(4, 3), AdversarialRegularization(1.0)
    defender.setup(
        Context(
            TrainSet(records, torch.arange(30), torch.arange(30, 40)), batch_size=8, generator=draw
        )
    )
    model = BaseModel(network, device=torch.device("cpu"), generator=draw, precision="bf16")
    answers, weights = [], []
    defender.attack.register_forward_hook(
        lambda *_: answers.append(
            [parameter.detach().clone() for parameter in defender.attack.parameters()]
        )
    )
    network.register_forward_hook(
        lambda *_: weights.append(network.weight.detach().clone()) if network.training else None
    )
    model.train(
        TrainSet(records, torch.arange(30)),
        TrainConfig(epochs=2, batch_size=8),
        generator=draw,
        objective=defender,
    )
    for before, after in itertools.pairwise(
        answers[:8]
    ):  # seven steps, then the classifier's query
        assert not torch.equal(before[0], after[0])
    assert len(weights) == 8 and not torch.equal(weights[0], weights[1])
    logits = []
    hook = defender.attack.register_forward_hook(lambda _, inputs, out: logits.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        defender.loss(network, a_batch(*records.batch(torch.arange(8))))
    hook.remove()
    assert set(logits) == {torch.float32}


def test_basic_is_cross_entropy():
    logits = logits_of([0.2, 0.8], [0.5, 0.5])
    loss = DEFENDERS.load("")().loss(nn.Identity(), a_batch(logits, torch.tensor([1, 0])))
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2)
