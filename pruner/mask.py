"""Masks: from what a layer keeps to its parameters, and kept through training."""

import torch
from torch import nn

from core.console import UserError
from pruner import PRUNERS
from pruner.selection import in_each_layer, over_all_layers


def compute_masks(network: nn.Module, *, pruner: str, sparsity: float) -> dict[str, torch.Tensor]:
    """Masks {parameter name: bool tensor on the CPU, False = pruned} for `network`, which is not changed.

    A pruned filter or channel takes its bias along.

    Raises:
        UserError: the network has no layer that this pruner prunes, or ties would leave nothing.
    """
    score_of = PRUNERS.load(pruner)
    found = {name: score_of(module) for name, module in network.named_modules()}
    scores = {name: score.cpu() for name, score in found.items() if score is not None}
    if not scores:
        raise UserError(
            f"{pruner} has nothing to prune here: the network has no "
            f"{PRUNERS[pruner].options['layer']} layer"
        )
    select = in_each_layer if PRUNERS[pruner].options["per_layer"] else over_all_layers
    masks = {}
    kept = select(scores, sparsity)
    if not any(keep.any() for keep in kept.values()):
        raise UserError(
            f"{pruner} would prune everything: its smallest scores are tied with the largest, as after too "
            f"few training steps; pretrain for more steps, say with a smaller --batch_size"
        )
    for name, keep in kept.items():
        module = network.get_submodule(name)
        if keep.shape == module.weight.shape:
            masks[f"{name}.weight"] = keep
        else:
            masks[f"{name}.weight"] = (
                keep.view(-1, *[1] * (module.weight.dim() - 1)).expand_as(module.weight).clone()
            )
        if keep.dim() == 1 and module.bias is not None:
            masks[f"{name}.bias"] = keep
    return masks


def emptied(network: nn.Module, masks: dict[str, torch.Tensor]) -> list[str]:
    """Names of the masked layers of which pruning leaves nothing: all weights zero, whatever comes in.

    A layer where all magnitudes are tied goes as a whole, as one does where slim's threshold is above all its channels.
    """
    weights = {
        name.removesuffix(".weight"): network.get_parameter(name).detach().cpu() * mask
        for name, mask in masks.items()
        if name.endswith(".weight")
    }
    return [layer for layer, weight in weights.items() if not weight.any()]


def attach_masks(network: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    """Set pruned parameters to zero and keep them there through training.

    Their gradients are zeroed as they arise: with a zero weight, zero gradient and zero moments, no optimiser
    step (weight decay and momentum included) moves them, and they stay out of every gradient norm. `parameter.kept`
    is its mask.
    """
    for name, mask in masks.items():
        parameter = network.get_parameter(name)
        mask = mask.to(parameter.device)
        with torch.no_grad():
            parameter.mul_(mask)
        parameter.kept = mask
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask)


def sparsity(masks: dict[str, torch.Tensor]) -> float:
    """The share of the masked parameters that is pruned."""
    return sum(int((~mask).sum()) for mask in masks.values()) / sum(
        mask.numel() for mask in masks.values()
    )
