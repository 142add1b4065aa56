"""What compression saves: non-zero weights, bits, bytes and multiply-adds."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.layers import evaluation_mode
from quantizer import QUANTIZERS
from quantizer.attach import effective_state
from quantizer.compression_size import CompressionSize
from quantizer.inputs import NAME

_FLOAT = 32  # bits of a value that is not quantised


def measure_size(
    network: nn.Module, *, quantizer: str | None, shape: tuple[int, ...]
) -> CompressionSize:
    """Count what `network` takes; pruned is what is zero.

    Args:
        network: float, with its quantiser attached, or with the weights that one left
            (`quantizer.attach.load_effective`).
        quantizer: by whose coding weights are stored; None = float32.
        shape: of one record.
    """
    state = effective_state(network)
    layers = {path: layer for path, layer in network.named_modules() if _has_weights(layer)}
    tensors = {path: state[f"{path}.weight" if path else "weight"] for path in layers}
    counts = {
        path: (weight.numel(), int(weight.count_nonzero())) for path, weight in tensors.items()
    }
    weights, nonzero = (sum(column) for column in zip(*counts.values()))
    bits = sum(weight_bits(weight, quantizer=quantizer) for weight in tensors.values())
    values = sum(
        tensor.numel()
        for name, tensor in state.items()
        if tensor.is_floating_point() and NAME not in name.split(".")
    )
    inputs = bool(quantizer and QUANTIZERS[quantizer].options["inputs"])
    # a float32 scale and an 8-bit zero point each
    input_bits = (_FLOAT + 8) * len(layers) * inputs
    adds = multiply_adds(network, shape)
    return CompressionSize(
        weights=weights,
        nonzero=nonzero,
        bits_per_weight=bits / weights,
        dense_bytes=_FLOAT // 8 * values,
        compressed_bytes=-(-(bits + input_bits + _FLOAT * (values - weights)) // 8),
        multiply_adds=sum(adds.values()),
        nonzero_multiply_adds=sum(
            count * counts[path][1] // counts[path][0] for path, count in adds.items()
        ),
    )


def _has_weights(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Linear, nn.Conv2d))


def weight_bits(weight: torch.Tensor, *, quantizer: str | None) -> int:
    """Bits that one layer's effective weight (out, ...) takes, with all that decodes it.

    Its n values are stored one by one, or as a mask of n bits with the values that are not zero,
    whichever is less; a codebook has no entry for zero. To that come a float32 scale for each
    channel (int*) or layer (ternary), or one for each entry of the codebook, n log2(k) + 32 k bits
    as in Han et al., "Deep Compression", ICLR 2016, equation 1.

    Departs from section 2 there in the coding of positions: not the distance to the last non-zero
    value in 5 or 8 bits (4 or 5 in the paper's tables), of which b bits take less than a mask only
    where fewer than 1 / b are left, and whose size hangs on their order. Nor is there a Huffman
    code (section 4).
    """
    size, nonzero = weight.numel(), int(weight.count_nonzero())
    if quantizer is None:
        return min(_FLOAT * size, size + _FLOAT * nonzero)
    options = QUANTIZERS[quantizer].options
    if "clusters" in options["settings"]:
        entries = len(weight[weight != 0].unique())
        masked = size if nonzero < size else 0
        return masked + options["bits"] * nonzero + _FLOAT * entries
    scales = len(weight) if options["inputs"] else 1
    values = min(options["bits"] * size, size + options["nonzero_bits"] * nonzero)
    return values + _FLOAT * scales


@torch.no_grad()
def multiply_adds(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """{layer name: multiply-adds} of one record of `shape` in each Linear and Conv2d layer.

    From torch's FLOP counter, which counts two operations for a multiply-add and none for biases.
    A layer that is not called has none.
    """
    record = torch.zeros(1, *shape, device=next(network.parameters()).device)
    counts: dict[str, int] = {}

    def enter(path: str):
        return lambda *_: before.__setitem__(path, counter.get_total_flops())

    def leave(path: str):
        def count(*_) -> None:
            spent = counter.get_total_flops() - before[path]
            counts[path] = counts.get(path, 0) + spent // 2

        return count

    before: dict[str, int] = {}
    counter = FlopCounterMode(display=False)
    handles = []
    for path, layer in network.named_modules():
        if _has_weights(layer):
            handles += [
                layer.register_forward_pre_hook(enter(path)),
                layer.register_forward_hook(leave(path)),
            ]
    try:
        with counter, evaluation_mode(network):
            network(record)
    finally:
        for handle in handles:
            handle.remove()
    return counts
