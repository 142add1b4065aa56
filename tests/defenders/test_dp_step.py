"""A step of DP-SGD: its mean and deviation, with the optimisers of pyvacy and Opacus."""

import math

import numpy as np
import pytest
import torch
from dp_cases import ENGINES, batch, by_hand, columnfc, flat, private, started
from scipy.stats import binom
from torch import nn


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("drawn, seed", [(4, 0), (8, None), (0, 0)])
def test_mean_and_deviation_of_an_update(engine, drawn, seed):
    """-lr / B times the sum of clipped gradients, and noise of lr strength C / B: for a full sample, too, and none."""
    network, masks = columnfc(columns=4)
    lr, noise, bound, expected, repeats = 0.5, 1.5, 2.0, 4, 400
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    x, y = batch(n=8, columns=4)
    x, y = x[:drawn], y[:drawn]
    sums, _ = (
        by_hand(network, x, y, bound, masks)
        if drawn
        else ({name: torch.zeros_like(value) for name, value in start.items()}, None)
    )
    step = private(
        network,
        engine=engine,
        count=8,
        expected=expected,
        noise=noise,
        lr=lr,
        max_grad_norm=bound,
        seed=seed,
    )
    moves = []
    for _ in range(repeats):
        step(x, y)
        moves.append(
            {
                name: parameter.detach() - start[name]
                for name, parameter in network.named_parameters()
            }
        )
        network.load_state_dict(start, strict=False)
    deviation = lr * noise * bound / expected
    for name in start:
        kept = masks.get(name, torch.ones_like(start[name], dtype=torch.bool))
        found = torch.stack([move[name] for move in moves])
        assert found[:, ~kept].eq(0).all()
        surprise = (found.mean(dim=0) + lr * sums[name] / expected)[kept] / (
            deviation / math.sqrt(repeats)
        )
        # of 30 000 normals one beyond 7 is seen once in ten million runs, one beyond 5 in sixty
        assert surprise.abs().max() < 7
        assert abs(float(surprise.square().mean()) - 1) < 8 / math.sqrt(kept.sum() / 2)
        spread = float(found[:, kept].std(dim=0).square().mean().sqrt())
        assert spread == pytest.approx(
            deviation, rel=5 / math.sqrt(2 * repeats * int(kept.sum())) + 2e-3
        ), name


def test_pyvacy_s_own_clip_never_acts():
    """Not where every record is drawn and all gradients point the same way: the longest sum that there can be."""
    network = nn.Sequential(nn.Linear(3, 2)).double()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.zero_()
    before = flat(network)
    x, y = torch.full((12, 3), 5.0, dtype=torch.float64), torch.zeros(12, dtype=torch.int64)
    private(network, engine="pyvacy", count=12, expected=3, noise=1e-9, lr=1.0)(x, y)
    assert float((flat(network) - before).norm()) == pytest.approx(12 / 3, rel=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_weight_decay_comes_after_the_noise_and_is_not_clipped(engine):
    network = nn.Sequential(nn.Linear(3, 2)).double()
    with torch.no_grad():
        network[0].weight.fill_(100.0)
        network[0].bias.zero_()
    private(network, engine=engine, count=4, expected=4, noise=1e-9, lr=1.0, weight_decay=0.1)(
        torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    )
    assert torch.allclose(network[0].weight, torch.full((2, 3), 90.0, dtype=torch.float64))


@pytest.mark.parametrize("engine", ENGINES)
def test_seeded_noise_is_the_key_s_and_leaves_the_global_generator_alone(engine):
    found = []
    for world, seed in ((1, 0), (2, 0), (3, 1)):
        network, _ = columnfc()
        torch.manual_seed(world)
        expected = torch.random.get_rng_state()
        private(network, engine=engine, count=9, expected=9, seed=seed)(*batch())
        assert torch.equal(torch.random.get_rng_state(), expected)
        found.append(flat(network))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_both_engines_take_the_same_step_with_the_same_noise():
    found = []
    for engine in ENGINES:
        network, _ = columnfc()
        step = private(
            network,
            engine=engine,
            count=20,
            expected=9,
            noise=1.5,
            max_grad_norm=0.7,
            weight_decay=0.01,
        )
        for seed in range(3):
            step(*batch(seed=seed))
        found.append(flat(network))
    assert torch.allclose(*found, rtol=1e-6, atol=1e-6) and not torch.allclose(
        found[0], flat(columnfc()[0]), atol=0.1
    )


def test_pyvacy_runs_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch):
    network, _ = columnfc()
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        step = private(network, engine="pyvacy", count=9, expected=9)
    before = flat(network)
    step(*batch())  # it would move its noise to a GPU
    assert not torch.equal(flat(network), before)


def test_samples_are_poisson_and_an_epoch_has_as_many_as_it_would_have_batches():
    n, size = 50, 8
    defender, draw = started(count=n, expected=size), torch.Generator().manual_seed(0)
    before = draw.get_state()
    drawn = [
        sample for _ in range(600) for sample in defender.batches(torch.arange(n) + 100, size, draw)
    ]
    assert torch.equal(draw.get_state(), before)  # it tells nothing of who was drawn
    assert len(drawn) == 600 * 7
    sizes = np.array([len(sample) for sample in drawn])
    assert abs(sizes.mean() - 8) < 5 * math.sqrt(n * 0.16 * 0.84 / len(drawn))
    assert sizes.var() == pytest.approx(n * 0.16 * 0.84, rel=0.1)
    times = torch.cat(drawn).sub(100).bincount(minlength=n).numpy()
    low, high = binom.interval(1 - 1e-4 / n, len(drawn), size / n)
    assert (low <= times).all() and (times <= high).all()
    assert all(len(sample.unique()) == len(sample) for sample in drawn)
