"""Defences that ask for sub-models or for the original, against numbers worked out by hand and
simulations whose truth is known."""

import math

import pytest
import torch
from helpers import a_batch
from torch import nn
from torch.nn import functional as F

from base_model import BaseModel, Batch, Context, TrainConfig, TrainSet
from core.console import UserError
from datasets import Records
from defenders import DEFENDERS
from defenders.radd import Budget
from defenders.sub_models import FOLDS, memorisation
from defenders.wemem import Windows, sized_windows, sort_classes

N, C = 60, 3


def records(n=N, num_cls=C):
    draw = torch.Generator().manual_seed(0)
    return Records(torch.randn(n, 4, generator=draw), torch.arange(n) % num_cls, num_cls)


def simulated(memorised, *, base=0.3, seed=0, train=None, **more):
    """A context whose sub-models give a record's class `base`, and `memorised` (N,) more if they
    were trained on it; also a list of the subsets that were asked for."""
    data = TrainSet(records(), torch.arange(N) if train is None else train, torch.arange(9))
    asked = []

    def sub_models(subsets):
        asked.extend(subsets)
        y = F.one_hot(data.records.y[data.train], C).double()
        found = []
        for subset in subsets:
            seen = torch.isin(data.train, subset)
            own = base + memorised[data.train] * seen
            rest = (1 - own) / (C - 1)
            found.append((y * own[:, None] + (1 - y) * rest[:, None]).log())
        return torch.stack(found)

    draws = {"generator": torch.Generator(), "subsets": torch.Generator().manual_seed(seed)}
    how = {"batch_size": 10, "sub_models": sub_models} | draws | more
    return Context(data, **how), asked


def some_memorisation():
    return torch.linspace(0, 0.65, N)[torch.randperm(N, generator=torch.Generator().manual_seed(3))]


@pytest.mark.parametrize("train", [None, torch.arange(N).flip(0)[:31]])
def test_memorisation_is_what_a_record_adds_to_its_own_posterior(train):
    truth = some_memorisation()
    context, asked = simulated(truth, train=train)
    train = context.data.train
    torch.testing.assert_close(memorisation(context), truth[train].double(), atol=1e-6, rtol=0)
    # each record is left out of one network, and folds are as equal as can be
    times = sum(torch.isin(train, subset).long() for subset in asked)
    assert len(asked) == FOLDS and times.eq(FOLDS - 1).all()
    sizes = [len(subset) for subset in asked]
    assert max(sizes) - min(sizes) <= 1


def test_memorisation_is_the_mean_over_the_networks_that_saw_the_record():
    """Of networks that differ: in - out by a loop over all records and networks."""
    context, asked = simulated(torch.zeros(N))
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(FOLDS, N, C, generator=draw)
    object.__setattr__(context, "sub_models", lambda subsets: asked.extend(subsets) or logits)
    scores = memorisation(context)
    for number in range(N):
        p = logits[:, number].softmax(1)[:, number % C].tolist()
        seen = [number in subset.tolist() for subset in asked]
        inside = [value for value, one in zip(p, seen) if one]
        outside = [value for value, one in zip(p, seen) if not one]
        assert len(outside) == 1
        expected = sum(inside) / len(inside) - outside[0]
        assert scores[number].item() == pytest.approx(expected, abs=1e-6)


def test_folds_follow_from_the_context_s_own_draw():
    first, again, other = ([], [], [])
    for found, seed in ((first, 0), (again, 0), (other, 1)):
        context, asked = simulated(torch.zeros(N), seed=seed)
        memorisation(context)
        found.extend(subset.tolist() for subset in asked)
    assert first == again != other


def test_windows_slide_within_each_class_by_hand():
    classes = [torch.arange(7), torch.tensor([20, 21]), torch.arange(30, 34)]
    windows = Windows(classes, width=3, stride=2)
    by_hand = [
        [0, 1, 2, 20, 21, 30, 31, 32],
        [2, 3, 4, 20, 21, 31, 32, 33],
        [4, 5, 6, 20, 21, 30, 31, 32],  # the third class starts over
        [0, 1, 2, 20, 21, 31, 32, 33],
    ]
    assert [windows(epoch).tolist() for epoch in range(4)] == by_hand
    uneven = Windows([torch.arange(6)], width=3, stride=2)
    assert [uneven(epoch).tolist() for epoch in range(4)] == [
        [0, 1, 2],
        [2, 3, 4],
        [3, 4, 5],
        [0, 1, 2],
    ]


def test_windows_are_as_wide_as_on_location():
    """30 classes of 37.6 records on average: 15 records that move on by one."""
    sizes = [38] * 18 + [37] * 12
    windows = sized_windows([torch.arange(size) for size in sizes], 0.4)
    assert (windows.width, windows.stride) == (15, 1)
    assert sized_windows([torch.arange(1350)] * 10, 0.37).width == 500  # as on CIFAR-10
    assert sized_windows([torch.arange(3)], 0).width == 1


