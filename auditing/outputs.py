"""Answers of models as a user has them: posteriors or logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attackers import Signals, arrays
from core.console import UserError


@dataclass(frozen=True, eq=False)
class Outputs:
    """Answers (N, C) of a model, or (S, N, C) of several.

    Attributes:
        logits: whether the values are logits, not posteriors.
    """

    values: np.ndarray
    logits: bool

    def signals(self) -> Signals:
        return Signals(self.values) if self.logits else Signals.from_posteriors(self.values)

    def each_signals(self) -> list[Signals]:
        return [Outputs(one, self.logits).signals() for one in self.values]


def outputs(
    found: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...], words: str
) -> Outputs | None:
    """What stands under this name, or under it with `_logits`; None where nothing does.

    Raises:
        UserError, ValueError: both are there, a shape or a value is wrong, or logits are called
            posteriors or the other way round.
    """
    as_logits = f"{name}_logits"
    if name in found and as_logits in found:
        raise UserError(f"{name} and {as_logits} are both given: give one of them")
    if as_logits in found:
        return Outputs(_logits(as_logits, found[as_logits], shape, words), True)
    if name not in found:
        return None
    array = arrays.shaped(name, found[name], shape, f"posteriors {words}")
    low, high = array.min(), array.max()
    if low < -arrays.COARSE_SLACK or high > 1 + arrays.COARSE_SLACK:
        raise UserError(
            f"{name} has values from {low:.4g} to {high:.4g}, and posteriors are from 0 to 1: logits "
            f"are to be called {as_logits}"
        )
    return Outputs(arrays.posteriors(name, array, shape, f"posteriors {words}"), False)


def _logits(name: str, value, shape: tuple[int | None, ...], words: str) -> np.ndarray:
    array = arrays.shaped(name, value, shape, f"logits {words}")
    if array.shape[-1] < 2:
        raise UserError(
            f"{name} must have a column for each of at least 2 classes: of the logit z of one of two "
            f"classes, make 0 and z"
        )
    if not np.isfinite(array).all():
        index = np.unravel_index((~np.isfinite(array)).argmax(), array.shape)
        raise UserError(
            f"{name}[{', '.join(map(str, index))}] is {array[index]}: logits are finite"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        array = array.astype(np.float32)
    if array.min() >= 0 and np.abs(array.sum(axis=-1) - 1).max() < arrays.SUM_SLACK:
        raise UserError(
            f"{name} are from 0 to 1 and sum to 1: posteriors are to be called "
            f"{name.removesuffix('_logits')}"
        )
    return array
