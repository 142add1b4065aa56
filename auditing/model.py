"""Audit a model of one's own: shadow models are trained as it was, and asked beside it.

python audit.py model my_task.py --device 0 --shadow_num 16 --out audit/

my_task.py says what the model is, in ten lines: build(), train(network, x, y), data(), CHECKPOINT,
and compress(network, x, y) where it was compressed before release: docs/audit.md. Given again, what
is there is kept.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from bench.command_line import Parser
from core.console import UserError, say
from core.files import locked, write
from core.inputs import check_folder, path_argument
from datasets import check_even

_EVIDENCE = "evidence.npz"


@dataclass(frozen=True)
class ModelCommand:
    """What a command line asks for; see `parse` for the meaning of each."""

    task: str
    device: str
    shadow_num: int
    out: str
    seed: int
    workers: int | None
    ray: str | None
    gpus_per_shadow: float | None
    cpus_per_shadow: float | None
    gate: list[str]
    fresh: bool


def parse(argv: list[str] | None) -> ModelCommand:
    """What a command line asks for. Raises UserError where it is wrong."""
    parser = Parser(
        prog="audit.py model",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("task", type=path_argument, help="a Python file that says what the model is")
    device = "a GPU's number (0: the first, or the CPU where there is none), cuda:N or cpu"
    add("--device", default="0", help=f"{device} (default: 0)")
    add("--shadow_num", type=_whole, default=16, help="shadow models, even (default: 16)")
    add("--out", default="audit", type=path_argument, help="folder of all (default: audit)")
    add("--seed", type=_whole, default=7, help="of whom they are trained on (default: 7)")
    workers = "trained at once (default: the number of cores on a CPU, 1 on a GPU)"
    add("--workers", type=_whole, metavar="N", help=workers)
    ray = "train on this Ray cluster; auto: the one that this machine belongs to"
    add("--ray", metavar="ADDRESS", help=f"{ray}; nodes share the folders of task and --out")
    gpus = "a shadow model's share of a GPU on a Ray cluster (default: 1; 0 with --device cpu)"
    add("--gpus_per_shadow", type=float, metavar="X", help=gpus)
    add("--cpus_per_shadow", type=float, metavar="X", help="and of CPUs (default: 1)")
    gate = "a condition such as 'auc<=0.6'; may be given several times"
    add("--gate", action="append", default=[], help=gate)
    add("--fresh", action="store_true", help="train anew what is there already")
    given = vars(parser.parse_args(argv))
    given.pop("_before", None)
    asked = ModelCommand(**given)
    _check(asked)
    return asked


def _check(asked: ModelCommand) -> None:
    if not re.fullmatch(r"cpu|(cuda:)?\d{1,4}|cuda", asked.device):
        raise UserError(f"--device must be a GPU's number, cuda:N or cpu, not {asked.device!r}")
    if asked.shadow_num < 2:
        raise UserError(f"--shadow_num must be 2 or more, not {asked.shadow_num}")
    check_even(asked.shadow_num)
    shares = (asked.gpus_per_shadow, asked.cpus_per_shadow)
    if asked.ray is None and shares != (None, None):
        raise UserError("--gpus_per_shadow and --cpus_per_shadow are for --ray ADDRESS")
    if asked.ray is not None and asked.workers is not None:
        raise UserError("--workers is for this machine: on a Ray cluster --cpus_per_shadow tells")
    if any(share is not None and share < 0 for share in shares) or asked.workers == 0:
        raise UserError("--workers and shares of a cluster must be above 0")
    check_folder("--out", asked.out)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """The exit status of the audit."""
    asked = parse(argv)
    path, warnings = make_evidence(asked)
    for line in warnings:
        say(f"warning: {line}")
    say(f"answers of all models: {path}")
    return 0


def make_evidence(asked: ModelCommand) -> tuple[Path, list[str]]:
    """The file of what released model and shadow models answer, and what is odd in that.

    Raises UserError where the task, its model or a shadow model is not as it should be; shadow
    models that are finished stay for the next time.
    """
    from auditing import model_evidence, training
    from auditing.deal import deal
    from core.devices import choose_device

    device, folder = choose_device(asked.device), Path(asked.out, "shadows")
    task, records = model_evidence.load(asked.task, asked.seed)
    # first, as its file may not fit
    released = model_evidence.ask_released(task, records, seed=asked.seed, device=device)
    target, trained_on = deal(records.member, seed=asked.seed, shadow_num=asked.shadow_num)
    say(
        f"{task.released.name}: {records.member.sum()} members, {(target & ~records.member).sum()} "
        f"non-members as targets, {(~target).sum()} more; {asked.shadow_num} shadow models of "
        f"{trained_on[0].sum()} records each"
    )
    with locked(folder, "shadows", wait=0, makes=["shadow_", "task.json"]):
        facts = training.keep_or_refuse(folder, task, records, seed=asked.seed, fresh=asked.fresh)
        machines = _machines(asked, str(device))
        training.train_missing(task, folder, facts, machines, asked.shadow_num)
        shadows = training.read_shadows(folder, facts, asked.shadow_num)
    arrays = model_evidence.evidence_arrays(records, target, trained_on, released, shadows)
    path = Path(asked.out, _EVIDENCE)
    write(path, model_evidence.packed(arrays))
    return path, model_evidence.oddities(records, target, trained_on, released, shadows)


def _machines(asked: ModelCommand, device: str):
    from auditing.training import Machines

    gpus = asked.gpus_per_shadow
    return Machines(
        device,
        workers=asked.workers,
        ray=asked.ray,
        gpus=float(asked.device != "cpu") if gpus is None else gpus,
        cpus=1.0 if asked.cpus_per_shadow is None else asked.cpus_per_shadow,
    )
