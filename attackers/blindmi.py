"""BlindMI-Diff with generated non-members (Hui et al., "Practical Blind Membership Inference Attack", NDSS 2021)."""
from dataclasses import replace

import numpy as np

from attackers.signals import Evidence, Signals, Verdict
from core.console import UserError
from datasets import Records

COUNT = 20  # generated non-members, and targets in a batch
FLIPPED = 0.1  # share of a binary table's entries


def generate(records: Records, numbers: np.ndarray, *, seed: int) -> Records:
    """Non-members made of 20 of the records of these numbers, with their labels.

    Images become the magnitude of their Sobel gradient, of binary tables a tenth of the entries is flipped, to other
    tables normal noise of each column's standard deviation is added.
    """
    import torch

    draw = np.random.default_rng(seed)
    chosen = draw.choice(numbers, size=min(COUNT, len(numbers)), replace=False)
    x = records.x[torch.from_numpy(chosen)].contiguous().numpy()
    if x.ndim == 4:
        made = sobel(x)
    elif records.x.dtype == torch.uint8:
        made = x ^ (draw.random(x.shape) < FLIPPED).astype(np.uint8)
    else:
        made = x + (draw.normal(size=x.shape) * records.x.numpy().std(axis=0)).astype(np.float32)
    return replace(records, x=torch.from_numpy(made), y=records.y[torch.from_numpy(chosen)])


def sobel(images: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient of images (n, C, H, W) uint8, channel by channel, cut off at 255."""
    from scipy import ndimage

    # not ndimage.sobel, which would smooth over channels and images too
    down, across = (ndimage.correlate1d(ndimage.correlate1d(images.astype(np.float32), [-1, 0, 1], axis=along),
                                        [1, 2, 1], axis=other) for along, other in ((2, 3), (3, 2)))
    return np.hypot(down, across).clip(0, 255).astype(np.uint8)


def features(signals: Signals, labels: np.ndarray) -> np.ndarray:
    """(n, 3): the true class's posterior and the two largest."""
    p, _ = signals.posteriors()
    largest = np.sort(p, axis=1)[:, :-3:-1]
    return np.column_stack([p[np.arange(len(p)), labels], largest])


def members_among(batch: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Who of a batch (b, 3) is a member, (b,) bool, given features (m, 3) of non-members.

    All are presumed to be; one after the other moves to the non-members if that raises the distance (MMD, Gaussian
    kernel) between the two sets, until none does. The last stays, as an empty set has no distance.
    """
    points = np.concatenate([batch, outside])
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    width = squares.sum() / (len(points) * (len(points) - 1))  # mean squared distance of two points
    kernel = np.exp(-squares / max(width, 1e-12))
    inside = np.arange(len(points)) < len(batch)
    moved = True
    while moved:
        moved = False
        for number in range(len(batch)):
            if inside[number] and inside.sum() > 1:
                without = inside.copy()
                without[number] = False
                if squared_mmd(kernel, without) > squared_mmd(kernel, inside):
                    inside, moved = without, True
    return inside[: len(batch)]


def squared_mmd(kernel: np.ndarray, inside: np.ndarray) -> float:
    """Squared maximum mean discrepancy between the points inside and all others, from their kernel matrix."""
    weight = np.where(inside, 1 / inside.sum(), -1 / (~inside).sum())
    return float(weight @ kernel @ weight)


def blindmi(evidence: Evidence, **_) -> dict[str, Verdict]:
    """Needs no shadow models. The score is 1 for a member, 0 for a non-member."""
    if evidence.generated is None:
        raise UserError("blindmi needs the victim's answers for generated non-members (Evidence.generated)")
    targets = features(evidence.victim, evidence.labels)[evidence.target]
    outside = features(*evidence.generated)
    found = [members_among(targets[first: first + COUNT], outside) for first in range(0, len(targets), COUNT)]
    return {"blindmi": Verdict(np.concatenate(found).astype(np.float64), 0.5)}
