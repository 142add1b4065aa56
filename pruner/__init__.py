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
PRUNERS.register(
    "l1global",
    "pruner.scores:weights",
    "weights of smallest magnitude over all layers together",
    layer="Linear",
    select="exactly_over_all_layers",
)
PRUNERS.register(
    "random",
    "pruner.scores:random",
    "weights by chance in each layer: the control",
    layer="Linear",
    select="exactly_in_each_layer",
    needs=("generator",),
)
PRUNERS.register(
    "lamp",
    "pruner.scores:lamp",
    "weights of smallest square over the squares not smaller in their layer, over all layers "
    "(LAMP, Lee et al., ICLR 2021)",
    layer="Linear",
    select="exactly_over_all_layers",
)
PRUNERS.register(
    "nm24",
    "pruner.scores:weights",
    "the 2 smallest magnitudes of each 4 consecutive inputs (2:4, Mishra et al., 2021)",
    layer="Linear",
    select="two_of_four",
    sparsity=0.5,
)
PRUNERS.register(
    "snip",
    "pruner.scores:snip",
    "weights of smallest |weight x gradient| over all layers (SNIP, Lee et al., ICLR 2019)",
    layer="Linear",
    select="exactly_over_all_layers",
    needs=("data",),
)
PRUNERS.register(
    "grasp",
    "pruner.scores:grasp",
    "weights that the gradient flow loses least by, over all layers (GraSP, Wang et al., ICLR 2020)",
    layer="Linear",
    select="exactly_over_all_layers",
    needs=("data",),
)
PRUNERS.register(
    "wanda",
    "pruner.scores:wanda",
    "weights of smallest |weight| x input norm in each output (Wanda, Sun et al., ICLR 2024)",
    layer="Linear",
    select="in_each_row",
    needs=("data",),
)
PRUNERS.register(
    "taylorstructure",
    "pruner.scores:filters_taylor",
    "filters of smallest first-order change of the loss over all convolutions "
    "(Taylor-FO, Molchanov et al., CVPR 2019)",
    layer="Conv2d",
    select="exactly_over_all_layers",
    needs=("data",),
)
PRUNERS.register(
    "fpgm",
    "pruner.scores:filters_fpgm",
    "filters nearest to the geometric median of each convolution (FPGM, He et al., CVPR 2019)",
    layer="Conv2d",
    select="exactly_in_each_layer",
)


def check_sparsity(pruner: str, sparsity: float) -> None:
    """Raise UserError where `pruner` can't have this final sparsity."""
    only = PRUNERS[pruner].options.get("sparsity")
    if only is not None and sparsity != only:
        raise UserError(
            f"{pruner} has sparsity {only:g} by definition, not {sparsity:g}: "
            f"use --prune_sparsity {only:g}, or another pruner"
        )
