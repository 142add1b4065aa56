"""Networks, records and private steps that tests of DP-SGD share."""

import math
from types import SimpleNamespace

import torch
from helpers import a_batch
from scipy.stats import binomtest
from torch.nn import functional as F

from base_model import Context, TrainConfig, TrainSet
from defenders.dp import PrivateSGD
from models import build
from pruner import mask

ENGINES = ["pyvacy", "opacus"]


def columnfc(seed=0, columns=12, num_cls=3, sparsity=0.6):
    """A pruned network without dropout's chance, in float64; and its masks."""
    network = build(
        "columnfc", shape=(columns,), num_cls=num_cls, generator=torch.Generator().manual_seed(seed)
    )
    network = network.double().eval()
    masks = mask.compute_masks(network, pruner="l1unstructure", sparsity=sparsity)
    mask.attach_masks(network, masks)
    return network, masks


def batch(n=9, columns=12, num_cls=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, columns, generator=draw, dtype=torch.float64) * 3,
        torch.randint(num_cls, (n,), generator=draw),
    )


def by_hand(network, x, y, max_grad_norm, masks):
    """{parameter name: sum of clipped gradients}, a record at a time, and the norms before."""
    sums, norms = {}, []
    for record in range(len(y)):
        network.zero_grad()
        F.cross_entropy(network(x[record : record + 1]), y[record : record + 1]).backward()
        gradients = {
            name: parameter.grad * masks.get(name, torch.tensor(True))
            for name, parameter in network.named_parameters()
        }
        norms.append(math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values())))
        for name, gradient in gradients.items():
            sums[name] = sums.get(name, 0) + gradient * min(1, max_grad_norm / norms[-1])
    return sums, norms


def tiny_records(n, columns=12, num_cls=3):
    """Records for a defender that steps are fed by hand: what seeded noise is drawn for."""
    draw = torch.Generator().manual_seed(9)
    return SimpleNamespace(
        x=torch.randn(n, columns, generator=draw), y=torch.randint(num_cls, (n,), generator=draw)
    )


def started(  # many parameters: tests set one or two of them
    *, engine="pyvacy", count, expected, noise=1.0, lr=0.5, max_grad_norm=1.0, seed=0, records=None
):
    """A defender at the start of a training; `seed` None: with secret noise."""
    how = (
        {"dp_noise": "secret"}
        if seed is None
        else {"dp_noise": "seeded", "key": bytes([seed]) * 16}
    )
    defender = PrivateSGD(noise, dp_engine=engine, dp_lr=lr, max_grad_norm=max_grad_norm, **how)
    defender.setup(
        Context(
            TrainSet(records or tiny_records(count), torch.arange(count)),
            batch_size=expected,
            generator=None,
        )
    )
    return defender


def private(network, *, weight_decay=0.0, **how):
    """A function(x, y) that takes a private step."""

    defender = started(**how)
    optimizer = defender.build_optimizer(network, TrainConfig(epochs=1, weight_decay=weight_decay))
    return lambda x, y: defender.step(network, optimizer, None, a_batch(x, y))


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def bound(with_it, without, limit, delta):
    def rate(values):
        return binomtest(int((values > limit).sum()), len(values)).proportion_ci(
            0.95, method="exact"
        )

    low, high = rate(with_it).low, rate(without).high
    return math.log(max(low - delta, 1e-12) / high)
