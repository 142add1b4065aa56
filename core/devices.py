"""Where a computation runs, in which precision, and what its randomness follows from."""

from __future__ import annotations

import hashlib

import torch

from core.console import UserError, say


def choose_device(name: str) -> torch.device:
    """The device for a stage's first argument: `cpu`, a GPU's number, `cuda` or `cuda:N`.

    The first GPU falls back to the CPU where there is none, and says so in a line. A GPU is not
    touched yet, so that processes can still be forked.

    Raises:
        UserError: any other GPU that does not exist.
    """
    if name == "cpu":
        return torch.device("cpu")
    number = int(name.removeprefix("cuda").removeprefix(":") or 0)
    # asks the driver's library; torch.cuda.is_available would start CUDA
    count = torch.cuda.device_count()
    if number < count:
        # A perturbation of 1e-3 is below the resolution of TF32, in which cuDNN convolves unless
        # told otherwise.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda", number)
    if number == 0:
        say("no GPU here: running on the CPU")
        return torch.device("cpu")
    raise UserError(
        f"GPU {number} does not exist: this machine has {count} (numbered from 0); "
        f"'cpu' works everywhere"
    )


def choose_precision(option: str | None, device: torch.device, *, convolves: bool) -> str:
    """`option`, or else bf16 for convolutions on a GPU that has it and fp32 for all others."""
    if option is not None or not convolves or device.type == "cpu":
        return option or "fp32"
    with torch.cuda.device(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator for one purpose, such as (7, "pretrain", "shadow_2"): streams never depend on one
    another."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "big"))
