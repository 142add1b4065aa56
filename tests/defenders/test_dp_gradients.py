"""Clipped gradients of DP-SGD: against a loop over records and against Opacus."""

import pytest
import torch
from dp_cases import ENGINES, batch, by_hand, columnfc, private
from torch import nn
from torch.nn import functional as F

from core.console import UserError
from defenders import dp
from defenders.dp import clipped_sum
from pruner import mask


@pytest.mark.parametrize("max_grad_norm", [0.1, 6.0, 1000.0])
@pytest.mark.parametrize("way", ["chosen", "one by one"])
def test_the_sum_of_clipped_gradients_is_that_of_a_loop_over_records(max_grad_norm, way):
    network, masks = columnfc()
    x, y = batch()
    expected, norms = by_hand(network, x, y, max_grad_norm, masks)
    if way == "chosen":
        loss, sums = clipped_sum(network, x, y, max_grad_norm=max_grad_norm)
    else:
        loss, sums = dp.clipped_sum_loop(network, list(network.parameters()), x, y, max_grad_norm)
    assert max_grad_norm != 6.0 or min(norms) < 6.0 < max(norms)
    assert float(loss) == pytest.approx(F.cross_entropy(network(x), y).item())
    for name, parameter in network.named_parameters():
        assert torch.allclose(sums[parameter], expected[name], rtol=1e-9, atol=1e-12), name


def test_a_record_s_gradient_is_opacus_s():
    import copy

    from opacus import GradSampleModule

    network = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    twin = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
    x, y = batch()
    F.cross_entropy(twin(x), y, reduction="sum").backward()
    samples = [parameter.grad_sample for parameter in twin.parameters()]
    norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples]).norm(dim=0)
    clip = float(norms.median())
    _, sums = clipped_sum(network, x, y, max_grad_norm=clip)
    for parameter, sample in zip(network.parameters(), samples):
        expected = torch.einsum("i,i...", (clip / norms).clamp(max=1), sample)
        assert torch.allclose(sums[parameter], expected, rtol=1e-9, atol=1e-12)


def test_pruned_weights_are_in_no_norm():
    """The same network without the columns that are pruned away altogether has the same clipped gradients."""
    network = nn.Sequential(nn.Linear(6, 3)).double()
    keep = torch.ones(3, 6, dtype=torch.bool)
    keep[:, 4:] = False
    mask.attach_masks(network, {"0.weight": keep})
    small = nn.Sequential(nn.Linear(4, 3)).double()
    with torch.no_grad():
        small[0].weight.copy_(network[0].weight[:, :4])
        small[0].bias.copy_(network[0].bias)
    x, y = batch(columns=6)
    _, sums = clipped_sum(network, x, y, max_grad_norm=1.0)
    _, of_small = clipped_sum(small, x[:, :4], y, max_grad_norm=1.0)
    assert torch.allclose(sums[network[0].weight][:, :4], of_small[small[0].weight])
    assert sums[network[0].weight][:, 4:].eq(0).all()


def convolutional():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).double()
    with torch.no_grad():
        network[1].running_mean.uniform_(-1, 1)
        network[1].running_var.uniform_(0.5, 2)
    return network


def test_another_record_changes_no_record_s_gradient():
    """With BatchNorm frozen; in training mode it would, and is refused."""
    network = convolutional()
    x, y = batch(n=5, columns=16)
    x = x.view(5, 1, 4, 4)
    network.eval()
    _, of_all = clipped_sum(network, x, y, max_grad_norm=0.5)
    alone = [
        clipped_sum(network, x[one : one + 1], y[one : one + 1], max_grad_norm=0.5)[1]
        for one in range(5)
    ]
    for parameter, total in of_all.items():
        assert torch.allclose(total, sum(single[parameter] for single in alone))
    network.train()
    with pytest.raises(UserError, match="BatchNorm in training mode"):
        clipped_sum(network, x, y, max_grad_norm=0.5)


@pytest.mark.parametrize("engine", ENGINES)
def test_batchnorm_keeps_its_statistics_and_its_layers_learn(engine):
    network = convolutional().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stepper = private(network, engine=engine, count=5, expected=5)
    x, y = batch(n=5, columns=16)
    stepper(x.view(5, 1, 4, 4), y)
    for name, tensor in network.state_dict().items():
        frozen = "running" in name or "tracked" in name
        assert torch.equal(tensor, before[name]) == frozen, name


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(
            nn.Unflatten(1, (3, 4)), nn.Linear(4, 2), nn.Flatten(), nn.Linear(6, 3)
        ),  # sees three vectors
        (lambda layer: nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(12, 3)))(nn.Linear(12, 12)),
    ],
)  # is seen twice
def test_layers_that_are_not_seen_once_with_a_vector_are_worked_on_record_by_record(network):
    network = network.double()
    x, y = batch()
    expected, _ = by_hand(network, x, y, 0.7, {})
    _, sums = clipped_sum(network, x, y, max_grad_norm=0.7)
    for name, parameter in network.named_parameters():
        assert torch.allclose(sums[parameter], expected[name])
