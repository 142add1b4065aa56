"""Counts of what compression saves, worked by hand."""

import pytest
import torch
from torch import nn

from models import build
from quantizer import QUANTIZERS
from quantizer.attach import attach_quantizer, effective_state, load_effective
from quantizer.size import measure_size, multiply_adds, weight_bits


def tiny():
    """2 x 3 x 3 x 1 = 18 weights of a convolution, 5 x 8 = 40 of a linear layer, 2 of each of
    BatchNorm's four and 5 biases: 71 floats."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5)
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.arange(1.0, 19).view(2, 1, 3, 3))
        network[4].weight.copy_(torch.arange(1.0, 41).view(5, 8))
        network[4].weight[:, 4:] = 0  # 20 of 40 are pruned
    return network


def test_a_pruned_network_worked_by_hand():
    size = measure_size(tiny(), quantizer=None, shape=(1, 4, 4))
    assert (size.weights, size.nonzero, size.density) == (58, 38, 38 / 58)
    assert size.dense_bytes == 4 * 71
    # 18 floats; a mask of 40 bits and 20 floats
    assert size.bits_per_weight == (18 * 32 + 40 + 20 * 32) / 58
    assert size.compressed_bytes == (18 * 32 + 40 + 20 * 32 + 13 * 32) / 8
    # 2 filters of 9 at 2 x 2 places; 5 x 8
    assert (size.multiply_adds, size.nonzero_multiply_adds) == (72 + 40, 72 + 20)


def test_what_nothing_compresses_takes_32_bits():
    network = build("columnfc", shape=(12,), num_cls=3, generator=torch.Generator().manual_seed(0))
    size = measure_size(network, quantizer=None, shape=(12,))
    weights = 12 * 256 + 256 * 128 + 128 * 3
    assert size.bits_per_weight == 32 and size.density == 1
    assert size.dense_bytes == size.compressed_bytes == 4 * (weights + 256 + 128 + 3)
    assert size.multiply_adds == size.nonzero_multiply_adds == weights


# of the convolution (2 channels, none zero) and of the linear layer (5 channels, half zero)
BITS = {
    "int8": (18 * 8 + 2 * 32, 40 + 20 * 8 + 5 * 32),
    "int4": (18 * 4 + 2 * 32, 40 + 20 * 4 + 5 * 32),
    "cluster16": (18 * 4 + 16 * 32, 40 + 20 * 4 + 16 * 32),
    "cluster8": (18 * 3 + 8 * 32, 40 + 20 * 3 + 8 * 32),
    "cluster4": (18 * 2 + 4 * 32, 40 + 20 * 2 + 4 * 32),
}


@pytest.mark.parametrize("name", BITS)
def test_quantised_weights_worked_by_hand(name):
    network = tiny()
    attach_quantizer(network, name, calibration=torch.ones(2, 1, 4, 4))
    size = measure_size(network, quantizer=name, shape=(1, 4, 4))
    assert size.nonzero == 38
    assert size.bits_per_weight == sum(BITS[name]) / 58
    inputs = 2 * (32 + 8) if name.startswith("int") else 0
    assert size.compressed_bytes == -(-(sum(BITS[name]) + inputs + 13 * 32) // 8)
    assert size.dense_bytes == 4 * 71


def test_three_levels_take_two_bits_or_a_mask_and_a_sign():
    weight = torch.tensor([[1.0, -1, 0, 0], [0, 1, 0, 0]])
    assert weight_bits(weight, quantizer="ternary") == 8 + 3 + 32
    assert weight_bits(weight, quantizer="int2") == 8 + 3 + 2 * 32
    assert weight_bits(torch.ones(2, 4), quantizer="ternary") == 16 + 32


@pytest.mark.parametrize("name", list(QUANTIZERS))
def test_attached_and_loaded_networks_count_the_same(name):
    attached, loaded = tiny(), tiny()
    attach_quantizer(attached, name, calibration=torch.ones(2, 1, 4, 4))
    load_effective(loaded, name, effective_state(attached))
    sizes = [measure_size(one, quantizer=name, shape=(1, 4, 4)) for one in (attached, loaded)]
    assert sizes[0] == sizes[1] and sizes[0].compressed_bytes < sizes[0].dense_bytes * 2


def test_multiply_adds_of_known_networks_and_modes_are_left():
    """Of a convolution: out * in / groups * k * k * places; unused layers have none."""
    network = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.Conv2d(6, 8, 1))
    network.train()
    assert multiply_adds(network, (4, 7, 7)) == {"0": 6 * 2 * 9 * 9, "1": 8 * 6 * 9}
    assert network.training and not network[0]._forward_hooks
    resnet = build("resnet18", shape=(3, 8, 8), num_cls=10, generator=torch.Generator())
    counts = multiply_adds(resnet, (3, 8, 8))
    assert counts["conv1"] == 64 * 3 * 9 * 64 and counts["fc"] == 512 * 10
