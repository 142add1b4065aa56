"""All shadow models of a task, and the model with canaries where there are some: those that are missing are trained, here or on a Ray cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auditing.model_canaries import NAME
from auditing.records import TaskRecords
from auditing.shadows import Recipe, ShadowJob, facts_of, read_shadow, shadow_file
from auditing.task import Task, imports_of
from core.console import UserError, say
from core.files import read_sealed, sealed_json, write
from core.parallel import available_cores
from studies.runners import Local, Ray

_MANIFEST = "task.json"
# what processes have imported before they are forked; the last is found where this folder is the
# working one
_PRELOAD = ("torch", "torch._dynamo", "auditing.shadows")
_FORKABLE = ("numpy", "pandas", "scipy", "sklearn", "torchvision")  # others may start threads
_IN_WORDS = {
    "format": "another version of this bench",
    "code": "other code",
    "data": "other records or members",
    "seed": "another seed",
    "canaries": "other canaries, or none",
}


@dataclass(frozen=True)
class Machines:
    """Where shadow models are trained.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        workers: at once on this machine; None: a core each, or one on a GPU.
        ray: address of a Ray cluster, None: this machine; `gpus` and `cpus`, a shadow's share.
    """

    device: str
    workers: int | None = None
    ray: str | None = None
    gpus: float = 0.0
    cpus: float = 1.0


@dataclass(frozen=True, eq=False)
class Shadows:
    """What S shadow models answer to N records.

    Attributes:
        outputs: (S, N, C); `original_outputs`, before compression, None where there is none.
        untrained: how many have the weights that they were built with.
        canary_outputs: (1 + S, m, C) to canaries, first of the model that was trained with them; None
            where there are none.
    """

    outputs: np.ndarray
    original_outputs: np.ndarray | None
    untrained: int
    canary_outputs: np.ndarray | None


def keep_or_refuse(
    folder: Path,
    task: Task,
    records: TaskRecords,
    *,
    seed: int,
    fresh: bool,
    canaries: dict | None = None,
) -> dict:
    """What shadow models in this folder are made of, written down there. Where none are asked for
    they go on to be asked about the canaries that they were asked about.

    Raises UserError where those that lie there are made of something else, unless `fresh`: then
    they are removed.
    """
    path, facts = folder / _MANIFEST, facts_of(task, records, seed, canaries)
    if fresh:
        for left in (*folder.glob("shadow_*.npz"), *folder.glob("shadow_*.log")):
            left.unlink()
    elif path.is_file() and any(folder.glob("shadow_*.npz")):
        stored = read_sealed(path)
        differ = [_IN_WORDS[name] for name in facts if stored.get(name) != facts[name]]
        if differ:
            again = f" (--seed {stored['seed']})" if differ == [_IN_WORDS["seed"]] else ""
            raise UserError(
                f"the shadow models in {folder} are made of {' and '.join(differ)}{again}: give "
                f"--fresh to train all anew, or another --out folder"
            )
        facts = stored
    write(path, sealed_json(facts))
    return facts


def train_missing(
    task: Task, folder: Path, facts: dict, machines: Machines, count: int, *, canaries: bool = False
) -> None:
    """Train those of `count` shadow models, and the one with canaries where it is asked for, that do
    not lie in the folder yet.

    Raises UserError where one fails; those that are finished stay.
    """
    numbers: list[int | str] = [n for n in range(count) if read_shadow(folder, n, facts) is None]
    if len(numbers) < count:
        say(f"{count - len(numbers)} of {count} shadow models are there already")
    if canaries and read_shadow(folder, NAME, facts) is None:
        numbers.append(NAME)
    if not numbers:
        return
    preload = [name for name in imports_of(task) if name.partition(".")[0] in _FORKABLE]
    runner, recipe = _runner(machines, folder, count, facts["seed"], [*_PRELOAD, *preload])
    try:
        jobs = [ShadowJob(task, folder, number, recipe, facts) for number in numbers]
        _run(jobs, runner, count + canaries)
    finally:
        runner.stop()
        for left in folder.glob("shadow_*.json"):
            left.unlink()


def _runner(machines: Machines, folder: Path, count: int, seed: int, preload: Sequence[str]):
    """What starts them (see `studies.runners`), and on which device each is trained there."""
    if machines.ray is not None:
        runner = Ray(
            address=machines.ray, results=folder, ship=False, gpus=machines.gpus, cpus=machines.cpus
        )
        device = "0" if machines.gpus else "cpu"  # Ray shows each task its own GPU as the first
        return runner, Recipe(seed, device, max(1, int(machines.cpus)))
    if machines.device != "cpu":
        return Local(jobs=machines.workers or 1, preload=preload), Recipe(seed, machines.device)
    # threads follow from the command alone, so that a shadow trained later is the same to the bit
    workers = machines.workers or min(count, available_cores())
    threads = max(1, available_cores() // workers)
    return Local(jobs=workers, preload=preload), Recipe(seed, "cpu", threads)


def _run(jobs: Sequence[ShadowJob], runner, count: int) -> None:
    waiting, began = list(jobs), {}
    done = count - len(jobs)
    while waiting or runner.running:
        while waiting and len(runner.running) < runner.capacity:
            job = waiting.pop(0)
            began[job] = time.monotonic()
            runner.start(job)
        for job, status in runner.finished(timeout=0.5):
            if status:
                raise _failure(job, status)
            done += 1
            say(f"[{done}/{count}] {time.monotonic() - began[job]:6.1f} s  "
                f"{job.name} is trained")  # fmt: skip


def _failure(job: ShadowJob, status: int) -> UserError:
    """Why a shadow model was not made; what else it printed goes to stderr."""
    text = job.log.read_text(encoding="utf-8", errors="replace") if job.log.exists() else ""
    lines = text.strip().splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    print("\n".join(line for line in lines if not line.startswith("error: ")), file=sys.stderr)
    why = said[-1] if said else f"its process ended with status {status} (out of memory?)"
    return UserError(f"{job.name}: {why} (all it printed: {job.log}; finished ones are kept)")


def read_shadows(folder: Path, facts: dict, count: int, *, canaries: bool = False) -> Shadows:
    """What the first `count` shadow models answered, and to canaries the one that has them."""
    names = [NAME] * canaries + [*range(count)]
    made, arrays = zip(*(_there(folder, name, facts) for name in names))

    def stack(name: str, first: int = int(canaries)) -> np.ndarray:
        return np.stack([one[name] for one in arrays[first:]])

    return Shadows(
        stack("outputs"),
        stack("original_outputs") if "original_outputs" in arrays[-1] else None,
        sum(one["untrained"] for one in made[int(canaries) :]),
        stack("canary_outputs", 0) if canaries else None,
    )


def _there(folder: Path, number: int | str, facts: dict) -> tuple[dict, dict]:
    one = read_shadow(folder, number, facts)
    if one is None:
        raise UserError(f"{shadow_file(folder, number)} is gone: give the command again")
    return one
