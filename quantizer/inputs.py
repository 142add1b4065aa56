"""Quantised inputs of layers: 8 bits a tensor, with ranges seen on records."""

from collections.abc import Iterable

import torch
from torch import nn

from models.layers import evaluation_mode

LEVELS = 255  # the largest of 8 bits without sign
NAME = "input_quantizer"  # of the submodule that a layer gets
_BATCH = 256  # records of a forward pass


class InputQuantizer(nn.Module):
    """Rounds to integers 0..255 and back: x -> s (clip(round(x / s) + z, 0, 255) - z), straight
    through for gradients within the range and none outside it.

    Affine, for a whole tensor, zero being exact (Jacob et al., CVPR 2018, sections 2.1 and 3;
    gradients as in Krishnamoorthi 2018, section 2.4).

    Departs from section 3.1 of Jacob et al. in the range, which is calibrated once and then fixed,
    not a moving average through training, and in that inputs are quantised from the first step on.

    Attributes:
        scale: s, (), float32.
        zero_point: z, (), int32.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, low: float = 0.0, high: float = 1.0):
        """`low`, `high`: the range; it is widened to contain zero."""
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / LEVELS, torch.finfo(torch.float32).eps)
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(round(-low / scale), dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype in (torch.bfloat16, torch.float16):  # of autocast: too coarse for 256 levels
            x = x.float()
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, LEVELS)


def attach_input_quantizer(layer: nn.Module, quantizer: InputQuantizer) -> None:
    """Let `layer` see its input through `quantizer`, which becomes its submodule
    `input_quantizer`."""
    layer.add_module(NAME, quantizer.to(layer.get_parameter("weight").device))
    layer.register_forward_pre_hook(_quantize)


def _quantize(layer: nn.Module, args: tuple) -> tuple:
    return (layer.get_submodule(NAME)(args[0]), *args[1:])


@torch.no_grad()
def input_ranges(
    network: nn.Module, layers: Iterable[nn.Module], calibration: torch.Tensor
) -> list[tuple[float, float]]:
    """Smallest and largest input of each of `layers` over records (B, ...), in evaluation mode.

    A layer that `network` does not call has the range (0, 0).
    """
    ranges = {layer: (0.0, 0.0) for layer in layers}
    seen = set()

    def look(layer: nn.Module, args: tuple) -> None:
        low, high = (bound.item() for bound in args[0].aminmax())
        if layer in seen:
            low, high = min(low, ranges[layer][0]), max(high, ranges[layer][1])
        seen.add(layer)
        ranges[layer] = low, high

    handles = [layer.register_forward_pre_hook(look) for layer in ranges]
    try:
        with evaluation_mode(network):
            for batch in calibration.split(_BATCH):
                network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return list(ranges.values())
