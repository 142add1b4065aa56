"""Masks: from what a layer keeps to its parameters, and kept through training."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from core.console import UserError
from pruner import PRUNERS, check_sparsity
from pruner.context import Context
from pruner.selection import SELECTIONS

_MASK = "pruning_mask"  # the attribute of a parameter that holds its mask


def compute_masks(
    network: nn.Module,
    *,
    pruner: str,
    sparsity: float,
    context: Context | None = None,
    within: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Masks {parameter name: bool tensor on the CPU, False = pruned} for `network`, which is not
    changed.

    A pruned filter or channel takes its bias along.

    Args:
        sparsity: the share that is pruned in the end, what `within` prunes included. A pruner of
            one sparsity (nm24) takes smaller ones on the way there.
        context: what pruners with `needs` in the registry compute their scores from.
        within: masks of an earlier round, whose pruned weights are zero in `network`: what they
            prune stays pruned.
    Raises:
        UserError: the network has no layer that this pruner prunes, its scores can't be told apart,
            or ties would leave nothing.
        ValueError: the context lacks what the pruner needs, or weights that `within` prunes are
            not zero.
    """
    if sparsity > PRUNERS[pruner].options.get("sparsity", 1):
        check_sparsity(pruner, sparsity)
    within = {name: mask.cpu() for name, mask in (within or {}).items()}
    _check_zeros(network, within)
    scores = _scores(network, pruner, context, within)
    keeps = SELECTIONS[PRUNERS[pruner].options["select"]](scores, sparsity)
    if not any(keep.any() for keep in keeps.values()):
        raise UserError(
            f"{pruner} would prune everything: its smallest scores are tied with the largest, as "
            f"after too few training steps; pretrain for more steps, say with a smaller --batch_size"
        )
    masks = {}
    for name, keep in keeps.items():
        weight = network.get_parameter(f"{name}.weight")
        if keep.shape == weight.shape:
            masks[f"{name}.weight"] = keep
        else:
            whole = keep.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
            masks[f"{name}.weight"] = whole.clone()
        if keep.dim() == 1 and network.get_submodule(name).bias is not None:
            masks[f"{name}.bias"] = keep
    return masks | {name: mask & masks.get(name, mask) for name, mask in within.items()}


def _scores(
    network: nn.Module, pruner: str, context: Context | None, within: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """{layer: its score, on the CPU}, -inf where `within` prunes. Raises as `compute_masks`."""
    score_of, options = PRUNERS.load(pruner), PRUNERS[pruner].options
    if needs := options.get("needs", ()):
        context = replace(context or Context(), masks=within)
        context.check(pruner, needs)
        scores = score_of(network, context)
    else:
        every_score = {name: score_of(module) for name, module in network.named_modules()}
        scores = {name: score for name, score in every_score.items() if score is not None}
    if not scores:
        raise UserError(
            f"{pruner} has nothing to prune here: the network has no {options['layer']} layer"
        )
    return {
        name: _pruned_first(score.cpu(), within.get(f"{name}.weight"))
        for name, score in scores.items()
    }


def _pruned_first(score: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The score of a layer, -inf where its earlier mask prunes; a filter is pruned where all its
    weights are."""
    if mask is None:
        return score
    kept = mask if mask.shape == score.shape else mask.flatten(1).any(dim=1)
    return score.masked_fill(~kept, -torch.inf)


def _check_zeros(network: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    for name, mask in masks.items():
        if network.get_parameter(name).detach().cpu()[~mask].any():
            raise ValueError(f"{name} has weights that the earlier masks prune: attach them first")


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
