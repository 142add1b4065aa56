"""BlindMI-Diff with generated non-members, BlindMI-Diff-w (Hui et al., "Practical Blind Membership
Inference Attack via Differential Comparisons", NDSS 2021), by its authors' code
(github.com/hyhmia/BlindMI, BlindMI_Diff_W.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attackers.evidence import Evidence, Verdict
from attackers.signals import Signals
from core.console import UserError

if TYPE_CHECKING:
    from datasets import Records

COUNT = 20  # generated non-members, and targets in a batch
FLIPPED = 0.1  # share of a binary table's entries
# sigma of exp(-squared distance / (2 sigma)); the kernel is the sum over all
SIGMAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6)
LEAST_MMD = 1e-4  # smaller squared distances count as this one
BATCHES = 512  # whose kernel matrices are in memory at a time: 6.5 MB each


def generate(records: Records, record_ids: np.ndarray, *, seed: int) -> Records:
    """Non-members made of 20 of the records of these numbers, drawn with replacement, with their
    labels.

    Images become their Sobel gradient, see `sobel`. Tables have no counterpart in the authors'
    code: of binary ones a tenth of the entries is flipped, to others normal noise of each column's
    standard deviation is added.
    """
    import torch

    draw = np.random.default_rng(seed)
    chosen = draw.choice(record_ids, size=COUNT)
    x = records.x[torch.from_numpy(chosen)].contiguous().numpy()
    if x.ndim == 4:
        made = sobel(x)
    elif records.x.dtype == torch.uint8:
        made = x ^ (draw.random(x.shape) < FLIPPED).astype(np.uint8)
    else:
        made = x + (draw.normal(size=x.shape) * records.x.numpy().std(axis=0)).astype(np.float32)
    return replace(records, x=torch.from_numpy(made), y=records.y[torch.from_numpy(chosen)])


def sobel(images: np.ndarray) -> np.ndarray:
    """Sobel gradients (n, C, H, W) uint8 of images (n, C, H, W) uint8, channel by channel.

    |gx| / 2 + |gy| / 2, each cut off at 255 before and halves rounded to even, borders mirrored at
    their last pixel: OpenCV's Sobel, convertScaleAbs and addWeighted, with their defaults.
    """
    from scipy import ndimage

    def along(axis: int, other: int) -> np.ndarray:
        # not ndimage.sobel, which would smooth over channels and images too
        smooth = ndimage.correlate1d(
            images.astype(np.float32), [1, 2, 1], axis=other, mode="mirror"
        )
        gradient = ndimage.correlate1d(smooth, [-1, 0, 1], axis=axis, mode="mirror")
        return np.abs(gradient).clip(max=255)

    return np.rint(along(2, 3) / 2 + along(3, 2) / 2).astype(np.uint8)


def features(signals: Signals, labels: np.ndarray) -> np.ndarray:
    """(n, 3): the true class's posterior and the two largest."""
    p, _ = signals.posteriors()
    largest = np.sort(p, axis=1)[:, :-3:-1]
    return np.column_stack([p[np.arange(len(p)), labels], largest])


def summed(squares: np.ndarray) -> np.ndarray:
    """The authors' kernel: the sum of the Gaussian ones of all sigmas, of squared distances (B, n,
    n)."""
    total = np.zeros_like(squares)
    for sigma in SIGMAS:
        total += np.exp(squares / (-2 * sigma))
    return total


def scaled(squares: np.ndarray) -> np.ndarray:
    """One Gaussian kernel, of squared distances (B, n, n): exp(-squared distance / its mean over
    two points)."""
    n = squares.shape[1]
    width = squares.sum(axis=(1, 2), keepdims=True) / (n * (n - 1))
    return np.exp(-squares / np.maximum(width, 1e-12))


def members_among(
    batches: np.ndarray, outside: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray] = summed
) -> np.ndarray:
    """Who of each batch is a member, (B, b) bool, given features of batches (B, b, d) and of
    non-members (m, d).

    All are presumed to be. In each sweep those leave whose move to the non-members, each by itself,
    would raise the squared MMD (biased) between the two sets as they were before the sweep; the
    non-members stay the m they are. The sweeps end when nobody leaves. The last presumed member of
    a batch cannot leave by itself, as an empty set has no distance; in one sweep all may.
    """
    b, m = batches.shape[1], len(outside)
    outside_each = np.broadcast_to(outside, (len(batches), *outside.shape))
    points = np.concatenate([batches, outside_each], axis=1)
    matrix = kernel(((points[:, :, None] - points[:, None]) ** 2).sum(axis=3))
    among, itself = matrix[:, :b, :b], matrix[0, 0, 0]  # of a point with itself
    to_outside = matrix[:, :b, b:].sum(axis=2)
    of_outside = matrix[:, b:, b:].sum(axis=(1, 2))[:, None]
    inside = np.ones(batches.shape[:2], bool)
    moved = True
    while moved:
        count = inside.sum(axis=1, keepdims=True)
        # (B, b): of each point with all presumed members, summed
        to_inside = (among @ inside[..., None])[..., 0]
        within = (to_inside * inside).sum(axis=1, keepdims=True)
        across = (to_outside * inside).sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):  # empty sets, from which nobody leaves
            now = within / count**2 + of_outside / m**2 - 2 * across / (count * m)
            # each point by itself among the non-members
            then = (
                (within - 2 * to_inside + itself) / (count - 1) ** 2
                + (of_outside + 2 * to_outside + itself) / (m + 1) ** 2
                - 2 * (across - to_outside + to_inside - itself) / ((count - 1) * (m + 1))
            )
        leaves = inside & (count > 1) & (np.maximum(then, LEAST_MMD) > np.maximum(now, LEAST_MMD))
        inside &= ~leaves
        moved = leaves.any()
    return inside


def blindmi(evidence: Evidence, *, seed: int = 0, **_) -> dict[str, Verdict]:
    """The authors' attack. Needs no shadow models; the score is 1 for a member, 0 for a non-member.

    `seed` deals the targets to batches of 20; what is left over is a smaller one.
    """
    return {"blindmi": _differential(evidence, summed, seed)}


def blindmi_scaled(evidence: Evidence, *, seed: int = 0, **_) -> dict[str, Verdict]:
    """The same with one kernel as wide as the points of a batch are apart, in place of the authors'
    fixed ones.

    Their narrow kernels, in which scattered members are as far from each other as from any
    non-member, make members leave wherever a victim's outputs for its members are not all alike.
    """
    return {"blindmi_scaled": _differential(evidence, scaled, seed)}


def _differential(
    evidence: Evidence, kernel: Callable[[np.ndarray], np.ndarray], seed: int
) -> Verdict:
    if evidence.generated is None:
        raise UserError(
            "blindmi needs the victim's outputs for generated non-members (Evidence.generated)"
        )
    targets = features(evidence.victim, evidence.labels)[evidence.target]
    outside = features(*evidence.generated)
    # not the stream of `generate`
    order = np.random.default_rng((seed, *b"blindmi")).permutation(len(targets))
    whole = len(order) // COUNT * COUNT
    batches = np.split(order[:whole].reshape(-1, COUNT), range(BATCHES, whole // COUNT, BATCHES))
    member = np.zeros(len(targets), bool)
    for batch in (*batches, order[None, whole:]):
        if batch.size:
            member[batch] = members_among(targets[batch], outside, kernel)
    return Verdict(member.astype(np.float64), 0.5)
