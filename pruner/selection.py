"""How many go, and from where, smallest scores first. What an earlier round pruned has the score
-inf, and so goes again and counts."""

from collections.abc import Callable, Mapping

import torch

Scores = dict[str, torch.Tensor]


def smallest(score: torch.Tensor, sparsity: float) -> torch.Tensor:
    """What to keep of `score`: bool, of its shape; False for the int(n * sparsity) smallest.

    All that are not above the last of them go too, so more go where scores are tied.
    """
    score = score.contiguous()  # weights are channels last; masks are stored in rows
    goes = int(score.numel() * sparsity)
    if goes == 0:
        return torch.ones_like(score, dtype=torch.bool)
    return score > score.flatten().kthvalue(goes).values


def smallest_exactly(score: torch.Tensor, sparsity: float) -> torch.Tensor:
    """As `smallest`, but exactly int(n * sparsity) go: of tied ones the first."""
    flat, goes = score.flatten(), int(score.numel() * sparsity)
    if goes == 0:
        return torch.ones(score.shape, dtype=torch.bool)
    last = flat.kthvalue(goes).values  # several times faster than a stable sort
    keep = flat >= last
    tied = (flat == last).nonzero().flatten()
    keep[tied[: goes - int((~keep).sum())]] = False
    return keep.view(score.shape)


def in_each_layer(scores: Scores, sparsity: float) -> Scores:
    """The smallest of each layer by itself, and what is tied with them."""
    return {name: smallest(score, sparsity) for name, score in scores.items()}


def over_all_layers(scores: Scores, sparsity: float) -> Scores:
    """The smallest over all layers together, and what is tied with them; a layer may lose
    everything."""
    return _split(scores, smallest(_joined(scores), sparsity))


def exactly_in_each_layer(scores: Scores, sparsity: float) -> Scores:
    """The int(n * sparsity) smallest of each layer by itself."""
    return {name: smallest_exactly(score, sparsity) for name, score in scores.items()}


def exactly_over_all_layers(scores: Scores, sparsity: float) -> Scores:
    """The int(n * sparsity) smallest over all layers together; a layer may lose everything."""
    return _split(scores, smallest_exactly(_joined(scores), sparsity))


def in_each_row(scores: Scores, sparsity: float) -> Scores:
    """The int(n * sparsity) smallest of the n weights of each output, (out, ...)."""
    return {
        name: _all_but_first(rows := score.flatten(1), int(rows.shape[1] * sparsity)).view(
            score.shape
        )
        for name, score in scores.items()
    }


def two_of_four(scores: Scores, sparsity: float) -> Scores:
    """The int(4 * sparsity) smallest of each 4 consecutive inputs of an output, 2 at sparsity 0.5
    (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021).

    Of a convolution (out, in, kh, kw) these are 4 consecutive input channels at one place of the
    kernel, as NVIDIA's ASP groups them. ASP leaves layers alone whose sizes its kernels can't take
    (outputs by 8, inputs by 16); here the inputs beyond the last whole 4 are kept, all of them
    where there are fewer than 4. Later versions of ASP reorder input channels before, so that less
    is lost; here they stay in their order.
    """
    goes = int(4 * sparsity)
    keeps = {}
    for name, score in scores.items():
        inputs_last = score.movedim(1, -1)
        whole = inputs_last.shape[-1] // 4 * 4
        keep = torch.ones(inputs_last.shape, dtype=torch.bool)
        if whole:
            groups = inputs_last[..., :whole].unflatten(-1, (-1, 4))
            keep[..., :whole] = _all_but_first(groups, goes).flatten(-2)
        keeps[name] = keep.movedim(-1, 1).contiguous()
    return keeps


SELECTIONS: Mapping[str, Callable[[Scores, float], Scores]] = {
    select.__name__: select
    for select in (
        in_each_layer,
        over_all_layers,
        exactly_in_each_layer,
        exactly_over_all_layers,
        in_each_row,
        two_of_four,
    )
}


def _all_but_first(score: torch.Tensor, goes: int) -> torch.Tensor:
    """Bool, of its shape: False for the `goes` smallest along the last dimension."""
    order = score.argsort(dim=-1, stable=True)
    keep = torch.ones(score.shape, dtype=torch.bool)
    return keep.scatter(-1, order[..., :goes], False)


def _joined(scores: Scores) -> torch.Tensor:
    return torch.cat([score.flatten() for score in scores.values()])


def _split(scores: Scores, keep: torch.Tensor) -> Scores:
    parts = keep.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts)}
