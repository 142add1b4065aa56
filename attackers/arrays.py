"""Checks of arrays that come from elsewhere.

Every function takes an argument's name and its value, and returns a numpy array of it. What can be
converted without loss is; values that rounding explains are tolerated; all else is a ValueError in
one line that names the argument and the first bad value, and says what would be right.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

RANGE_SLACK = 1e-6  # by which rounding takes posteriors in float32 out of 0..1
SUM_SLACK = 1e-3  # by which it takes the sum of a row in half precision from 1
COARSE_SLACK = 1e-2  # either, in bfloat16; beyond the two above a warning says so
MOST_SLACK = 0.25  # of a row's sum, however many classes and few decimals


def plain(name: str, value) -> np.ndarray:
    """A numpy array of numbers or booleans, of arrays, nested sequences, or tensors of any device
    and precision.

    Raises:
        ValueError: naming the first value that is no number.
    """
    try:
        array = _as_array(value)
        if array.dtype.kind == "O" and array.size:
            array = np.array(array.tolist())  # of plain numbers after all
        elif array.dtype.kind == "V":  # bfloat16 of other libraries
            array = array.astype(np.float32)
    except Exception as error:  # whatever another library says of its own arrays
        raise ValueError(
            f"{name} cannot be read as an array of numbers: {_short(str(error))}"
        ) from error
    if array.dtype.kind not in "biuf":
        wrong = [one for one in array.ravel().tolist() if not isinstance(one, (bool, int, float))]
        raise ValueError(
            f"{name} must be numbers, not {_short(repr(wrong[0]))}"
            if wrong
            else f"{name} must be an array of numbers, not of {array.dtype}"
        )
    return array


def shaped(name: str, value, shape: tuple[int | None, ...], words: str) -> np.ndarray:
    """A `plain` array of this shape, in which None is any length but 0; `words` are the shape's for
    the message."""
    array = plain(name, value)
    fits = array.ndim == len(shape) and all(
        have > 0 if want is None else have == want for have, want in zip(array.shape, shape)
    )
    if not fits:
        known = "" if None in shape else f" = {shape}"
        raise ValueError(f"{name} must be {words}{known}, not of shape {array.shape}")
    return array


def posteriors(name: str, value, shape: tuple[int | None, ...], words: str) -> np.ndarray:
    """Posteriors (..., C) of this shape, as they are but for values that rounding has taken out of
    0..1.

    Rows need not sum to 1 exactly. A UserWarning says that they look rounded: to a bfloat16's
    digits, or to so few decimals that this explains by how much a row's sum differs from 1.

    Raises:
        ValueError: values that are no probabilities, rows that are no distribution.
    """
    array = shaped(name, value, shape, words)
    if array.shape[-1] < 2:
        raise ValueError(
            f"{name} must have a column for each of at least 2 classes: of the probability p of one of "
            f"two classes, make 1 - p and p"
        )
    if array.ndim == 2:
        checked = [_distributions(name, array)]
    else:
        checked = [_distributions(f"{name}[{index}]", one) for index, one in enumerate(array)]
    sums = [of_rows for _, of_rows in checked if of_rows is not None]
    if sums:
        low, high = min(map(np.min, sums)), max(map(np.max, sums))
        warnings.warn(
            f"{name}: posteriors look rounded, rows sum to {low:.4g} to {high:.4g}: hand in all digits that "
            f"there are",
            stacklevel=3,
        )
    return checked[0][0] if array.ndim == 2 else np.stack([one for one, _ in checked])


def classes(name: str, value, n: int, num_cls: int) -> np.ndarray:
    """Class numbers (n,) from 0 to num_cls - 1 as int64, of integers or other numbers that are
    whole."""
    array = shaped(name, value, (n,), "class numbers of shape (N,)")
    _refuse(name, array, ~np.isfinite(array), "class numbers are whole")
    _refuse(name, array, array != np.floor(array), "class numbers are whole")
    _refuse(
        name, array, (array < 0) | (array >= num_cls), f"class numbers are from 0 to {num_cls - 1}"
    )
    return array.astype(np.int64)


def flags(name: str, value, shape: tuple[int, ...], words: str) -> np.ndarray:
    """Booleans of this shape, of booleans or numbers that are 0 or 1."""
    array = shaped(name, value, shape, f"True or False of shape {words}")
    _refuse(name, array, (array != 0) & (array != 1), "it must be True or False, or 1 or 0")
    return array.astype(bool)


def sensitivities(
    name: str, value, shape: tuple[int, ...], words: str, where: np.ndarray
) -> np.ndarray:
    """Sensitivities (..., C) as float32, finite and not negative in the rows that are needed,
    `where` (...,) bool."""
    array = _float32(shaped(name, value, shape, words))
    _refuse(
        name,
        array,
        where[..., None] & ~(np.isfinite(array) & (array >= 0)),
        "sensitivities are finite and not negative",
    )
    return array


def inputs(name: str, value, n: int) -> np.ndarray:
    """The records themselves: a table (n, D), float32, or images (n, C, H, W), uint8."""
    array = plain(name, value)
    if array.ndim not in (2, 4) or len(array) != n or not array.size:
        raise ValueError(
            f"{name} must be a table (N, D) or images (N, C, H, W) of the N = {n} records, "
            f"not of shape {array.shape}"
        )
    if array.ndim == 2:
        table = _float32(array)
        _refuse(name, table, ~np.isfinite(table), "a table is of finite numbers")
        return table
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be images of bytes (uint8, 0 to 255), not {array.dtype}: of pixels from 0 to 1 "
            f'make (255 * x).round().astype("uint8")'
        )
    _refuse(name, array, (array < 0) | (array > 255), "pixels are bytes, 0 to 255")
    return array.astype(np.uint8)


def pair(name: str, value, words: str) -> tuple:
    """Two values."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        count = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
        raise ValueError(f"{name} must be a pair, {words}, not a {type(value).__name__}{count}")
    return tuple(value)


