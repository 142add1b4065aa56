"""SAMIA's network against torch's own encoder layer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import slices
from models.layers import Dropout, initialise, seed_dropout
from transformer import EncoderLayer, SelfAttentionAttack, TrajectoryAttack


def fresh(module):
    initialise(module, torch.Generator().manual_seed(0))
    seed_dropout(module, seed=1)
    return module


def torch_layer(
    ours: EncoderLayer, width=16, heads=4, feedforward=24
) -> nn.TransformerEncoderLayer:
    """torch's layer with our weights."""
    layer = nn.TransformerEncoderLayer(
        width,
        heads,
        feedforward,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        dtype=torch.float64,
    )
    with torch.no_grad():
        for theirs, own in [
            ("self_attn.in_proj_weight", ours.in_weight),
            ("self_attn.in_proj_bias", ours.in_bias),
            ("self_attn.out_proj.weight", ours.out_weight),
            ("self_attn.out_proj.bias", ours.out_bias),
            *[
                (f"{name}.{kind}", getattr(getattr(ours, name), kind))
                for name in ("linear1", "linear2", "norm1", "norm2")
                for kind in ("weight", "bias")
            ],
        ]:
            layer.get_parameter(theirs).copy_(own)
    return layer


def shaken_layer(dropout, length=5):
    """A layer in float64 whose biases and norms are not 0 and 1 any more."""
    layer = fresh(EncoderLayer(16, 4, 24, dropout=dropout)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) / 10
            )
    return layer, torch.randn(
        3, length, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )


def test_attention_starts_alike_in_all_layers_as_in_torchs_encoder_which_copies_its_layer():
    first, *others = fresh(SelfAttentionAttack(num_cls=5)).encoder
    for other in others:
        assert torch.equal(other.in_weight, first.in_weight) and torch.equal(
            other.out_weight, first.out_weight
        )
        assert other.in_weight.data_ptr() != first.in_weight.data_ptr()  # and is trained by itself
        assert not torch.equal(other.linear1.weight, first.linear1.weight)
    assert len(list(others[0].parameters())) == len(list(first.parameters()))


@pytest.mark.parametrize("mode", ["train", "eval"])  # attention step by step, and torch's own
def test_encoder_layer_equals_torchs_forward_and_backward(mode):
    ours, x = shaken_layer(dropout=0.2)
    if mode == "train":
        ours.dropout.drop_threshold = 0
    getattr(ours, mode)()
    theirs = torch_layer(ours)
    x.requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).pow(3).sum().backward()
    found = [x.grad.clone(), *(parameter.grad for parameter in ours.parameters())]
    x.grad = None
    theirs(x).pow(3).sum().backward()
    names = {
        "in_weight": "self_attn.in_proj_weight",
        "in_bias": "self_attn.in_proj_bias",
        "out_weight": "self_attn.out_proj.weight",
        "out_bias": "self_attn.out_proj.bias",
    }
    expected = [
        x.grad,
        *(theirs.get_parameter(names.get(name, name)).grad for name, _ in ours.named_parameters()),
    ]
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)


def test_dropout_is_where_torchs_layer_has_it():
    """Against the same layer written with plain operations, under the same masks: on the attention weights, behind the
    attention, in the feed-forward part and behind it."""
    layer, x = shaken_layer(dropout=0.2)
    draw, drop = np.random.SFC64(5), Dropout(0.2)
    shapes = [(3, 4, 5, 5), (3, 5, 16), (3, 5, 24), (3, 5, 16)]
    weights, out, hidden, end = (
        drop(torch.ones(shape, dtype=torch.float64), draw) for shape in shapes
    )
    q, k, v = F.linear(x, layer.in_weight, layer.in_bias).view(3, 5, 3, 4, 4).permute(2, 0, 3, 1, 4)
    attention = torch.softmax(q @ k.transpose(2, 3) / 2, dim=3) * weights
    mixed = F.linear(
        (attention @ v).transpose(1, 2).reshape(3, 5, 16), layer.out_weight, layer.out_bias
    )
    middle = layer.norm1(x + mixed * out)
    forward = layer.linear2(F.gelu(layer.linear1(middle)) * hidden)
    torch.testing.assert_close(layer(x, np.random.SFC64(5)), layer.norm2(middle + forward * end))
    assert not torch.equal(layer(x, np.random.SFC64(5)), layer(x, np.random.SFC64(6)))


