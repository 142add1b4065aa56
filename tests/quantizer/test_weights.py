"""Quantised weights and inputs, against numbers worked by hand, torch's observers, brute force."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

from quantizer.inputs import InputQuantizer, input_ranges
from quantizer.weights import IntegerWeights, SharedWeights, TernaryWeights, cluster, integer_levels


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "bits, levels",
    [
        (2, [[1, 0, -1], [0, 0, 0], [0, 1, 1]]),
        (4, [[7, 1, -5], [0, 0, 0], [2, 4, 7]]),
        (8, [[127, 18, -83], [0, 0, 0], [32, 64, 127]]),
    ],
)
def test_integers_worked_by_hand(bits, levels):
    """Largest magnitudes 0.7, 0, 0.4; of 8 bits 0.1 is 18.14 and -0.46 is -83.46 scales, and the
    0.2 of 2 bits is a tie at 0.5, which lies a little above it in float32."""
    weight = torch.tensor([[0.7, 0.1, -0.46], [0, 0, 0], [0.1, 0.2001, 0.4]])
    top = 2 ** (bits - 1) - 1
    scale = np.array([0.7, 0, 0.4])[:, None] / top
    quantised = IntegerWeights(bits=bits)(weight)
    assert quantised.numpy() == pytest.approx(np.array(levels) * scale, rel=1e-6)
    found, scales = integer_levels(quantised, bits=bits)
    assert found.tolist() == levels and found.dtype == torch.int8
    assert scales[[0, 2]].numpy() == pytest.approx(scale[[0, 2], 0], rel=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3)])
def test_integers_are_those_of_torchs_observer(bits, shape):
    weight, top = drawn(*shape), 2 ** (bits - 1) - 1
    observer = PerChannelMinMaxObserver(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-top, quant_max=top
    )
    observer(weight)
    scale, zero = observer.calculate_qparams()
    assert not zero.any()
    rows = scale.view(-1, *[1] * (len(shape) - 1))
    expected = (weight / rows).round().clamp(-top, top) * rows
    assert torch.allclose(IntegerWeights(bits=bits)(weight), expected, rtol=1e-6, atol=0)
    assert integer_levels(weight, bits=bits)[0].abs().max() == top


def test_ternary_worked_by_hand():
    """mean |w| of the four that are not zero = 0.5; 0.2 / 0.5 rounds to 0, 0.3 / 0.5 to 1."""
    weight = torch.tensor([[1.2, -0.3], [0.3, 0.2], [0, 0]])
    quantised = TernaryWeights()(weight)
    assert quantised.numpy() == pytest.approx(np.array([[0.5, -0.5], [0.5, 0], [0, 0]]))
    assert not TernaryWeights()(torch.zeros(2, 2)).any()


@pytest.mark.parametrize("quantizer", [IntegerWeights(bits=4), TernaryWeights()])
def test_gradients_pass_straight_through(quantizer):
    weight, gradient = drawn(4, 6).requires_grad_(), drawn(4, 6, seed=1)
    quantizer(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)


def test_clusters_worked_by_hand():
    """Three centroids from 0, 5 and 10 (linear): 0, 1 | 4, 6 | 10 at once, and there they stay;
    quantiles or the data's order would begin elsewhere."""
    values = np.array([1, 0, 6, 4, 10], dtype=np.float32)
    codebook, members = cluster(values, clusters=3)
    assert codebook.tolist() == [0.5, 5, 10] and codebook.dtype == np.float32
    assert members.tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("clusters", [4, 8, 16])
def test_clusters_are_those_of_lloyds_algorithm(clusters):
    """k-means written out: nearest centroid, mean of members. scikit-learn stops when centroids
    move by less than 1e-4 of the variance."""
    values = torch.linspace(-1, 1, 200).pow(3).double().numpy()
    centroids = np.linspace(values.min(), values.max(), clusters)
    for _ in range(200):
        members = np.abs(values[:, None] - centroids).argmin(1)
        centroids = np.array([values[members == one].mean() for one in range(clusters)])
    assert cluster(values, clusters=clusters)[0] == pytest.approx(centroids, abs=0.03)


@pytest.mark.parametrize("values, expected", [([], [0]), ([2, 2, 2], [2]), ([3, -1, 3], [-1, 3])])
def test_few_different_weights_are_their_own_centroids(values, expected):
    values = np.array(values, dtype=np.float32)
    codebook, members = cluster(values, clusters=4)
    assert codebook.tolist() == expected and np.array_equal(codebook[members], values)


def test_a_centroid_gets_the_sum_of_its_members_gradients_and_zeros_none():
    weight, gradient = drawn(6, 8), drawn(6, 8, seed=1)
    weight[:, ::2] = 0
    shared = SharedWeights(clusters=4)
    codebook = shared.right_inverse(weight).requires_grad_()
    effective = shared(codebook)
    effective.backward(gradient)
    assert not effective[weight == 0].any()
    assert (effective - weight).abs().max() < weight.abs().max() / 2
    for value, found in zip(codebook.tolist(), codebook.grad.tolist(), strict=True):
        assert found == pytest.approx(gradient[effective == value].sum().item(), abs=1e-5)


@pytest.mark.parametrize("low, high", [(-1.0, 3.0), (0.5, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_inputs_are_those_of_torchs_observer(low, high):
    observer = MinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=255)
    observer(torch.tensor([low, high]))
    scale, zero = observer.calculate_qparams()
    quantizer = InputQuantizer(low, high)
    assert quantizer.scale.item() == pytest.approx(scale.item(), rel=1e-6)
    assert quantizer.zero_point.item() == zero.item()
    x = torch.linspace(-4, 4, 101)
    expected = ((x / scale).round() + zero).clamp(0, 255).sub(zero) * scale
    assert torch.allclose(quantizer(x), expected, rtol=1e-5, atol=scale.item() * 1.001)
    assert quantizer(torch.zeros(1)).item() == 0


def test_gradients_of_inputs_pass_within_the_range_and_bfloat16_is_widened():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.9, 5.0], requires_grad=True)
    InputQuantizer(-1.0, 1.0)(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert InputQuantizer(-1.0, 1.0)(x.bfloat16()).dtype == torch.float32


def test_ranges_are_seen_over_all_records_in_evaluation_mode():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    unused = nn.Linear(1, 1)
    network.train()[2].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = drawn(600, 3)
    ranges = input_ranges(network, [network[0], network[3], unused], x)
    hidden = network.eval()[:3](x).detach()
    expected = [(x.min(), x.max()), (hidden.min(), hidden.max()), (0, 0)]
    assert np.array(ranges) == pytest.approx(np.array([[*map(float, one)] for one in expected]))
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert not network[2]._forward_pre_hooks and not network[0]._forward_pre_hooks