def membership(
    member, target, calibration_mask, *, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked `member` (S, N), `target` (N,) and `calibration_mask` (S, N) of S shadows and N
    records, with the defaults of
    `Evidence.from_posteriors`."""
    member = flags("member", member, shape, "(S, N)")
    if not member.any():
        raise ValueError(
            "member: no shadow model was trained on any of these records, so nothing can be learnt"
        )
    n = shape[1]
    target = np.ones(n, bool) if target is None else flags("target", target, (n,), "(N,)")
    if not target.any():
        raise ValueError("target: none of the records is one")
    if calibration_mask is None:
        online = member[:, target].any()
        return member, target, np.broadcast_to(target if online else ~target, shape)
    calibration_mask = flags("calibration_mask", calibration_mask, shape, "(S, N)")
    if not calibration_mask.any():
        raise ValueError(
            "calibration_mask: no shadow model has any of these records, so nothing can be learnt"
        )
    return member, target, calibration_mask


def sensitivity_pair(
    value, shape: tuple[int, int, int], target: np.ndarray, calibration_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The victim's sensitivities (N, C), which targets need, and the shadows' (S, N, C), which the
    records of each one's `calibration_mask` (S, N) need; `shape` is (S, N, C)."""
    of_victim, of_shadows = pair(
        "sensitivity", value, "the victim's (N, C) and the shadows' (S, N, C)"
    )
    return (
        sensitivities("sensitivity[0]", of_victim, shape[1:], "the victim's (N, C)", target),
        sensitivities(
            "sensitivity[1]", of_shadows, shape, "the shadows' (S, N, C)", calibration_mask
        ),
    )


def several_pair(
    name: str, value, shape: tuple[int, int, int], *, axis: str, words: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Several posteriors for each record: of the victim (V, N, C), and of each shadow; `shape` is
    (S, N, C), `axis` the letter of V in errors."""
    of_victim, of_shadows = pair(
        name, value, f"the victim's ({axis}, N, C) and the shadows' (S, {axis}, N, C)"
    )
    words = f"posteriors ({axis}, N, C) {words}"
    victim = posteriors(f"{name}[0]", of_victim, (None, *shape[1:]), words)
    try:
        count = len(of_shadows)
    except TypeError:
        count = -1
    if count != shape[0]:
        raise ValueError(f"{name}[1] must be of the {shape[0]} shadows, (S, {axis}, N, C)")
    return victim, [
        posteriors(f"{name}[1][{s}]", one, victim.shape, words) for s, one in enumerate(of_shadows)
    ]


def generated_pair(value, num_cls: int) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors (m, C) on generated records, and their labels (m,)."""
    outputs, labels = pair("generated", value, "posteriors (m, C) and labels (m,)")
    outputs = posteriors(
        "generated[0]", outputs, (None, num_cls), f"posteriors (m, C) of C = {num_cls} classes"
    )
    return outputs, classes("generated[1]", labels, len(outputs), num_cls)


def releases(
    value, shape: tuple[int, int, int], words: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The posteriors of victim (N, C) and shadows (S, N, C) in other releases, by name, of a
    dictionary of such pairs; `shape` is (S, N, C)."""
    if not isinstance(value, Mapping):
        raise ValueError(
            f"also must be a dictionary of releases by name, not a {type(value).__name__}"
        )
    checked = {}
    for name, both in value.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"also: {_short(repr(name))} is no name of a release")
        argument = f"also[{name!r}]"
        victim, shadows = pair(argument, both, "the victim's (N, C) and the shadows' (S, N, C)")
        checked[name] = (
            posteriors(f"{argument}[0]", victim, shape[1:], f"posteriors (N, C) of {words}"),
            posteriors(f"{argument}[1]", shadows, shape, f"posteriors (S, N, C) of {words}"),
        )
    return checked


def _as_array(value) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu()
        value = value.to_dense() if value.is_sparse else value
        small = value.is_floating_point() and value.element_size() < 4  # numpy has no bfloat16
        return (value.float() if small else value).numpy()
    if isinstance(value, (list, tuple)) and any(hasattr(one, "detach") for one in value):
        return np.array([_as_array(one) for one in value])
    return np.asarray(value)


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # to inf, which is refused by its name
        return array.astype(np.float32)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


def _refuse(name: str, array: np.ndarray, bad: np.ndarray, right: str) -> None:
    """Raise a ValueError that names the first value that is bad, if one is."""
    if bad.any():
        index = np.unravel_index(bad.argmax(), bad.shape)
        raise ValueError(f"{name}[{', '.join(map(str, index))}] is {array[index]}: {right}")


def _distributions(name: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """One model's posteriors (N, C), and the sums of their rows where they look rounded, else
    None."""
    low, high = array.min(), array.max()
    if not (low >= -COARSE_SLACK and high <= 1 + COARSE_SLACK):  # nor is NaN
        _refuse(
            name,
            array,
            ~((array >= -COARSE_SLACK) & (array <= 1 + COARSE_SLACK)),
            "posteriors are from 0 to 1; of logits, take the softmax",
        )
    sums = array.sum(axis=1, dtype=np.float64)
    off = np.abs(sums - 1)
    if off.max() > COARSE_SLACK:
        bad = off > max(COARSE_SLACK, _slack_of_decimals(array))
        if bad.any():
            row = bad.argmax()
            raise ValueError(
                f"{name}[{row}] sums to {sums[row]:.4g}: posteriors are a softmax over all classes, of "
                f"which each row sums to 1"
            )
    rounded = low < -RANGE_SLACK or high > 1 + RANGE_SLACK or off.max() > SUM_SLACK
    return array.clip(0, 1) if low < 0 or high > 1 else array, sums if rounded else None


def _slack_of_decimals(array: np.ndarray) -> float:
    """By how much a row's sum may differ from 1 where all values are rounded to as few decimals as
    these; else 0."""
    for decimals in range(1, 5):
        if np.abs(array - np.round(array, decimals)).max() <= 1e-6:
            return min(array.shape[1] * 0.5 * 10.0**-decimals, MOST_SLACK)
    return 0.0
