"""What a model answers: in evaluation mode, in batches, one number a class, finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core.console import UserError

_BATCH_BYTES = 1 << 25  # of the records of one query; what it takes in the network is more
_MOST = 1024
_SUM, _SAME = 1e-3, 1e-3  # posteriors' sum to 1, and two answers to one record, within this
_ASKED_TWICE = 64


@dataclass(frozen=True)
class Answering:
    """A model that can be asked.

    Attributes:
        name: for errors and the report.
        ask: records (n, ...), tensors or arrays as the user has them -> what it returns.
        batch: the one number of records that an exported model takes; None: any.
    """

    name: str
    ask: Callable[[Any], Any]
    batch: int | None = None


def of_network(name: str, network: nn.Module) -> Answering:
    """A network, on the device it is on."""
    place = next(iter([*network.parameters(), *network.buffers()]), torch.empty(0)).device
    network.eval()

    @torch.no_grad()
    def ask(x):
        return network(as_input(x).to(place))

    return Answering(name, ask)


def as_input(x) -> torch.Tensor:
    """Records as a network takes them: numbers with a fraction as float32, others as they are."""
    tensor = torch.as_tensor(x)
    return tensor.float() if tensor.is_floating_point() else tensor


def answers(model: Answering, x) -> np.ndarray:
    """What the model answers to all records: (N, C) float32, or float64 where it does.

    Raises UserError where it is not one finite number for each class.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    size = model.batch or _batch_size(x)
    parts = [_of_batch(model, x[start : start + size]) for start in range(0, len(x), size)]
    outputs = np.concatenate(parts)
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(bad):
        raise UserError(
            f"{model.name} answers NaN or infinity to {len(bad)} of {len(x)} records, first to row "
            f"{bad[0]}: has its training diverged, or is x not as it takes it?"
        )
    return outputs


def _batch_size(x) -> int:
    each = max(1, int(np.prod(x.shape[1:])) * 4)
    return max(1, min(_MOST, _BATCH_BYTES // each))


def _of_batch(model: Answering, x) -> np.ndarray:
    n = len(x)
    if model.batch is not None and n < model.batch:  # the last one again, as often as needed
        x = x[np.minimum(np.arange(model.batch), n - 1)]
    try:
        outputs = model.ask(x)
    except Exception as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{model.name} cannot be asked about x as data() gives it, {_form(x)} "
            f"({type(error).__name__}: {why[:200]}): x must be what the network takes"
        ) from error
    if isinstance(outputs, torch.Tensor):
        outputs = outputs.detach().float() if outputs.dtype != torch.float64 else outputs.detach()
        outputs = outputs.cpu().numpy()
    if not isinstance(outputs, np.ndarray):
        raise UserError(
            f"{model.name} returns a {type(outputs).__name__}, not one tensor (N, C): return the "
            f"logits alone, in a module around it"
        )
    if outputs.ndim != 2 or len(outputs) != len(x) or outputs.shape[1] < 2:
        one = outputs.ndim == 1 or outputs.shape[1:] == (1,)
        remedy = (
            "for two classes with one output z return torch.stack([-z / 2, z / 2], dim=-1)"
            if one
            else "one number for each class is needed"
        )
        raise UserError(
            f"{model.name} returns {tuple(outputs.shape)} for {len(x)} records, not (N, C): {remedy}"
        )
    return outputs[:n]


def _form(x) -> str:
    return f"{type(x).__module__.partition('.')[0]} {x.dtype} {tuple(x.shape)}"


def are_posteriors(outputs: np.ndarray) -> bool:
    """Whether every row lies in 0..1 and sums to 1 within 1e-3: then they are no logits."""
    inside = outputs.min() >= 0 and outputs.max() <= 1
    return bool(inside and (np.abs(outputs.sum(axis=1) - 1) <= _SUM).all())


def as_posteriors(outputs: np.ndarray) -> np.ndarray:
    """Posteriors: these, or the softmax of logits in float32, as a network's last layer gives it."""
    if are_posteriors(outputs):
        return outputs
    return torch.softmax(torch.from_numpy(outputs), dim=1).numpy()


def changes_its_answers(model: Answering, x) -> bool:
    """Whether the same records get other answers the second time, in another order."""
    few = x[: min(_ASKED_TWICE, len(x))]
    order = np.arange(len(few))[::-1].copy()
    first, second = answers(model, few), answers(model, few[order])[order]
    return bool((np.abs(first - second) > _SAME * (1 + np.abs(first))).any())