def test_records_are_sorted_within_their_class():
    context, _ = simulated(torch.zeros(N))
    scores = some_memorisation()
    up, down = (sort_classes(context, scores, descending=down) for down in (False, True))
    for number, (first, second) in enumerate(zip(up, down)):
        expected = sorted(range(number, N, C), key=lambda one: scores[one])
        assert first.tolist() == expected and second.tolist() == expected[::-1]


def set_up(name, strength, memorised=None, **more):
    context, _ = simulated(some_memorisation() if memorised is None else memorised, **more)
    defender = DEFENDERS.load(name)(strength)
    defender.setup(context)
    return defender, context


def epochs_of(defender, count, size=4):
    """The batches of each epoch."""
    draw = torch.Generator().manual_seed(0)
    return [
        list(defender.batches(torch.arange(N), size, draw, epoch=epoch)) for epoch in range(count)
    ]


def test_rsw_begins_with_the_least_memorised_and_swmr_with_the_most():
    truth = some_memorisation()
    # 20 records a class, 8 of them in a window with stride 1
    for name, strength, ends in (("wemem_rsw", 0.4, (0, 12)), ("wemem_swmr", 0.3, (12, 0))):
        defender, _ = set_up(name, strength)
        epochs = epochs_of(defender, 13)
        for epoch, start in ((0, ends[0]), (12, ends[1])):
            ranked = [sorted(range(one, N, C), key=lambda n: truth[n]) for one in range(C)]
            expected = [number for of in ranked for number in of[start : start + 8]]
            assert sorted(torch.cat(epochs[epoch]).tolist()) == sorted(expected)


@pytest.mark.parametrize("name", ["wemem_rmr", "wemem_swmr"])
def test_records_at_risk_come_first_and_apart(name):
    truth = some_memorisation()
    defender, _ = set_up(name, 0.3)
    draw = torch.Generator().manual_seed(0)
    seen = []
    for batch in defender.batches(torch.arange(N), 4, draw, epoch=6):
        seen.append((defender.decays, truth[batch].tolist()))
    assert [first for first, _ in seen] == sorted((first for first, _ in seen), reverse=True)
    assert {first for first, _ in seen} == {True, False}
    assert all((value >= 0.3) == first for first, values in seen for value in values)
    if name == "wemem_rmr":
        assert sum(len(values) for _, values in seen) == N


@pytest.mark.parametrize(
    "at_risk, sizes",
    [(0, [(False, 60)]), (1, [(False, 60)]), (2, [(True, 2), (False, 58)]), (59, [(True, 60)])],
)
def test_a_single_record_goes_with_the_others(at_risk, sizes):
    defender, _ = set_up("wemem_rmr", 0.5)
    defender.at_risk = torch.arange(N) < at_risk
    draw = torch.Generator().manual_seed(0)
    found = [(defender.decays, len(batch)) for batch in defender.batches(torch.arange(N), N, draw)]
    assert found == sizes


