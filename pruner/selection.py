"""How many go, and from where: the smallest scores of each layer, or of all layers together."""

import torch
from torch.nn.utils import prune


def smallest(score: torch.Tensor, sparsity: float) -> torch.Tensor:
    """What to keep of `score`: bool, of its shape; False for the int(n * sparsity) smallest.

    All that are not above the last of them go too, so more go where scores are tied.
    """
    score = score.contiguous()  # weights are channels last; torch's pruning wants rows
    goes = int(score.numel() * sparsity)
    if goes == 0:
        return torch.ones_like(score, dtype=torch.bool)
    keep = prune.L1Unstructured(amount=goes).compute_mask(score, torch.ones_like(score)).bool()
    return score > score[~keep].max()


def in_each_layer(scores: dict[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """The smallest of each layer by itself."""
    return {name: smallest(score, sparsity) for name, score in scores.items()}


def over_all_layers(scores: dict[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """The smallest over all layers together; a layer may lose everything."""
    keep = smallest(torch.cat([score.flatten() for score in scores.values()]), sparsity)
    parts = keep.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts)}
