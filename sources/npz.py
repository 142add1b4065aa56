"""A data set in a user's own .npz file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from core.archives import user_error_if_unreadable
from core.console import UserError


def read_npz(path: Path, *, input_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrays x and y: images come out as (N, C, H, W) uint8, tables (N, D) as uint8 or float32.

    x holds images, (N, H, W, C) or (N, C, H, W) uint8, or a table of numbers, (N, D); y holds (N,)
    integers. The axis of an image that is input_dim long is its channels, the last axis if both
    are; where input_dim is C*H*W it is the shorter of the two. A table of nothing but 0 and 1 is
    kept as uint8.

    Raises:
        UserError: there is no such file, or anything in it is otherwise.
    """
    x, y = _plain_arrays(path)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise UserError(f"{path}: y must be N integers, but is {y.dtype} of shape {y.shape}")
    if x.ndim == 4:
        if x.dtype != np.uint8:
            raise UserError(f"{path}: images must be uint8 (0..255), but x is {x.dtype}")
        first, last = x.shape[1], x.shape[3]
        if last == input_dim or (first != input_dim and last <= first):
            x = x.transpose(0, 3, 1, 2)
        return x, y
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise UserError(
            f"{path}: x must be images (N, H, W, C) or (N, C, H, W), or a table of numbers "
            f"(N, D), but is {x.dtype} of shape {x.shape}"
        )
    if ((x == 0) | (x == 1)).all():
        return x.astype(np.uint8), y
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is reported next
        x = x.astype(np.float32)
    rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(rows):
        raise UserError(
            f"{path}: row {rows[0]} of x holds NaN, infinity or a number too large for float32"
        )
    return x, y


def _plain_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Arrays x and y of the file, whatever they hold; nothing is unpickled."""
    if not os.path.isfile(path):  # unlike Path.is_file, False also for a name that is too long
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        why = " (it is a folder)" if os.path.isdir(path) else where
        raise UserError(
            f"data_path: there is no file {path}{why}; an .npz file with arrays x and y is needed"
        )
    remedy = "data_path must be an .npz file of plain arrays x and y, as numpy.savez writes it"
    with user_error_if_unreadable(path, remedy):
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it is a single array")
        with arrays:
            missing = [key for key in "xy" if key not in arrays]
            if missing:
                raise ValueError(f"it has no array {missing[0]!r}, only {sorted(arrays)}")
            return np.asarray(arrays["x"]), np.asarray(arrays["y"])
