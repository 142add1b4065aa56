"""SAMIA's network against torch's own encoder layer."""
import torch
from torch import nn
from torch.nn import functional as F

import transformer
from models.layers import Dropout, initialise, use_generator
from transformer import EncoderLayer, SelfAttentionAttack


def fresh(module):
    initialise(module, torch.Generator().manual_seed(0))
    use_generator(module, seed=1)
    return module


def torch_layer(ours: EncoderLayer, width=16, heads=4, feedforward=24) -> nn.TransformerEncoderLayer:
    """torch's layer with our weights."""
    layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, activation="gelu", batch_first=True,
                                       dtype=torch.float64)
    with torch.no_grad():
        for theirs, own in [("self_attn.in_proj_weight", ours.attention.in_weight),
                            ("self_attn.in_proj_bias", ours.attention.in_bias),
                            ("self_attn.out_proj.weight", ours.attention.out_weight),
                            ("self_attn.out_proj.bias", ours.attention.out_bias),
                            *[(f"{name}.{kind}", getattr(getattr(ours, name), kind))
                              for name in ("linear1", "linear2", "norm1", "norm2") for kind in ("weight", "bias")]]:
            layer.get_parameter(theirs).copy_(own)
    return layer


def test_encoder_layer_equals_torchs_forward_and_backward():
    ours = fresh(EncoderLayer(16, 4, 24, dropout=0.0)).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) / 10)
    theirs = torch_layer(ours)
    x = torch.randn(3, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))
    ours_grad, = torch.autograd.grad(ours(x).pow(3).sum(), x)
    theirs_grad, = torch.autograd.grad(theirs(x).pow(3).sum(), x)
    torch.testing.assert_close(ours_grad, theirs_grad)


def test_attack_network_is_made_as_the_paper_has_it():
    network = fresh(SelfAttentionAttack(num_cls=30))
    sizes = [30 * 3 * 2, 3 * 64 + 64,  # BatchNorm over the inputs, embedding
             *[3 * 64 * 64 + 3 * 64 + 64 * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64 + 4 * 64] * 3,
             30 * 64 * 64 + 64, 64 * 2 + 2]
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(sizes)
    drops = [module.p for module in network.modules() if isinstance(module, Dropout)]
    assert drops == [0.2] * 12  # attention weights, behind attention, in and behind the feed-forward part
    attention = network.encoder[0].attention
    assert attention.in_weight.abs().max() <= (6 / (64 + 192)) ** 0.5 and attention.in_bias.eq(0).all()
    assert attention.out_weight.abs().max() <= 1 / 8


def test_tokens_are_treated_alike_until_they_are_flattened():
    """Without a position code, permuting the classes permutes the encoder's output."""
    network = fresh(SelfAttentionAttack(num_cls=6)).eval()
    x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    encode = lambda x: nn.Sequential(*network.encoder)(F.gelu(network.embed(x)))  # noqa: E731
    torch.testing.assert_close(encode(x)[:, order], encode(x[:, order]))


def test_dropout_drops_its_share_and_keeps_the_mean():
    drop = Dropout(0.2)
    drop.generator = torch.Generator().manual_seed(0)
    x = torch.ones(1000, 999)
    out = drop(x)
    assert abs(out.eq(0).float().mean() - 0.2) < 5 * (0.16 / x.numel()) ** 0.5 + 1e-5
    assert abs(out.mean() - 1) < 5 * (0.25 / x.numel()) ** 0.5 + 1e-5
    rows = out.eq(0).float()
    assert abs(((rows[:, :-1] - 0.2) * (rows[:, 1:] - 0.2)).mean()) < 1e-3  # neighbours are independent
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
    network = fresh(SelfAttentionAttack(num_cls=5, width=8, feedforward=12, dropout=dropout)).double().train()
    draw = torch.Generator().manual_seed(0)
    return network, torch.randn(75, 5, 3, generator=draw, dtype=torch.float64), torch.arange(75) % 2


def test_slices_add_up_to_the_whole_batch():
    network, x, y = slice_setting(dropout=0.0)
    sliced = gradients(network, x, y)
    norm = network.norm(x.flatten(1)).view(x.shape)
    torch.testing.assert_close(network(x), network.record(norm))
    network.zero_grad()
    F.cross_entropy(network.record(network.norm(x.flatten(1)).view(x.shape)), y).backward()
    for own, parameter in zip(sliced, network.parameters()):
        torch.testing.assert_close(own, parameter.grad)


def test_slices_are_the_same_on_any_number_of_threads(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    found = []
    for threads in (1, 2, 5):
        pool = ThreadPoolExecutor(threads)
        monkeypatch.setattr(transformer, "_threads", lambda pool=pool: pool)
        found.append(gradients(*slice_setting(dropout=0.2)))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other))
    network, x, y = slice_setting(dropout=0.2)
    assert not torch.equal(network(x), network(x))  # a new step draws a new mask
