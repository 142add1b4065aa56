"""Clocks of the benchmarks, and how their figures are printed."""

from __future__ import annotations

import datetime
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from core.devices import choose_device
from core.parallel import available_cores


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        measure: (device, **how) -> rows of figures, as they are stored.
        show: prints these rows as tables.
        quick: `how` for a run that only shows that it works.
    """

    measure: Callable[..., list[dict]]
    show: Callable[[list[dict]], None]
    quick: dict = field(default_factory=dict)


def machine(device: str) -> dict:
    """What the figures were measured on, and when."""
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(": ")[2]
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else [platform.processor()]
    )
    where = choose_device(device)
    gpu = _gpu_name(where.index) if where.type == "cuda" else None
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": names[0],
        "cores": available_cores(),
        "gpu": gpu,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _gpu_name(index: int) -> str:
    """Asked of the driver's tool, since a process that has used CUDA can't fork."""
    command = ["nvidia-smi", f"--id={index}", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def rate(run, count: int, device: torch.device, together=None) -> float:
    """Records a second of the second of two runs, which begins when all processes are ready for
    it."""
    seconds(run, device)
    if together is not None:
        together.wait()
    return count / seconds(run, device)


def seconds(run, device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def number(value: float | None) -> str:
    """A figure in print: three digits, or all of them before the point; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """Seconds, printed as milliseconds."""
    return number(None if value is None else 1000 * value)


def ratio(numerator: float | None, denominator: float | None) -> str:
    """How many times as large, in print."""
    if numerator is None or denominator is None:
        return "-"
    return f"{number(numerator / denominator)} x"
