"""Quantisers on networks: through training, killed and resumed, stored and loaded."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from base_model import BaseModel, Callback, TrainConfig, TrainSet
from core.console import UserError
from datasets import Records
from models import build, stack
from pruner.mask import compute_masks
from quantizer import QUANTIZERS
from quantizer.attach import attach_quantizer, effective_state, load_effective
from quantizer.weights import integer_levels

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def digits():
    x, y = load_digits(return_X_y=True)
    return Records(torch.tensor(x / 16).float(), torch.tensor(y), num_cls=10)


RECORDS = digits()
ROWS = torch.arange(200)


def columnfc(masks=None):
    network = build("columnfc", shape=(64,), num_cls=10, generator=seeded())
    model = BaseModel(network, device=CPU, generator=seeded(1))
    if masks == "half":
        masks = compute_masks(network, pruner="l1unstructure", sparsity=0.5)
    if masks is not None:
        model.attach_masks(masks)
    return model


def convolutions():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=seeded()), alpha=0.3)
    return network.to(memory_format=torch.channels_last)


def train(model, *callbacks, epochs=1, **changes):
    config = {"epochs": epochs, "batch_size": 20, "lr": 0.01} | changes
    return model.train(
        TrainSet(RECORDS, ROWS, torch.arange(200, 300)),
        TrainConfig(**config),
        generator=seeded(2),
        callbacks=callbacks,
    )


def layers_of(state):
    return {name: tensor for name, tensor in state.items() if tensor.dim() > 1}


def assert_levels(name, state):
    """Levels and codebooks of the size that the quantiser's name says."""
    settings = QUANTIZERS[name].options["settings"]
    for weight in layers_of(state).values():
        if "bits" in settings:
            levels, scale = integer_levels(weight, bits=settings["bits"])
            assert torch.allclose(levels * scale[:, None], weight, rtol=1e-6, atol=0)
            assert (levels.abs().amax(1) == 2 ** (settings["bits"] - 1) - 1).all()
            continue
        values = weight[weight != 0].unique()
        if "clusters" in settings:
            assert len(values) == settings["clusters"]
        else:
            assert len(values) == 2 and values[0] == -values[1]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("masks", [None, "half"])
@pytest.mark.parametrize("name", list(QUANTIZERS))
def test_levels_and_zeros_stay_through_ten_steps(name, masks, optimizer):
    """Steps with weight decay, and with momentum (Adam's first moment, or SGD's)."""
    model = columnfc(masks)
    attach_quantizer(model.network, name, calibration=RECORDS.x[ROWS])
    before = copy.deepcopy(effective_state(model.network))
    lr = {"adam": 0.01, "sgd": 0.001}[optimizer]
    train(model, optimizer=optimizer, lr=lr, weight_decay=0.01)
    after = effective_state(model.network)
    assert set(after) == set(before)
    assert_levels(name, before), assert_levels(name, after)
    for key, weight in layers_of(after).items():
        assert not torch.equal(weight, before[key])
        if masks:
            mask = model.masks[key]
            assert not weight[~mask].any()
            if name.startswith("cluster"):
                assert weight[mask].all()


@pytest.mark.parametrize("name", list(QUANTIZERS))
def test_without_training_weights_are_rounded_to_nearest(name):
    model = columnfc()
    plain = layers_of(copy.deepcopy(model.network.state_dict()))
    attach_quantizer(model.network, name, calibration=RECORDS.x[ROWS])
    train(model, epochs=0)
    for key, weight in layers_of(effective_state(model.network)).items():
        error = (weight - plain[key]).abs()
        for row in range(0, len(weight), 7):
            levels = (weight[row] if name.startswith("int") else weight).unique()
            nearest = (plain[key][row][:, None] - levels).abs().amin(1)
            assert torch.allclose(error[row], nearest, atol=1e-6)


class Store(Callback):
    """Stops the training behind an epoch with its state in hand, or starts from one."""

    def __init__(self, stop=None, state=None):
        self.stop, self.state = stop, state

    def on_start(self, run):
        if self.state is not None:
            run.set_state(self.state)

    def on_epoch(self, run):
        if run.epoch == self.stop:
            self.state = copy.deepcopy(run.state())
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", list(QUANTIZERS))
def test_killed_and_resumed_it_comes_out_to_the_last_bit(name):
    def model():
        made = columnfc("half")
        attach_quantizer(made.network, name, calibration=RECORDS.x[ROWS])
        return made

    whole, killed, resumed = model(), model(), model()
    train(whole, epochs=4)
    store = Store(stop=2)
    with pytest.raises(KeyboardInterrupt):
        train(killed, store, epochs=4)
    train(resumed, Store(state=store.state), epochs=4)
    expected = effective_state(whole.network)
    for key, tensor in effective_state(resumed.network).items():
        assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("make", [lambda: columnfc("half").network, convolutions])