def test_attack_network_is_made_as_the_paper_has_it():
    network = fresh(SelfAttentionAttack(num_cls=30))
    sizes = [
        30 * 3 * 2,
        3 * 64 + 64,  # BatchNorm over the inputs, embedding
        *[3 * 64 * 64 + 3 * 64 + 64 * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64 + 4 * 64] * 3,
        30 * 64 * 64 + 64,
        64 * 2 + 2,
    ]
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(sizes)
    drops = [module.p for module in network.modules() if isinstance(module, Dropout)]
    assert drops == [0.2] * 3
    layer = network.encoder[0]
    assert layer.in_weight.abs().max() <= (6 / (64 + 192)) ** 0.5 and layer.in_bias.eq(0).all()
    assert layer.out_weight.abs().max() <= 1 / 8


def test_network_of_trajectories_is_small_and_knows_the_places_and_the_class():
    network = fresh(TrajectoryAttack(releases=3, num_cls=10))
    sizes = [
        3 * 2,  # BatchNorm over the numbers
        (1 + 3) * 16 + 16 + 10 * 16,  # number and place, class
        3 * 16 * 16 + 3 * 16 + 16 * 16 + 16 + 16 * 32 + 32 + 32 * 16 + 16 + 4 * 16,
        3 * 16 * 2 + 2,
    ]
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(sizes) == 2568
    network.eval()
    numbers = torch.tensor([[1.0, 2, 3], [2, 1, 3], [1, 2, 3]])
    classes = F.one_hot(torch.tensor([0, 0, 1]), 10).float()
    logits = network(torch.cat([numbers, classes], dim=1))
    assert logits.shape == (3, 2)
    assert not torch.allclose(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])
    alone = network(torch.cat([numbers, classes], dim=1)[1:2])
    torch.testing.assert_close(alone, logits[1:2])


def test_tokens_are_treated_alike_until_they_are_flattened():
    """Without a position code, permuting the classes permutes the encoder's output."""
    network = fresh(SelfAttentionAttack(num_cls=6)).eval()
    x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    encode = lambda x: nn.Sequential(*network.encoder)(F.gelu(network.embed(x)))
    torch.testing.assert_close(encode(x)[:, order], encode(x[:, order]))


@pytest.mark.parametrize(
    "generator", [np.random.SFC64(0), torch.Generator().manual_seed(0)]
)  # CPU's and GPU's
def test_dropout_drops_its_share_and_keeps_the_mean(generator):
    drop = Dropout(0.2)
    drop.generator = generator
    x = torch.ones(1000, 999)
    out = drop(x)
    assert abs(out.eq(0).float().mean() - 0.2) < 5 * (0.16 / x.numel()) ** 0.5 + 1e-5
    assert abs(out.mean() - 1) < 5 * (0.25 / x.numel()) ** 0.5 + 1e-5
    rows = out.eq(0).float()
    assert (
        abs(((rows[:, :-1] - 0.2) * (rows[:, 1:] - 0.2)).mean()) < 1e-3
    )  # neighbours are independent
    assert drop.eval()(x) is x


def test_dropout_draws_nothing_from_the_global_generator():
    network = fresh(SelfAttentionAttack(num_cls=4))
    before = torch.get_rng_state()
    first = network(torch.ones(8, 4, 3).normal_(generator=torch.Generator().manual_seed(0)))
    assert torch.equal(before, torch.get_rng_state()) and first.shape == (8, 2)


def gradients(network, x, y):
    network.zero_grad()
    F.cross_entropy(network(x), y).backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def slice_setting(dropout):
    network = (
        fresh(SelfAttentionAttack(num_cls=5, width=8, feedforward=12, dropout=dropout))
        .double()
        .train()
    )
    draw = torch.Generator().manual_seed(0)
    return network, torch.randn(75, 5, 3, generator=draw, dtype=torch.float64), torch.arange(75) % 2


def test_slices_add_up_to_the_whole_batch():
    network, x, y = slice_setting(dropout=0.0)
    sliced = gradients(network, x, y)
    norm = network.norm(x.flatten(1)).view(x.shape)
    torch.testing.assert_close(network(x), network.of_tokens(norm))
    network.zero_grad()
    F.cross_entropy(network.of_tokens(network.norm(x.flatten(1)).view(x.shape)), y).backward()
    for own, parameter in zip(sliced, network.parameters()):
        torch.testing.assert_close(own, parameter.grad)


def test_slices_are_the_same_on_any_number_of_threads(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    found = []
    for threads in (1, 2, 5):
        pool = ThreadPoolExecutor(threads)
        monkeypatch.setattr(slices, "_threads", lambda pool=pool: pool)
        found.append(gradients(*slice_setting(dropout=0.2)))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other))
    network, x, y = slice_setting(dropout=0.2)
    assert not torch.equal(network(x), network(x))  # a new step draws a new mask
