"""Every registered network on every shape that it says it takes."""

import pytest
import torch
from torch import nn

import models
from core.console import UserError
from models import MODELS, build
from models.perceptron import TwoBranches

IMAGES = [name for name in MODELS if MODELS[name].options["smallest"]]


def fresh(name, shape, num_cls=7, seed=0):
    return build(name, shape=shape, num_cls=num_cls, generator=torch.Generator().manual_seed(seed))


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "name, shape, expected",
    [
        # torchvision's count of the 1000-class network, less its first convolution and classifier, plus ours
        ("resnet18", (3, 32, 32), 11_689_512 - 64 * 3 * 49 - 513 * 1000 + 64 * 3 * 9 + 513 * 10),
        (
            "densenet121",
            (3, 32, 32),
            7_978_856 - 64 * 3 * 49 - 1025 * 1000 + 64 * 3 * 9 + 1025 * 10,
        ),
        ("vgg16bn", (3, 32, 32), 138_365_992 - 4096 * 25088 - 4097 * 1000 + 4096 * 512 + 4097 * 10),
        ("columnfc", (446,), 447 * 256 + 257 * 128 + 129 * 10),
    ],
)
def test_number_of_parameters_by_hand(name, shape, expected):
    assert parameters(fresh(name, shape, num_cls=10)) == expected


def test_two_branches_are_as_compleaks_code_has_them():
    """Three releases: 6 and 3 inputs; what the branches see, they see apart."""
    network = TwoBranches(releases=3).eval()
    branches = [inputs * 128 + 128 + 128 * 64 + 64 for inputs in (6, 3)]
    head = [a * b + b for a, b in ((128, 256), (256, 128), (128, 64), (64, 2))]
    assert parameters(network) == sum(branches) + sum(head)
    drops = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert drops == [0.5] * 6
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    parts = [network.branches[0](x[:, :6]), network.branches[1](x[:, 6:])]
    assert torch.equal(network(x), network.head(torch.cat(parts, dim=1)))
    assert network(x).shape == (5, 2)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("channels", [1, 3])
def test_forward_and_backward_at_the_smallest_and_at_a_usual_size(name, channels):
    for side in {max(MODELS[name].options["smallest"], 8), 32}:
        network = fresh(name, (channels, side, side))
        x = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))
        out = network(x)
        assert out.shape == (2, 7)
        out.sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_resnet_keeps_its_pooling_so_that_the_first_stage_sees_16x16():
    network = fresh("resnet18", (3, 32, 32))
    seen = []
    network.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    network(torch.zeros(2, 3, 32, 32))
    assert seen == [(2, 64, 16, 16)]


def test_vgg_has_biases_and_half_its_units_dropped():
    network = fresh("vgg16bn", (3, 32, 32))
    assert all(
        layer.bias is not None for layer in network.modules() if isinstance(layer, nn.Conv2d)
    )
    assert [layer.p for layer in network.classifier if hasattr(layer, "p")] == [0.5, 0.5]


@pytest.mark.parametrize("name", list(MODELS))
def test_initialisation_is_xavier_normal_zero_one_and_from_the_generator_alone(name):
    before = torch.get_rng_state()
    network = fresh(name, (3, 32, 32))
    assert torch.equal(before, torch.get_rng_state())
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            if layer.weight.numel() > 2000:
                assert layer.weight.std().item() == pytest.approx(
                    (2 / (fan_in + fan_out)) ** 0.5, rel=0.1
                )
            assert layer.bias is None or layer.bias.eq(0).all()
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.eq(1).all() and layer.bias.eq(0).all()
            assert (
                layer.running_mean.eq(0).all()
                and layer.running_var.eq(1).all()
                and layer.num_batches_tracked == 0
            )
    again, other = fresh(name, (3, 32, 32)), fresh(name, (3, 32, 32), seed=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), again.state_dict().values())
    )
    assert not all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters()))


@pytest.mark.parametrize("name", IMAGES)
def test_tables_and_small_images_are_refused_by_image_networks(name):
    with pytest.raises(UserError, match=f"{name} takes images.*use columnfc"):
        fresh(name, (446,))
    smallest = MODELS[name].options["smallest"]
    if smallest > 1:
        with pytest.raises(
            UserError, match=f"too small for {name}, which needs {smallest}x{smallest}"
        ):
            fresh(name, (3, smallest - 1, 40))


def test_input_dim_is_channels_or_columns():
    assert models.input_dim("resnet18", (3, 32, 32)) == 3
    assert models.input_dim("columnfc", (1, 8, 8)) == 64
    assert models.input_dim("columnfc", (446,)) == 446
    assert MODELS.check("vgg16") == "vgg16bn"
