"""An audit of the step: what two neighbouring data sets tell stays below the claim."""

import numpy as np
import pytest
import torch
from dp_cases import ENGINES, batch, bound, flat, private
from torch import nn
from torch.nn import functional as F

from defenders.accounting import guarantee
from defenders.dp import clipped_sum


def epsilon_that_is_shown(step_of, *, delta, repeats=3000):
    """A lower bound on epsilon, true with 95 %: the canary is told from its absence by where one step goes.

    The statistic is how far the step goes along the canary's gradient, in units of lr C / B.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 2)).double()
    x, y = batch(n=9, columns=4, num_cls=2)
    x, y = (
        torch.cat([torch.full((1, 4), 30.0, dtype=torch.float64), x]),
        torch.cat([torch.tensor([0]), y]),
    )
    _, of_canary = clipped_sum(network, x[:1], y[:1], max_grad_norm=1.0)
    direction = torch.cat([total.flatten() for total in of_canary.values()])
    assert float(direction.norm()) == pytest.approx(1)
    start, before = (
        {name: tensor.clone() for name, tensor in network.state_dict().items()},
        flat(network),
    )
    step, found = step_of(network), {}
    for present in (True, False):
        rows = slice(0 if present else 1, None)
        found[present] = []
        for _ in range(repeats):
            step(x[rows], y[rows])
            found[present].append(-float((flat(network) - before) @ direction))
            network.load_state_dict(start)
    with_it, without = np.array(found[True]), np.array(found[False])
    # the threshold is chosen on a third, the bound taken on the rest
    third = repeats // 3
    best = max(
        np.quantile(
            np.concatenate([with_it[:third], without[:third]]), np.linspace(0.02, 0.98, 49)
        ),
        key=lambda limit: bound(with_it[:third], without[:third], limit, delta),
    )
    return bound(with_it[third:], without[third:], best, delta)


def broken_noise(network):
    return private(network, engine="pyvacy", count=10, expected=10, noise=0.5)


def broken_clip(network):
    """The mean gradient is clipped as a whole, the noise is that of clipped records."""

    def step(x, y):
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.5 * (parameter.grad + torch.randn_like(parameter) / 10)

    return step


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_audit_stays_below_the_claim(engine):
    claimed = guarantee(n=10, batch_size=10, noise_multiplier=1.0, epochs=1, delta=0.01).epsilon
    shown = epsilon_that_is_shown(
        lambda network: private(network, engine=engine, count=10, expected=10), delta=0.01
    )
    assert 1.0 < shown < claimed  # and is no idle one


@pytest.mark.slow
@pytest.mark.parametrize("broken", [broken_noise, broken_clip])
def test_the_same_audit_exposes_a_broken_step(broken):
    claimed = guarantee(n=10, batch_size=10, noise_multiplier=1.0, epochs=1, delta=0.01).epsilon
    assert epsilon_that_is_shown(broken, delta=0.01) > claimed
