"""Where the stages of a study run: in processes of this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from core import interrupts
from bench.layout import ATTACKS, MANIFEST, SAVED_DIGESTS
from core.console import UserError
from core.files import write
from core.parallel import die_with_parent

PROJECT = Path(__file__).resolve().parent.parent
STAGES = ("pretrain", "prune", "prune_dp", "quantize", "mia")
_OF_STAGES = (
    *STAGES,
    "bench.training",
    "bench.attacking",
    "bench.tables",
    "attackers.neural",
    "sklearn.metrics",
    "scipy.stats",
)
# what says whose files these are is written before them, what says that others are there after them
_FIRST, _LAST = SAVED_DIGESTS, (MANIFEST, ATTACKS)


class Local:
    """Up to `jobs` stages at once, each in a process of its own, forked from one that has torch
    imported already.

    Args:
        preload: modules that the stages need, imported once for all.
    """

    def __init__(self, *, jobs: int, preload: Sequence[str] = _OF_STAGES):
        self.capacity = jobs
        self.running: dict = {}
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))

    def start(self, job) -> None:
        process = self.context.Process(target=_run_here, args=(job.stage, job.argv, job.log))
        # also for the server that forks, which takes its time to import all that
        with interrupts.blocked():
            process.start()
        self.running[process.sentinel] = process, job

    def finished(self, timeout: float) -> Iterator[tuple[object, int]]:
        """Yield (job, exit status) of those that have ended, after at most so many seconds."""
        for sentinel in wait(list(self.running), timeout):
            process, job = self.running.pop(sentinel)
            process.join()
            yield job, process.exitcode

    def stop(self) -> None:
        """Nothing runs on."""
        for process, _ in self.running.values():
            process.kill()
        for process, _ in self.running.values():
            process.join()


def _run_here(stage: str, argv: list[str], log: Path) -> None:
    threading.Thread(target=_die_with_the_study, daemon=True).start()
    with open(log, "wb", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.exit(importlib.import_module(stage).main(argv))


def _die_with_the_study() -> None:
    study = multiprocessing.parent_process()  # the process's parent is another: the one that forks
    if study is not None:
        study.join()
        os.kill(os.getpid(), signal.SIGKILL)


class Ray:
    """Each stage is a task of a Ray cluster; one whose node dies is run again elsewhere.

    Args:
        address: of the cluster, or "auto" for the one that this machine is part of.
        results: the results folder, the same for all nodes, or else with `ship`:
        ship: what a task reads and what it makes travels through Ray's object store.
        gpus, cpus: a task's share.
    Raises:
        UserError: there is no such cluster, it has too little for a task, or Ray is not installed.
    """

    def __init__(self, *, address: str, results: Path, ship: bool, gpus: float, cpus: float):
        try:
            import ray
        except ImportError:
            raise UserError("--ray needs Ray: pip install -r requirements-cluster.txt") from None
        _reach(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a study goes elsewhere
        try:
            with tempfile.TemporaryDirectory() as code:  # read by Ray as it connects
                copy_code(PROJECT, Path(code))
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env={"working_dir": code},
                )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(f"no Ray cluster at {address}: {error}") from error
        self.ray, self.ship, self.shares = ray, ship, {"GPU": gpus, "CPU": cpus}
        self.running: dict = {}
        self.token: Path | None = None
        have = ray.cluster_resources()
        if have.get("GPU", 0) < gpus or have.get("CPU", 0) < cpus:
            self.stop()
            raise UserError(
                f"a task asks for {gpus:g} GPU and {cpus:g} CPU, the cluster at {address} has "
                f"{have.get('GPU', 0):g} and {have.get('CPU', 0):g}"
            )
        if not ship:
            self.token = results.absolute() / f".shared_{uuid.uuid4().hex}"
            write(self.token, b"")
        self.task = ray.remote(_run_there).options(num_gpus=gpus, num_cpus=cpus, max_retries=5)

    @property
    def capacity(self) -> int:
        """How many tasks the cluster, as it is now, has room for."""
        have = self.ray.cluster_resources()
        room = [have.get(what, 0) / share for what, share in self.shares.items() if share]
        return max(1, int(min(room, default=len(self.running) + 1)))

    def start(self, job) -> None:
        results = Path(job.options.results).absolute()
        files: Any = None
        if self.ship:
            files = self.ray.put(_read(results, [path.absolute() for path in job.reads()]))
        config = job.config.read_text(encoding="utf-8")
        task = self.task.remote(job.stage, job.argv, config, str(results), files, self.token)
        self.running[task] = job

    def finished(self, timeout: float) -> Iterator[tuple[object, int]]:
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=timeout)
        for reference in ready:
            job = self.running.pop(reference)
            try:
                status, said, made = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                status, said, made = 1, f"error: {error}".encode(), {}
            write(job.log, said)
            for name in sorted(made, key=_order):
                write(Path(job.options.results, name), made[name])
            yield job, status

    def stop(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()
        if self.token is not None:
            self.token.unlink(missing_ok=True)


def _order(name: str) -> tuple[bool, bool]:
    """In which files that come back are written."""
    return Path(name).name != _FIRST, Path(name).name in _LAST


def copy_code(project: Path, target: Path) -> None:
    """Copy what stages import, and nothing else that lies in the repository, such as data, results
    or environments."""
    packages = [
        folder.parent
        for folder in project.glob("*/__init__.py")
        if folder.parent.name not in ("tests", "benchmarks")
    ]
    for path in [
        *project.glob("*.py"),
        *(path for package in packages for path in package.rglob("*.py")),
    ]:
        if path.is_file():
            copy = target / path.relative_to(project)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _reach(address: str) -> None:
    """Raise UserError where nobody listens at host:port; Ray itself would take minutes to say
    so."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=10).close()
        elif address != "auto":
            raise OSError("an address is host:port, or auto")
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster at {address}: {error}") from error


def _run_there(
    stage: str,
    argv: list[str],
    config: str,
    results: str,
    files: dict[str, bytes] | None,
    token: Path | None,
) -> tuple[int, bytes, dict[str, bytes]]:
    """Run a stage on a node, in the copy of this code that lies there; returns its exit status,
    what it said, and the files that it made where these must be sent."""
    if token is not None and not token.exists():
        return (
            2,
            (
                f"error: {token.parent} is not the same folder on node {os.uname().nodename}: name one that all "
                f"nodes share with --results, or give --ship"
            ).encode(),
            {},
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(argv[1]).name)
        path.write_text(config, encoding="utf-8")
        argv, named = [argv[0], str(path)], argv[1]
        if files is not None:
            results = str(Path(folder, "results"))
            for name, content in files.items():
                write(Path(results, name), content)
        argv += ["--results", results]  # the last one counts
        ran = subprocess.run(
            [sys.executable, "-m", stage, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            preexec_fn=die_with_parent,
        )
        made = {}
        if files is not None:
            found = _read(Path(results), [Path(results)])
            made = {name: content for name, content in found.items() if files.get(name) != content}
        said = ran.stdout.replace(
            str(path).encode(), named.encode()
        )  # a name that its reader knows
        return ran.returncode, said, made


def _read(results: Path, places: list[Path]) -> dict[str, bytes]:
    """All files of a results folder in these places, by their names in it; none that are half made
    or, but for digests, hidden."""
    found = [
        path for place in places for path in ([place] if place.is_file() else place.rglob("*"))
    ]
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in found
        if path.is_file()
        and (path.name == _FIRST or not path.name.startswith("."))
        and path.suffix != ".resume"
    }
