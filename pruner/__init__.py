"""Pruning, after Torch-Pruning's split: a score (what is unimportant), a selection (how many go,
and from where) and a mask (kept through fine-tuning). A pruner combines a score with a
selection."""

from core.console import UserError
from core.registry import Registry

PRUNERS = Registry("pruner")
# layer: the kind that it prunes; a network without one can't be pruned by it (weights of Linear and
#     Conv2d say "Linear", which every network has).
# select: from where the smallest scores go, a name in pruner.selection.SELECTIONS.
# needs: what its score asks of a pruner.context.Context, "data" (train records: no guarantee of
#     differential privacy then holds) or "generator". With it the score is a function of network
#     and context, without it of a module.
# sparsity: the only one that it can have.
PRUNERS.register(
    "l1unstructure",
    "pruner.scores:weights",
    "weights of smallest magnitude in each layer",
    layer="Linear",
    select="in_each_layer",
)
PRUNERS.register(
    "l1structure",
    "pruner.scores:filters_l1",
    "filters of smallest L1 norm in each convolution",
    layer="Conv2d",
    select="in_each_layer",
)
PRUNERS.register(
    "l2structure",
    "pruner.scores:filters_l2",
    "filters of smallest L2 norm in each convolution",
    layer="Conv2d",
    select="in_each_layer",
)
PRUNERS.register(
    "slim",
    "pruner.scores:channels",
    "channels of smallest BatchNorm |gamma| over all layers together "
    "(network slimming, Liu et al., ICCV 2017)",
    layer="BatchNorm2d",
    select="over_all_layers",
)


def check_sparsity(pruner: str, sparsity: float) -> None:
    """Raise UserError where `pruner` can't have this final sparsity."""
    only = PRUNERS[pruner].options.get("sparsity")
    if only is not None and sparsity != only:
        raise UserError(
            f"{pruner} has sparsity {only:g} by definition, not {sparsity:g}: "
            f"use --prune_sparsity {only:g}, or another pruner"
        )
