"""Networks by name. `build` gives a freshly initialised one for records of a given shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from core.console import UserError
from core.imports import import_own
from core.registry import Registry

if TYPE_CHECKING:  # torch is imported where it is used, so that --help answers at once
    import torch
    from torch import nn

MODELS = Registry("network")
_IMAGE_LAYERS = ("Conv2d", "BatchNorm2d", "Linear")
# smallest: the side of the smallest image that survives the network's poolings (0 = a table will
# do)
MODELS.register(
    "resnet18",
    "models.image:resnet18",
    "ResNet-18 (He et al., 2016)",
    smallest=1,
    layers=_IMAGE_LAYERS,
)
MODELS.register(
    "vgg16bn",
    "models.image:vgg16bn",
    "VGG-16 with BatchNorm (Simonyan & Zisserman, 2015)",
    alias="vgg16",
    smallest=32,
    layers=_IMAGE_LAYERS,
)
MODELS.register(
    "densenet121",
    "models.image:densenet121",
    "DenseNet-121 (Huang et al., 2017)",
    smallest=16,
    layers=_IMAGE_LAYERS,
)
MODELS.register(
    "columnfc",
    "models.column:columnfc",
    "256-128-C perceptron for tables",
    smallest=0,
    layers=("Linear",),
)


def build(
    name: str,
    *,
    shape: tuple[int, ...],
    num_cls: int,
    generator: torch.Generator,
    norm: str = "batch",
) -> nn.Module:
    """Return network `name` for records of `shape`, with weights and dropout drawn from
    `generator`.

    Args:
        shape: of one record, (C, H, W) for an image or (D,) for a table.
        num_cls: number of output logits.
        generator: a CPU generator; the network's dropout draws from one of its own, seeded by it.
        norm: "batch", or "group" for GroupNorm in place of BatchNorm.
    Raises:
        UserError: the network can't take records of this shape, or has no BatchNorm to replace.
    """
    import torch

    layers = import_own("models.layers")
    check_fit(name, shape)
    kinds_of_layers(name, norm)  # which raises where there is nothing to replace
    with torch.device(
        "meta"
    ):  # no memory, time or global randomness for weights that are drawn below
        network = MODELS.load(name)(shape=shape, num_cls=num_cls)
        if norm == "group":
            layers.group_norms(network)
    network.to_empty(device="cpu")
    layers.initialise(network, generator)
    layers.seed_dropout(network, seed=int(torch.randint(2**62, (), generator=generator)))
    return network


def kinds_of_layers(name: str, norm: str = "batch") -> tuple[str, ...]:
    """The kinds of layers with weights that network `name` has. Raises UserError where it has no
    normalisation to choose."""
    kinds = MODELS[name].options["layers"]
    if norm == "batch":
        return kinds
    if "BatchNorm2d" not in kinds:
        raise UserError(
            f"{name} has no BatchNorm that another normalisation could replace: leave out --norm {norm}"
        )
    return tuple("GroupNorm" if kind == "BatchNorm2d" else kind for kind in kinds)


def check_fit(name: str, shape: tuple[int, ...]) -> None:
    """Raise UserError where network `name` can't take records of `shape`."""
    smallest = MODELS[name].options["smallest"]
    if smallest and len(shape) != 3:
        raise UserError(
            f"{name} takes images, the records are tables of {shape[0]} columns: use columnfc"
        )
    if smallest and min(shape[1:]) < smallest:
        raise UserError(
            f"images of {shape[1]}x{shape[2]} are too small for {name}, which needs "
            f"{smallest}x{smallest} or more"
        )


def input_dim(name: str, shape: tuple[int, ...]) -> int:
    """The config's `input_dim` that fits: channels for an image network, columns (flattened) for
    columnfc."""
    return shape[0] if MODELS[name].options["smallest"] else math.prod(shape)
