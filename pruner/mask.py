"""Masks: from what a layer keeps to its parameters, and kept through training."""

import torch
from torch import nn

from core.console import UserError
from pruner import PRUNERS
from pruner.selection import in_each_layer, over_all_layers

_MASK = "pruning_mask"  # the attribute of a parameter that holds its mask


def compute_masks(network: nn.Module, *, pruner: str, sparsity: float) -> dict[str, torch.Tensor]:
    """Masks {parameter name: bool tensor on the CPU, False = pruned} for `network`, which is not
    changed.

    A pruned filter or channel takes its bias along.

    Raises:
        UserError: the network has no layer that this pruner prunes, or ties would leave nothing.
    """
    score_of = PRUNERS.load(pruner)
    every_score = {name: score_of(module) for name, module in network.named_modules()}
    scores = {name: score.cpu() for name, score in every_score.items() if score is not None}
    if not scores:
        raise UserError(
            f"{pruner} has nothing to prune here: the network has no "
            f"{PRUNERS[pruner].options['layer']} layer"
        )
    select = in_each_layer if PRUNERS[pruner].options["per_layer"] else over_all_layers
    masks = {}
    keeps = select(scores, sparsity)
    if not any(keep.any() for keep in keeps.values()):
        raise UserError(
            f"{pruner} would prune everything: its smallest scores are tied with the largest, as "
            f"after too few training steps; pretrain for more steps, say with a smaller --batch_size"
        )
    for name, keep in keeps.items():
        weight = network.get_parameter(f"{name}.weight")
        if keep.shape == weight.shape:
            masks[f"{name}.weight"] = keep
        else:
            whole = keep.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
            masks[f"{name}.weight"] = whole.clone()
        if keep.dim() == 1 and network.get_submodule(name).bias is not None:
            masks[f"{name}.bias"] = keep
    return masks


def emptied(network: nn.Module, masks: dict[str, torch.Tensor]) -> list[str]:
    """Names of the masked layers of which pruning leaves nothing: all weights are zero.

    A layer where all magnitudes are tied goes as a whole, as one does where slim's threshold is
    above all its channels.
    """
    weights = {
        name.removesuffix(".weight"): network.get_parameter(name).detach().cpu() * mask
        for name, mask in masks.items()
        if name.endswith(".weight")
    }
    return [layer for layer, weight in weights.items() if not weight.any()]


def attach_masks(network: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    """Set pruned parameters to zero and keep them there through training.

    Their gradients are zeroed as they arise: with a zero weight, zero gradient and zero moments, no
    optimiser step (weight decay and momentum included) moves them, and they stay out of every
    gradient norm. `mask_of` tells a parameter's mask.
    """
    for name, mask in masks.items():
        parameter = network.get_parameter(name)
        mask = mask.to(parameter.device)
        with torch.no_grad():
            parameter.mul_(mask)
        setattr(parameter, _MASK, mask)
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask)


def mask_of(parameter: torch.Tensor) -> torch.Tensor | None:
    """The mask that `attach_masks` gave this parameter, bool of its shape; None where it has
    none."""
    return getattr(parameter, _MASK, None)


def sparsity(masks: dict[str, torch.Tensor]) -> float:
    """The share of the masked parameters that is pruned."""
    return sum(int((~mask).sum()) for mask in masks.values()) / sum(
        mask.numel() for mask in masks.values()
    )
