"""Records made up for an audit, of which a coin each tells whether they are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("mislabelled", "random")


@dataclass(frozen=True, eq=False)
class Canaries:
    """Records in the form of the data, with labels.

    Attributes:
        x, y: (m, *shape) and (m,) int64.
        coin: (m,) bool, those that are trained on.
    """

    x: np.ndarray
    y: np.ndarray
    coin: np.ndarray


def make_canaries(
    x: np.ndarray, y: np.ndarray, *, kind: str, count: int, num_cls: int, draw: np.random.Generator
) -> Canaries:
    """So many canaries; the coins are fair, of one another and of all else independent.

    Nothing of a record that is to be protected may be in them, as they enter without noise: x and y
    are of others.

    Args:
        x, y: records (N, *shape) and labels (N,) that nobody trains the audited model on.
        kind: `mislabelled`, copies of `count` of these under another label than theirs; or
            `random`, with labels drawn from all classes and inputs of which x tells the form alone:
            bytes of images uniform, of tables, which are 0 or 1, by a fair coin, other numbers
            standard normal.
    Raises ValueError where there are fewer records than mislabelled copies.
    """
    if kind == "mislabelled":
        if count > len(x):
            raise ValueError(f"{count} of {len(x)} records cannot be copied")
        rows = draw.permutation(len(x))[:count]
        inputs, labels = x[rows], (y[rows] + draw.integers(1, num_cls, size=count)) % num_cls
    else:
        shape, labels = (count, *x.shape[1:]), draw.integers(num_cls, size=count)
        if x.dtype == np.uint8:
            inputs = draw.integers(256 if x.ndim > 2 else 2, size=shape, dtype=np.uint8)
        else:
            inputs = draw.standard_normal(shape).astype(x.dtype)
    return Canaries(inputs, labels.astype(np.int64), draw.random(count) < 0.5)
