"""Whole stages on Location: their wall time, and the memory of many shadow models."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.timing import Part, number, ratio
from core.console import table
from core.inputs import PROJECT


def stage(
    name: str, device: str, results: str, *words: str, watch_memory: bool = False
) -> tuple[float, int | None]:
    """Wall seconds of a stage on Location; and, if asked to watch it, which takes time, the peak of
    its processes' memory in bytes."""
    command: list[str | Path] = [
        sys.executable,
        PROJECT / f"{name}.py",
        device,
        PROJECT / "config/location.json",
    ]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--results", results, *words], stdout=subprocess.DEVNULL)
    memory = _Memory(process.pid) if watch_memory else None
    if process.wait() != 0:
        raise SystemExit(f"{name}.py failed on Location")
    return time.perf_counter() - start, memory.peak() if memory else None


class _Memory(threading.Thread):
    """Watches the memory of a process and its children, shared pages divided among them (Linux
    only)."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.most, self.ended = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(1.0):
            processes = [self.pid, *self._children(self.pid)]
            self.most = max(self.most, sum(map(self._bytes_of, processes)))

    def peak(self) -> int | None:
        self.ended.set()
        self.join()
        return self.most or None

    def _children(self, pid: int) -> list[int]:
        try:
            return [
                int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            ]
        except OSError:
            return []

    def _bytes_of(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def location(
    device: str, *, attack_lists=("threshold", "samia", "samia,threshold,nn,nn_top3,nn_cls")
) -> list[dict]:
    """A row a stage; each list of attacks is made anew."""
    with tempfile.TemporaryDirectory() as results:
        seconds = {name: stage(name, device, results)[0] for name in ("pretrain", "prune")}
        for attacks in attack_lists:
            seconds[f"mia --attacks {attacks}"] = stage(
                "mia", device, results, "--attacks", attacks, "--fresh"
            )[0]
    return [{"stage": name, "seconds": value} for name, value in seconds.items()]


def shadows(device: str, *, counts=(1, 4, 16, 64, 256)) -> list[dict]:
    """A row a number of shadow models that pretrain.py trains."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as results:
            seconds, memory = stage(
                "pretrain", device, results, "--shadow_num", str(count), watch_memory=True
            )
        rows.append({"shadow_models": count, "seconds": seconds, "peak_memory": memory})
    return rows


def show_location(rows: list[dict]) -> None:
    """Print the rows of `location`."""
    cells = [[row["stage"], number(row["seconds"])] for row in rows]
    table("Location, 5 shadow models", ["stage", "seconds"], cells)


def show_shadows(rows: list[dict]) -> None:
    """Print the rows of `shadows`."""
    cells = [
        [
            str(row["shadow_models"]),
            number(row["seconds"]),
            ratio(row["seconds"], rows[0]["seconds"]),
            number(row["peak_memory"] and row["peak_memory"] / 2**20),
        ]
        for row in rows
    ]
    header = ["shadow models", "seconds", "times one", "peak memory, MiB"]
    table("pretrain on Location", header, cells)


PARTS = {
    "shadows": Part(shadows, show_shadows, {"counts": (1,)}),
    "location": Part(location, show_location, {"attack_lists": ("threshold",)}),
}