@pytest.mark.parametrize("name", list(QUANTIZERS))
def test_a_loaded_network_answers_to_the_last_bit(name, make):
    x = RECORDS.x if make is not convolutions else RECORDS.x.view(-1, 1, 8, 8)
    network, plain = make(), make()
    names = set(plain.state_dict())
    attach_quantizer(network, name, calibration=x[ROWS])
    state = copy.deepcopy(effective_state(network))
    load_effective(plain, name, state)
    network.eval(), plain.eval()
    assert torch.equal(network(x), plain(x))
    again = effective_state(plain)
    assert set(again) == set(plain.state_dict()) == set(state) and names <= set(state)
    assert all(torch.equal(again[key], state[key]) for key in state)
    copied = [copy.deepcopy(one)(x) for one in (network, plain)]
    assert all(torch.equal(one, plain(x)) for one in copied)
    called = torch.func.functional_call(network, dict(network.named_parameters()), (x,))
    assert torch.equal(called, plain(x))
    if QUANTIZERS[name].options["inputs"]:  # else it is a plain network with few values
        with pytest.raises(ValueError, match="already"):
            attach_quantizer(plain, name, calibration=x)
    with pytest.raises(ValueError, match="already"):
        load_effective(network, name, state)
    assert not stack.fits(network) and (name[:3] != "int" or not stack.fits(plain))


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="no Linear or Conv2d layer"):
        attach_quantizer(nn.Sequential(nn.ReLU()), "ternary")
    with pytest.raises(ValueError, match="calibrate"):
        attach_quantizer(nn.Linear(2, 2), "int8")
    with pytest.raises(UserError, match="unknown quantiser 'int9'"):
        attach_quantizer(nn.Linear(2, 2), "int9")


def integer_layer(layer, x, kernel):
    """A quantised linear layer by an integer kernel, from inputs (B, in) to (B, out)."""
    scale, zero = layer.input_quantizer.scale, layer.input_quantizer.zero_point
    stored = ((x * (1 / scale)).round() + zero).clamp(0, 255).to(torch.uint8)
    levels, scales = integer_levels(layer.weight, bits=8)
    if kernel == "_int_mm":
        total = torch._int_mm((stored.int() - 128).to(torch.int8), levels.t().contiguous())
        total = total - (zero - 128) * levels.sum(1, dtype=torch.int32)
        return total * (scale * scales) + layer.bias
    packed = torch.ops.onednn.qlinear_prepack(levels, None)
    return torch.ops.onednn.qlinear_pointwise(
        stored, scale.item(), zero.item(), packed, scales,
        torch.zeros(len(scales), dtype=torch.int32), layer.bias, 1.0, 0, torch.float32,
        "none", [], "",
    )  # fmt: skip


@pytest.mark.parametrize("kernel", ["_int_mm", "onednn"])
def test_int8_agrees_with_integer_kernels_on_digits(kernel):
    """A layer by itself agrees to float32's rounding of its sum. Through the network a sum next to
    the middle between two levels may fall to the other one, which moves a logit by that level's
    scale times a weight: the largest of those in the last layer is the bound (found on an x86
    processor: 5e-6, a 3000th of it, where no sum fell otherwise)."""
    model = columnfc()
    train(model, epochs=4)
    attach_quantizer(model.network, "int8", calibration=RECORDS.x[ROWS])
    train(model, epochs=1, lr=0.001)
    network = columnfc().network
    load_effective(network, "int8", effective_state(model.network))
    network.eval()
    integer = fake = RECORDS.x
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear):
                alone, integer = (integer_layer(layer, x, kernel) for x in (fake, integer))
                assert torch.allclose(alone, layer(fake), rtol=1e-5, atol=2e-5)
                level = layer.input_quantizer.scale * layer.weight.abs().max()
            else:
                integer = layer(integer)
            fake = layer(fake)
    difference = (integer - fake).abs()
    assert difference.max() < level
    assert torch.equal(integer.argmax(1), fake.argmax(1))
    assert F.cosine_similarity(integer, fake).min() > 0.9999
    assert (fake.argmax(1) == RECORDS.y).float().mean() > 0.7


@pytest.mark.parametrize("name", ["int8", "ternary", "cluster4"])
def test_training_in_bfloat16_keeps_float32_levels(name):
    network = build("columnfc", shape=(64,), num_cls=10, generator=seeded())
    model = BaseModel(network, device=CPU, generator=seeded(1), precision="bf16")
    attach_quantizer(network, name, calibration=RECORDS.x[ROWS])
    train(model, epochs=2)
    state = effective_state(network)
    assert_levels(name, state)
    assert all(weight.dtype == torch.float32 for weight in layers_of(state).values())