@pytest.mark.parametrize("name", ["wemem_rmr", "wemem_swmr"])
def test_the_threshold_itself_is_at_risk(name, monkeypatch):
    scores = torch.tensor([0.25, 0.2]).repeat(N // 2)
    monkeypatch.setattr("defenders.wemem.memorisation", lambda context: scores)
    defender, _ = set_up(name, 0.25)
    assert defender.at_risk.tolist() == [True, False] * (N // 2)


def test_records_at_risk_are_stepped_on_by_an_optimizer_of_their_own():
    """SGD without gradients: a weight w goes to w - lr * decay * w."""
    defender, context = set_up("wemem_rmr", 0.3)
    network = nn.Linear(4, C, bias=False)
    with torch.no_grad():
        network.weight.fill_(1)
    config = TrainConfig(epochs=1, optimizer="sgd", lr=0.1, weight_decay=5e-4)
    optimizer = defender.build_optimizer(network, config)
    x, y = context.data.records.batch(torch.arange(2))
    sizes = []
    for decays in (True, False):
        before = network.weight[0, 0].item()
        defender.decays = decays
        defender.step(network, optimizer, lambda net, _: 0 * net.weight.sum(), a_batch(x, y))
        sizes.append(1 - network.weight[0, 0].item() / before)
    assert sizes == pytest.approx([0.1 * 0.1, 0.1 * 5e-4], rel=1e-2)


def test_the_optimizer_of_records_at_risk_is_kept_to_resume():
    defender, _ = set_up("wemem_rmr", 0.3)
    network = nn.Linear(4, C)
    defender.build_optimizer(network, TrainConfig(epochs=1))
    network(torch.ones(1, 4)).sum().backward()
    defender.risk_optimizer.step()
    again, _ = set_up("wemem_rmr", 0.3)
    again.build_optimizer(network, TrainConfig(epochs=1))
    again.set_state(defender.state())
    first, second = (one.state()["risk_optimizer"]["state"][0] for one in (defender, again))
    assert first["exp_avg"].any() and torch.equal(first["exp_avg"], second["exp_avg"])


def test_selena_learns_from_those_that_never_saw_the_record():
    """The sub-models' mean posterior of a record is .3 if they did not see it, whatever they
    memorise."""
    context, asked = simulated(some_memorisation())
    defender = DEFENDERS.load("selena")(25)
    defender.setup(context)
    y = context.data.records.y
    own = defender.soft_labels[torch.arange(N), y]
    torch.testing.assert_close(own, torch.full((N,), 0.3), atol=1e-6, rtol=0)
    times = sum(torch.isin(context.data.train, subset).long() for subset in asked)
    assert len(asked) == 25 and times.eq(15).all()  # left out of 10
    # and the draws differ: no two records must share all of their sub-models
    sets = [tuple(k for k, subset in enumerate(asked) if n in subset) for n in range(N)]
    assert len(set(sets)) > N - 3


@pytest.mark.parametrize("count, left_out", [(2, 1), (3, 1), (5, 2), (10, 4)])
def test_selena_leaves_a_record_out_of_two_fifths(count, left_out):
    context, asked = simulated(torch.zeros(N))
    DEFENDERS.load("selena")(float(count)).setup(context)
    times = sum(torch.isin(context.data.train, subset).long() for subset in asked)
    assert times.eq(count - left_out).all()


def test_selena_means_posteriors_and_takes_cross_entropy_to_them_by_hand():
    context, asked = simulated(torch.zeros(N))
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(5, N, C, generator=draw, dtype=torch.float64)
    object.__setattr__(context, "sub_models", lambda subsets: asked.extend(subsets) or logits)
    defender = DEFENDERS.load("selena")(5.0)
    defender.setup(context)
    out = [k for k, subset in enumerate(asked) if 7 not in subset]
    assert len(out) == 2
    target = logits[out, 7].softmax(1).mean(0)
    torch.testing.assert_close(defender.soft_labels[7], target.float())
    answer = torch.tensor([[0.2, 0.5, 0.3]]).log()
    batch = Batch(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([7]))
    by_hand = -sum(t * math.log(p) for t, p in zip(target.tolist(), (0.2, 0.5, 0.3)))
    assert defender.criterion(answer, batch).item() == pytest.approx(by_hand, rel=1e-5)


def test_the_exposure_of_records_at_risk_is_bounded_by_hand():
    """A class of 20, five of them at risk: two an epoch, each once; the others in turn, in steps of
    five."""
    safe, risky = torch.arange(15), torch.arange(100, 105)
    budget = Budget([(safe, risky), (torch.arange(0), torch.arange(0))])
    epochs = [budget(epoch).tolist() for epoch in range(4)]
    assert epochs[0] == [*range(15), 100, 101]
    # 102, 103, 104 from rank 5 mod 3 on: 104, 102
    assert epochs[1] == [*range(5, 15), *range(5), 104, 102]
    assert epochs[2] == [*range(10, 15), *range(10), 103]
    assert epochs[3] == list(range(15))
    assert budget(1).tolist() == epochs[1]  # whenever it is asked


def test_a_large_class_gives_a_hundred_records():
    budget = Budget([(torch.arange(150), torch.arange(200, 260))])
    first, second = budget(0).tolist(), budget(1).tolist()
    assert first == [*range(90), *range(200, 210)]
    assert second == [*range(5, 95), *range(215, 225)]
    used = [n for epoch in range(9) for n in budget(epoch).tolist() if n >= 200]
    assert sorted(used) == list(range(200, 260))


def test_radd_counts_epochs_over_rounds():
    truth, context = some_memorisation() + 0.05, {"original": lambda ids: torch.zeros(len(ids), C)}
    first, _ = set_up("radd", 1.0, truth, **context)
    later, _ = set_up("radd", 1.0, truth, epochs_before=3, **context)
    for epoch in range(3):
        assert torch.equal(first.budget(3 + epoch), later.budget(later.epochs_before + epoch))
    seen = [sorted(torch.cat(one[3]).tolist()) for one in (epochs_of(first, 4),)]
    assert seen == [sorted(torch.cat(epochs_of(later, 1)[0]).tolist())]


def radd(strength, memorised, teacher):
    """Of three records, whose memorisation and original's logits are these."""
    defender = DEFENDERS.load("radd")(strength)
    defender.risk = torch.tensor(memorised).clamp(0, 1)
    defender.at_risk = defender.risk >= 0.6
    defender.teacher = teacher
    return defender


def test_the_loss_of_radd_by_hand():
    p, q = (0.2, 0.5, 0.3), (0.7, 0.2, 0.1)
    logits = torch.tensor([p, p], dtype=torch.float64).log()
    teacher = torch.tensor([q, q], dtype=torch.float64).log()
    batch = a_batch(logits, torch.tensor([0, 0]))
    found = radd(2.0, [0.5, 0.8], teacher).criterion(logits, batch).item()

    def softened(values):
        parts = [value ** (1 / 3) for value in values]
        return [part / sum(parts) for part in parts]

    kl = sum(t * math.log(t / s) for t, s in zip(softened(q), softened(p)))
    entropy = -sum(value * math.log(value) for value in p)
    per_risk = 2 * 9 * kl - 0.2 * entropy
    # the second is at risk, and its label does not count
    assert found == pytest.approx((-math.log(0.2) + 0.5 * per_risk + 0.8 * per_risk) / 2, rel=1e-6)


def test_radd_pulls_weights_to_zero_by_the_risk_of_the_batch():
    network = nn.Linear(3, 3)
    x, y = torch.randn(2, 3), torch.tensor([0, 1])
    defender = radd(1.0, [0.4, 0.8], torch.zeros(2, 3))
    batch = a_batch(x, y)
    squares = sum(weight.square().sum() for weight in network.parameters())
    plain = defender.criterion(network(x), batch)
    found = defender.loss(network, batch)
    assert found.item() == pytest.approx((plain + 0.5 * 0.01 * 0.6 * squares).item(), rel=1e-5)


def test_radd_has_a_loss_where_nothing_is_at_risk_and_no_batch_where_all_is_used_up():
    defender, _ = set_up(
        "radd", 1.0, torch.full((N,), 0.69), original=lambda ids: torch.zeros(len(ids), C)
    )
    counts = [sum(map(len, batches)) for batches in epochs_of(defender, 12)]
    assert counts == [6] * 10 + [0] * 2  # two of each class's 20


class Teacher(nn.Module):
    def forward(self, x):
        return 3 * x[:, :C]


def distill(strength=4.0, count=9):
    data = TrainSet(records(), torch.arange(40), torch.arange(50, 50 + count))
    draw = torch.Generator().manual_seed(0)
    context = Context(data, batch_size=10, generator=draw, original_network=Teacher)
    defender = DEFENDERS.load("distill")(strength)
    defender.setup(context)
    return defender, data


def test_distill_sees_dev_records_alone_and_as_many_as_train_records():
    defender, data = distill()
    draw = torch.Generator().manual_seed(1)
    numbers = torch.cat(list(defender.batches(data.train, 10, draw)))
    assert len(numbers) == 40
    counts = numbers.bincount(minlength=N)
    assert counts[50:59].tolist() and counts[50:59].min() >= 4 and counts[:50].sum() == 0


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_distill_is_the_divergence_from_the_original_on_mixtures(strength):
    defender, data = distill(strength)
    network = nn.Linear(4, C)
    x, y = data.records.batch(data.dev)
    before = defender.generator.get_state()
    found = defender.loss(network, a_batch(x, y))
    again = torch.Generator()
    again.set_state(before)
    weight, order = torch.rand(9, 1, generator=again), torch.randperm(9, generator=again)
    mixed = weight * x + (1 - weight) * x[order]
    assert not order.equal(torch.arange(9))
    target = (3 * mixed[:, :C] / strength).softmax(1)
    expected = F.kl_div(network(mixed).log_softmax(1), target, reduction="batchmean")
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_distill_needs_a_dev_record_for_each_class():
    distill(count=3)
    with pytest.raises(UserError, match="of which there are 2, fewer than the 3 classes"):
        distill(count=2)


CASES = {"selena": 3.0, "wemem_rsw": 0.4, "wemem_rmr": 0.3, "wemem_swmr": 0.3, "radd": 1.0}


@pytest.mark.parametrize("name", [*CASES, "distill"])
def test_it_trains_in_bfloat16_with_a_loss_in_float32(name):
    if name == "distill":
        defender, data = distill()
        draw = defender.generator
    else:
        asks = {"original": lambda ids: torch.zeros(len(ids), C)}
        defender, context = set_up(name, CASES[name], **asks)
        data, draw = TrainSet(context.data.records, context.data.train), context.generator
    data = TrainSet(data.records, data.train)
    dtypes, loss = [], defender.loss

    def watched(network, batch):
        value = loss(network, batch)
        dtypes.append(value.dtype)
        return value

    defender.loss = watched
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C))
    model = BaseModel(
        network, device=torch.device("cpu"), generator=torch.Generator(), precision="bf16"
    )
    model.train(data, TrainConfig(epochs=2, batch_size=10), generator=draw, objective=defender)
    assert set(dtypes) == {torch.float32}
    assert not defender.is_stackable()
