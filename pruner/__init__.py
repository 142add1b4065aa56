"""Pruning, after Torch-Pruning's split: a score (what is unimportant), a selection (how many go,
and from where) and a mask (kept through fine-tuning). A pruner combines a score with a
selection."""

from core.registry import Registry

PRUNERS = Registry("pruner")
# layer: the kind that it prunes; a network without one can't be pruned by it
PRUNERS.register(
    "l1unstructure",
    "pruner.scores:weights",
    "weights of smallest magnitude in each layer",
    layer="Linear",
    per_layer=True,
)
PRUNERS.register(
    "l1structure",
    "pruner.scores:filters_l1",
    "filters of smallest L1 norm in each convolution",
    layer="Conv2d",
    per_layer=True,
)
PRUNERS.register(
    "l2structure",
    "pruner.scores:filters_l2",
    "filters of smallest L2 norm in each convolution",
    layer="Conv2d",
    per_layer=True,
)
PRUNERS.register(
    "slim",
    "pruner.scores:channels",
    "channels of smallest BatchNorm |gamma| over all layers together "
    "(network slimming, Liu et al., ICCV 2017)",
    layer="BatchNorm2d",
    per_layer=False,
)
