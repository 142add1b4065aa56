"""Quantisation and weight clustering: from float weights to a few values, and held there through
training.

A quantiser is a parametrisation of the weights (`weights.py`), for integers along with one of each
layer's inputs (`inputs.py`); `attach.py` puts both on a network and takes the result off it,
`size.py` counts what it saves.
"""

from core.registry import Registry

QUANTIZERS = Registry("quantiser")
_LAYERS = ("Linear", "Conv2d")
# layers: the kinds that it quantises; a network without one can't be quantised by it
# settings: arguments of the parametrisation
# inputs: whether each layer's inputs are quantised too, to 8 bits
# bits: of one stored weight; nonzero_bits: of one that is known not to be zero
for _bits, _nonzero_bits in ((8, 8), (4, 4), (2, 1)):
    QUANTIZERS.register(
        f"int{_bits}",
        "quantizer.weights:IntegerWeights",
        f"{_bits}-bit weights by output channel, 8-bit inputs, straight-through gradients "
        "(Jacob et al., CVPR 2018; Krishnamoorthi 2018)",
        layers=_LAYERS,
        settings={"bits": _bits},
        inputs=True,
        bits=_bits,
        nonzero_bits=_nonzero_bits,
    )
QUANTIZERS.register(
    "ternary",
    "quantizer.weights:TernaryWeights",
    "weights -1, 0 or 1 times a layer's mean |w| (BitNet b1.58, Ma et al. 2024)",
    layers=_LAYERS,
    settings={},
    inputs=False,
    bits=2,
    nonzero_bits=1,
)
for _clusters, _bits in ((16, 4), (8, 3), (4, 2)):
    QUANTIZERS.register(
        f"cluster{_clusters}",
        "quantizer.weights:SharedWeights",
        f"{_clusters} shared weights a layer by k-means, fine-tuned "
        "(deep compression, Han et al., ICLR 2016)",
        layers=_LAYERS,
        settings={"clusters": _clusters},
        inputs=False,
        bits=_bits,
        nonzero_bits=_bits,
    )
