"""Clipped gradients written out for a layer at a time: against loops over records and Opacus."""

import copy

import pytest
import torch
from dp_cases import by_hand
from torch import nn
from torch.nn import functional as F

from defenders import dp
from models import build
from pruner import mask


def images(n=5, shape=(2, 7, 6), num_cls=3):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(n, *shape, generator=draw, dtype=torch.float64)
    return x, torch.randint(num_cls, (n,), generator=draw)


def convolutional(norm, in_place=True):
    """Convolutions of all kinds; an in-place ReLU changes what a layer has put out."""
    network = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2)),
        norm,
        nn.ReLU(inplace=in_place),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(4, 6, 3, padding="same", groups=2),
        nn.ReLU(inplace=in_place),
        nn.Conv2d(6, 4, 2, padding=1, padding_mode="circular"),
        nn.Flatten(2),
        nn.Linear(nn.Flatten(2)(torch.zeros(1, 4, 5, 10)).shape[2], 5),
        nn.LayerNorm(5),
        nn.Flatten(),
        nn.Linear(20, 3),
    ).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(parameter.numel()))
    masks = mask.compute_masks(network, pruner="l1unstructure", sparsity=0.6)
    masks |= mask.compute_masks(network, pruner="l1structure", sparsity=0.3)
    mask.attach_masks(network, masks)
    return network.eval(), masks


def frozen():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.copy_(torch.tensor([-1.0, 0, 0.5, 1]))
    norm.running_var.copy_(torch.tensor([0.5, 1, 2, 3]))
    return norm


@pytest.fixture
def no_loop(monkeypatch):
    monkeypatch.setattr(dp, "clipped_sum_loop", None)


@pytest.mark.parametrize("norm", [frozen, lambda: nn.GroupNorm(2, 4)], ids=["batch", "group"])
@pytest.mark.parametrize("together", [1, 2, 100])
@pytest.mark.parametrize("factor", [0.01, 1, 100])
def test_the_sum_is_that_of_a_loop_over_records(norm, together, factor, monkeypatch, no_loop):
    network, masks = convolutional(norm())
    x, y = images()
    _, norms = by_hand(network, x, y, 1.0, masks)
    clip = factor * sorted(norms)[2]
    expected, _ = by_hand(network, x, y, clip, masks)
    monkeypatch.setattr(dp, "CHUNK_BYTES", {"cpu": {1: 1, 2: 2 * 8 * 1000, 100: 2**30}[together]})
    loss, sums = dp.clipped_sum(network, x, y, max_grad_norm=clip)
    assert float(loss) == pytest.approx(F.cross_entropy(network(x), y).item())
    for name, parameter in network.named_parameters():
        assert torch.allclose(sums[parameter], expected[name], rtol=1e-9, atol=1e-12), name


def test_a_record_s_gradient_is_opacus_s(no_loop):
    from opacus import GradSampleModule

    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(48, 3)
    ).double()
    twin = GradSampleModule(copy.deepcopy(network), loss_reduction="sum")
    x, y = images()
    F.cross_entropy(twin(x), y, reduction="sum").backward()
    samples = [parameter.grad_sample for parameter in twin.parameters()]
    norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples]).norm(dim=0)
    clip = float(norms.median())
    _, sums = dp.clipped_sum(network, x, y, max_grad_norm=clip)
    for parameter, sample in zip(network.parameters(), samples):
        expected = torch.einsum("i,i...", (clip / norms).clamp(max=1), sample)
        assert torch.allclose(sums[parameter], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg16bn"])
def test_the_bench_s_networks_need_no_loop_and_float32_does(name, no_loop):
    """To a thousandth of the clipping norm, which bounds each gradient."""
    shape = (3, 32, 32)
    network = build(name, shape=shape, num_cls=3, generator=torch.Generator().manual_seed(0)).eval()
    x, y = images(n=2, shape=shape)
    masks = mask.compute_masks(network, pruner="l1unstructure", sparsity=0.6)
    mask.attach_masks(network, masks)
    x = x.float()
    _, sums = dp.clipped_sum(network, x, y, max_grad_norm=1.0)
    expected, _ = by_hand(network, x, y, 1.0, masks)
    for key, parameter in network.named_parameters():
        assert float((sums[parameter] - expected[key]).norm()) < 1e-3, key


def test_dropout_drops_for_norms_and_sum_alike(no_loop):
    """Without clipping, the sum is the gradient of the loss that was drawn."""
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Dropout(), nn.Linear(80, 3))
    network.double()
    x, y = images()
    torch.manual_seed(0)
    _, sums = dp.clipped_sum(network, x, y, max_grad_norm=1e9)
    torch.manual_seed(0)
    F.cross_entropy(network(x), y, reduction="sum").backward()
    for parameter in network.parameters():
        assert torch.allclose(sums[parameter], parameter.grad)


class Uses(nn.Module):
    """A network that uses weights otherwise than its layers show."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 3)

    def forward(self, x):
        x = self.conv(x)
        if self.how == "a layer twice":
            x = self.conv(x)
        if self.how == "a weight aside":
            x = x + F.conv2d(x, self.conv.weight, padding=1)
        if self.how == "a weight in the loss alone":
            return F.linear(x.mean(dim=(2, 3)), self.last.weight, self.last.bias)
        return self.last(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("how", ["a layer twice", "a weight aside", "a weight in the loss alone"])
def test_weights_that_are_used_otherwise_are_worked_on_record_by_record(how):
    network = Uses(how).double()
    x, y = images()
    expected, norms = by_hand(network, x, y, 0.1, {})
    assert min(norms) > 0.1
    _, sums = dp.clipped_sum(network, x, y, max_grad_norm=0.1)
    for name, parameter in network.named_parameters():
        assert torch.allclose(sums[parameter], expected[name]), name
