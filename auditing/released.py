"""The released model, from its file: weights of the user's network, or an exported program.

Weights are read without pickle (safetensors) or by torch's restricted one (`weights_only`), which
runs no code. An exported program is code, if not Python: ONNX Runtime runs the operators of its own
library; TorchScript and `torch.export` run torch's, and torch's documentation says of both that
their loaders may be made to run more by who wrote the file. They are for files that one trusts, as
one's own release is. What torch.export would unpickle beyond weights, and compiled libraries in the
file, are refused here.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from auditing.queries import Answering, as_input, of_network
from core.archives import in_one_line
from core.console import UserError, say

_INSTALL = "pip install -r requirements-audit.txt"
_NESTED = ("state_dict", "model_state_dict", "model", "network", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, Lightning


def exported(path: Path, device: torch.device) -> Answering | None:
    """The program in a file of ONNX, TorchScript or torch.export; None where it holds weights."""
    kind = _kind(path)
    if kind is None:
        return None
    try:
        return kind(path, device)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot load {path}: {in_one_line(error)[:300]}") from error


def _kind(path: Path) -> Callable[[Path, torch.device], Answering] | None:
    if path.suffix == ".onnx":
        return _onnx
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name for name in names):
        return _script
    if path.suffix == ".pt2" or any(Path(name).name == "archive_format" for name in names):
        return _export
    return None


def _script(path: Path, device: torch.device) -> Answering:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that torch.jit is no longer the way
        program = torch.jit.load(str(path), map_location=device).eval()

    @torch.no_grad()
    def ask(x):
        return program(as_input(x).to(device))

    return Answering(path.name, ask)


def _export(path: Path, device: torch.device) -> Answering:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    for name in names:
        what = Path(name).name
        if "aotinductor/" in name or what.startswith(("custom_obj_", "opaque_obj_")):
            raise UserError(
                f"{path} holds {what}, compiled code or a pickled object, which is not run: save "
                f"the program of torch.export.export alone, or give the weights"
            )
    with _weights_alone():
        program = torch.export.load(path)
    module = program.module().to(device)
    batch = _only_batch(program)

    @torch.no_grad()
    def ask(x):
        return module(as_input(x).to(device))

    return Answering(path.name, ask, batch)


@contextmanager
def _weights_alone():
    """torch unpickles weights and nothing else, also where its own code asks for more."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _only_batch(program) -> int | None:
    """The number of records that an exported program was traced for, where it takes no other."""
    inputs = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            size = node.meta["val"].shape[0]
            return size if isinstance(size, int) else None
    return None


def _onnx(path: Path, device: torch.device) -> Answering:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path.name} needs ONNX Runtime: {_INSTALL}") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    if len(session.get_inputs()) != 1:
        raise UserError(f"{path} takes {len(session.get_inputs())} inputs: one, x, is needed")
    (entry,) = session.get_inputs()
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64}.get(entry.type)
    outputs = [
        output.name
        for output in session.get_outputs()
        if output.type in ("tensor(float)", "tensor(double)", "tensor(float16)")
    ]
    if len(outputs) != 1:
        raise UserError(
            f"{path} has outputs {', '.join(f'{one.name} {one.type}' for one in session.get_outputs())}"
            f": one of them must be a tensor of numbers (N, C) (of scikit-learn: zipmap=False)"
        )

    def ask(x):
        array = as_input(x).cpu().numpy()
        given = array if dtype is None else array.astype(dtype)
        (answer,) = session.run(outputs, {entry.name: given})
        return answer

    size = entry.shape[0] if entry.shape else None
    return Answering(path.name, ask, size if isinstance(size, int) else None)


# ---- weights


def read_weights(path: Path) -> dict[str, Any]:
    """The state dict in a file: of safetensors, or of torch.save, also within a training's
    checkpoint. Raises UserError where there is none."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} holds more than weights, or is damaged, and no pickle is run: save them by "
            f"torch.save(network.state_dict(), {path.name!r})"
        ) from error
    for name in _NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            say(f"{path.name}: its weights are under {name!r}")
            state = state[name]
            break
    if not isinstance(state, dict) or not any(isinstance(w, torch.Tensor) for w in state.values()):
        raise UserError(
            f"{path} holds a {type(state).__name__} that is no state dict: save the weights by "
            f"torch.save(network.state_dict(), {path.name!r})"
        )
    return state


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path.name} needs safetensors: {_INSTALL}") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"cannot read {path}: {in_one_line(error)}") from error


def misfit(network: nn.Module, state: dict[str, Any]) -> str | None:
    """How weights do not fit a network, in a line; None where they do."""
    have = network.state_dict()
    missing = [name for name in have if name not in state]
    more = [name for name in state if name not in have]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(weight.shape)}"
        for name, weight in have.items()
        if isinstance(weight, torch.Tensor)
        and isinstance(state.get(name), torch.Tensor)
        and state[name].shape != weight.shape
    ]
    texts = [("they lack ", missing), ("they also have ", more), ("", shapes)]
    return "; ".join(before + _some(names) for before, names in texts if names) or None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def fit(networks: list[tuple[str, Callable[[], nn.Module]]], path: Path) -> nn.Module:
    """The first of these networks that a file's weights fit, with them in it.

    Args:
        networks: how each is called, such as "build()", and what makes it.
    Raises:
        UserError: they fit none.
    """
    weights, reasons = read_weights(path), dict[str, str]()
    for name, make in networks:
        network = make()
        for state in _without_prefixes(weights):
            reason = misfit(network, state)
            if reason is None:
                try:
                    network.load_state_dict(state)
                    return network
                except RuntimeError as error:  # of layers that pack their weights
                    reason = in_one_line(error)[:300]
            reasons.setdefault(name, reason)  # of the weights as they are
    raise UserError(
        f"the weights in {path.name} do not fit "
        + ", nor ".join(f"{name}: {reason}" for name, reason in reasons.items())
    )


def _without_prefixes(weights: dict[str, Any]) -> list[dict[str, Any]]:
    """The weights, and without a prefix where all names have it that wrappers put before them."""
    found = [weights]
    for prefix in _PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            found.append({name.removeprefix(prefix): value for name, value in weights.items()})
    return found


def released_model(
    path: Path, networks: list[tuple[str, Callable[[], nn.Module]]], device: torch.device
) -> Answering:
    """The released model as its file has it: a program, or weights of one of these networks."""
    program = exported(path, device)
    if program is not None:
        return program
    return of_network(path.name, fit(networks, path).to(device))
