"""One shadow model of a task: trained in a process of its own, asked about all records, stored. So is
the model that is trained with canaries, which has a name in place of a number.

python -m auditing.shadows NUMBER JOB.json is how a runner (see `studies.runners`) starts one.
"""

from __future__ import annotations

from core import console  # first, see core.interrupts

# isort: split

import hashlib
import json
import multiprocessing
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from auditing.deal import deal
from auditing.model_canaries import NAME, CanarySet, make
from auditing.queries import answers, of_network
from auditing.records import TaskRecords, read_records
from auditing.task import Task, load_task
from core.console import UserError
from core.devices import choose_device
from core.files import packed_arrays, read_arrays, write

_FORMAT = 1  # of what is stored; raised where shadow models must be made anew


@dataclass(frozen=True)
class Recipe:
    """What shadow models follow from, beside the code and the records of a task.

    Attributes:
        device: of torch; `threads` on a CPU, None: all.
    """

    seed: int
    device: str
    threads: int | None = None


def facts_of(task: Task, records: TaskRecords, seed: int, canaries: dict | None) -> dict:
    """What must be the same for a stored shadow model to be one that is asked for; `canaries` as of
    `auditing.model_canaries.make`, None: it is asked about none."""
    facts = {"format": _FORMAT, "code": task.source, "data": records.digest, "seed": seed}
    return facts | ({"canaries": canaries} if canaries else {})


def shadow_seed(seed: int, number: int | str) -> int:
    """32 bits that follow from both."""
    digest = hashlib.sha256(repr((seed, "audit", f"shadow_{number}")).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def seed_everything(seed: int) -> None:
    """The global generators, which are all that code knows that nobody hands one."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def shadow_file(folder: Path, number: int | str) -> Path:
    return folder / f"shadow_{number}.npz"


def train_shadow(
    task: Task,
    records: TaskRecords,
    rows: np.ndarray,
    *,
    seed: int,
    device: torch.device,
    canaries: CanarySet | None = None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Facts of a shadow model that is trained on these rows, and what it answers to all records:
    `outputs`, and `original_outputs` before compression where there is one; to canaries,
    `canary_outputs`."""
    seed_everything(seed)
    network = task.build().to(device)
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    x, y = records.part(rows, device)
    network = task.train(network, x, y)
    same = all(
        name in before and torch.equal(weight, before[name])
        for name, weight in network.named_parameters()
    )
    modes = {module: module.training for module in network.modules()}
    name = "the shadow model"
    arrays = {"outputs": answers(of_network(name, network), records.x)}
    if task.compresses:
        for module, training in modes.items():  # as train() left them, and not as it was asked
            module.training = training
        arrays["original_outputs"] = arrays["outputs"]
        network = task.compress(network, x, y)
        name = "the compressed shadow model"
        arrays["outputs"] = answers(of_network(name, network), records.x)
    if canaries is not None:
        arrays["canary_outputs"] = answers(of_network(name, network), canaries.x)
    return {"untrained": same}, arrays


def read_shadow(folder: Path, number: int | str, facts: dict) -> tuple[dict, dict] | None:
    """Facts and arrays of a stored shadow model; None where there is none of these facts."""
    path = shadow_file(folder, number)
    if not path.is_file():
        return None
    stored, arrays = read_arrays(path)
    return (stored, arrays) if stored["made_of"] == facts else None


class ShadowJob:
    """A shadow model to be trained, as `studies.runners` takes it.

    Attributes:
        name: in messages.
        argv: of `main`; `config`, the file with what it says; `log`, of what it prints.
    """

    stage = "auditing.shadows"

    def __init__(self, task: Task, folder: Path, number: int | str, recipe: Recipe, facts: dict):
        self.name = "the model with canaries" if number == NAME else f"shadow model {number}"
        self.config, self.log = (folder / f"shadow_{number}.{end}" for end in ("json", "log"))
        self.argv = [str(number), str(self.config)]
        self.options = SimpleNamespace(results=str(folder))
        said = {"task": str(task.path), "folder": str(folder.absolute()), "facts": facts} | vars(
            recipe
        )
        write(self.config, json.dumps(said).encode())


@console.stage
def main(argv=None):
    number, config, *_ = sys.argv[1:] if argv is None else argv
    said = json.loads(Path(config).read_text(encoding="utf-8"))
    number, folder = number if number == NAME else int(number), Path(said["folder"])
    # of the user's data loaders, as in a script: this process was started by a fork server
    multiprocessing.set_start_method("fork", force=True)
    if said["threads"] is not None:
        torch.set_num_threads(said["threads"])
    device = choose_device(said["device"])
    if not Path(said["task"]).is_file():
        raise UserError(f"{said['task']} is not on this machine: nodes must share its folder")
    seed = shadow_seed(said["seed"], number)
    seed_everything(seed)  # another than the parent's: what data() draws unseeded differs
    task = load_task(said["task"])
    records = read_records(task)
    spec = said["facts"].get("canaries")
    facts = facts_of(task, records, said["seed"], spec)
    if facts["data"] != said["facts"]["data"]:
        raise UserError(
            f"{task.path.name}: data() returns other records each time, so that nobody knows which "
            f"the released model has: it must return the same, so seed what it draws"
        )
    if facts != said["facts"]:
        raise UserError(f"{task.path.name} has changed since the command was given: give it again")
    canaries = make(records, spec, said["seed"]) if spec else None
    if number == NAME:
        records, rows = canaries.records, canaries.rows
    else:
        _, trained_on = deal(records.member, seed=said["seed"], shadow_num=number // 2 * 2 + 2)
        rows = np.flatnonzero(trained_on[number])
    made, arrays = train_shadow(task, records, rows, seed=seed, device=device, canaries=canaries)
    write(shadow_file(folder, number), packed_arrays(made | {"made_of": facts}, arrays))


if __name__ == "__main__":
    sys.exit(main())
