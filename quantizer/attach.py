"""A quantiser on a network: attached, trained through, and taken off as plain weights."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from core.console import UserError
from quantizer import QUANTIZERS
from quantizer.inputs import NAME, InputQuantizer, attach_input_quantizer, input_ranges
from quantizer.weights import KeepZeros

_KINDS: dict[str, type[nn.Module]] = {"Linear": nn.Linear, "Conv2d": nn.Conv2d}


def quantizable_layers(network: nn.Module, name: str) -> dict[str, nn.Module]:
    """{name in the network: layer} of all that this quantiser quantises.

    Raises:
        UserError: there is none.
    """
    kinds = tuple(_KINDS[kind] for kind in QUANTIZERS[name].options["layers"])
    layers = {path: module for path, module in network.named_modules() if isinstance(module, kinds)}
    if not layers:
        raise UserError(
            f"{name} has nothing to quantise here: the network has no "
            f"{' or '.join(QUANTIZERS[name].options['layers'])} layer"
        )
    return layers


def attach_quantizer(
    network: nn.Module, name: str, *, calibration: torch.Tensor | None = None
) -> None:
    """Quantise the weights of all layers that fit, and with integers their inputs; both stay
    quantised through training, and biases and normalisation stay float.

    Weights that are exactly zero are taken for pruned and stay zero; no mask is needed, and hooks
    on the weights (those of `pruner.mask.attach_masks`) are dropped, while those on biases stay.
    Attach before an optimiser is made: the trained tensors are new ones. `effective_state` tells
    the weights at any time; with no training at all they are the float ones rounded to nearest.

    Args:
        network: with float weights, changed in place.
        calibration: normalised train records (B, ...) on the network's device, from which the
            ranges of inputs are taken, with float weights; only of use to integers.
    Raises:
        UserError: the network has no layer that fits.
        ValueError: it is quantised already, or integers have no calibration records.
    """
    layers = quantizable_layers(network, name)
    if any(is_quantized(layer) for layer in layers.values()):
        raise ValueError("the network is quantised already")
    if QUANTIZERS[name].options["inputs"]:
        if calibration is None or not len(calibration):
            raise ValueError(f"{name} needs records to calibrate the ranges of inputs")
        ranges = input_ranges(network, layers.values(), calibration)
        for layer, (low, high) in zip(layers.values(), ranges, strict=True):
            attach_input_quantizer(layer, InputQuantizer(low, high))
    for layer in layers.values():
        _quantize_weight(layer, name)


def _quantize_weight(layer: nn.Module, name: str) -> None:
    if parametrize.is_parametrized(layer, "weight"):  # a mask: its zeros are found below
        parametrize.remove_parametrizations(layer, "weight")
    weight = layer.get_parameter("weight")
    # a new parameter, without the hook of a mask, which would not fit a codebook
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    quantizer = QUANTIZERS.load(name)(**QUANTIZERS[name].options["settings"])
    if not hasattr(quantizer, "right_inverse") and bool((weight == 0).any()):
        parametrize.register_parametrization(layer, "weight", KeepZeros(weight))
    parametrize.register_parametrization(layer, "weight", quantizer)


def is_quantized(layer: nn.Module) -> bool:
    """Whether `attach_quantizer` or `load_effective` has been at this layer's weight or input."""
    if hasattr(layer, NAME):
        return True
    known = tuple(QUANTIZERS.load(name) for name in QUANTIZERS)
    steps = getattr(layer, "parametrizations", {})
    return "weight" in steps and any(isinstance(step, known) for step in steps["weight"])


@torch.no_grad()
def effective_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a network under the names that it has without parametrisations: quantised
    weights as its layers work with them, and of inputs `LAYER.input_quantizer.scale` and
    `.zero_point`.

    Of a network without quantiser this is its `state_dict()`.
    """
    state = {}
    for path, module in network.named_modules():
        if parametrize.is_parametrized(module):
            prefix = f"{path}." if path else ""
            state.update(
                {f"{prefix}{name}": getattr(module, name) for name in module.parametrizations}
            )
    for name, tensor in network.state_dict().items():
        if "parametrizations" not in name.split("."):
            state[name] = tensor
    return {name: tensor.detach() for name, tensor in state.items()}


def load_effective(network: nn.Module, name: str | None, state: Mapping[str, torch.Tensor]) -> None:
    """Make a plain network answer as the one did of which this is the `effective_state`.

    Weights are taken as they are stored, and not quantised again; inputs are quantised.

    Args:
        network: of the same architecture, without quantiser, changed in place.
        name: of its quantiser; None where it had none.
    Raises:
        UserError: the network has no layer that this quantiser fits.
        ValueError: it is quantised already.
        RuntimeError: the state is of another architecture or quantiser.
    """
    layers = quantizable_layers(network, name) if name else {}
    if any(is_quantized(layer) for layer in layers.values()):
        raise ValueError("the network is quantised already")
    if name and QUANTIZERS[name].options["inputs"]:
        for layer in layers.values():
            attach_input_quantizer(layer, InputQuantizer())
    network.load_state_dict(dict(state))
