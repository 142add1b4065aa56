"""How and when a model was made, for the record."""

from __future__ import annotations

import datetime
import functools
import platform
import subprocess
import time
from pathlib import Path

import numpy as np


def made_now(*, device: str, start: float, workers: int | None) -> dict:
    """How and when a model was made that is finished now and was begun at `start` (seconds)."""
    import torch

    begun, ended = (
        datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")
        for at in (start, time.time())
    )
    return {
        "start": begun,
        "end": ended,
        "device": device,
        "workers": workers,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": commit_of_code(),
    }


@functools.cache
def commit_of_code() -> str | None:
    """The commit of this code, where it lies in a git repository."""
    folder = Path(__file__).parent.parent
    try:
        git = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return git.stdout.strip() or None
