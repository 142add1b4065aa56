"""Audit a model of your own: shadow models are trained as it was, and asked beside it.

python audit.py model my_task.py --shadow_num 16 --out audit/ --gate "auc<=0.6"

my_task.py says what the model is, in ten lines: build(), train(network, x, y), data(), CHECKPOINT,
and compress(network, x, y) where it was compressed before release; docs/audit.md says more of each.
Given again, shadow models that are there are kept. --canaries 500 --epsilon 8 holds what train()
claims of its privacy against one more training.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from auditing import model_canaries
from auditing.canaries import judge
from auditing.request import Request, Settings, add_options, options_of, printable
from auditing.weaknesses import Weakness
from bench.command_line import DEVICES, Parser, check_device
from bench.layout import CANARY_AUDIT
from core.console import UserError, say
from core.files import file_digest, locked, write
from core.inputs import path_argument
from datasets import check_even

_EVIDENCE = "evidence.npz"


def main(argv: list[str] | None = None) -> int:
    """The exit status, see `auditing.gate.STATUS`; 3 too where canaries refute a claim."""
    argv = sys.argv[1:] if argv is None else argv
    given = _parser().parse_args(argv)
    _check(given)
    settings = options_of(given)
    arrays, weak, files, judged = _evidence(given, settings)
    from auditing.given import checked
    from auditing.run import run

    request = Request(
        settings,
        title=printable(given.title or files[1].name),
        source="model",
        files={printable(str(path)): file_digest(path) for path in files},
        command=printable(shlex.join(["python", "audit.py", "model", *argv])),
        weaknesses=tuple(weak),
    )
    status = run(checked(arrays), request)
    return judged() or status


def _parser() -> Parser:
    parser = Parser(prog="audit.py model", description=__doc__)
    add = parser.add_argument
    add("task", type=path_argument, help="a Python file that says what the model is")
    add_options(parser)
    add("--device", default="0", help=f"{DEVICES} (default: 0)")
    add("--shadow_num", type=_whole, default=16, help="shadow models, even (default: 16)")
    workers = "trained at once (default: the number of cores on a CPU, 1 on a GPU)"
    add("--workers", type=_whole, metavar="N", help=workers)
    ray = "train on this Ray cluster; auto: the one that this machine belongs to"
    add("--ray", metavar="ADDRESS", help=f"{ray}; nodes share the folders of task and --out")
    gpus = "a shadow model's share of a GPU on a Ray cluster (default: 1; 0 with --device cpu)"
    add("--gpus_per_shadow", type=float, metavar="X", help=gpus)
    add("--cpus_per_shadow", type=float, metavar="X", help="and of CPUs (default: 1)")
    add("--fresh", action="store_true", help="train anew what is there already")
    model_canaries.add_options(parser)
    return parser


def _check(given: argparse.Namespace) -> None:
    check_device("--device", given.device)
    if given.shadow_num < 2:
        raise UserError(f"--shadow_num must be 2 or more, not {given.shadow_num}")
    check_even(given.shadow_num)
    shares = (given.gpus_per_shadow, given.cpus_per_shadow)
    if given.ray is None and shares != (None, None):
        raise UserError("--gpus_per_shadow and --cpus_per_shadow are for --ray ADDRESS")
    if given.ray is not None and given.workers is not None:
        raise UserError("--workers is for this machine: on a Ray cluster --cpus_per_shadow tells")
    if any(share is not None and share < 0 for share in shares) or given.workers == 0:
        raise UserError("--workers and shares of a cluster must be above 0")
    model_canaries.check_options(given)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _evidence(
    given: argparse.Namespace, settings: Settings
) -> tuple[dict[str, np.ndarray], list[Weakness], list[Path], Callable[[], int]]:
    """What released model and shadow models answer, also stored; what is weak in that; the files
    that say what the model is; and what judges its canaries, if there are any: it prints and writes
    what they prove, and returns the exit status.

    Raises UserError where the task, its model or a shadow model is not as it should be; shadow
    models that are finished stay for the next time.
    """
    from auditing import model_evidence, training
    from auditing.deal import deal
    from core.devices import choose_device

    device, folder = choose_device(given.device), settings.out / "shadows"
    task, records = model_evidence.load(given.task, settings.seed)
    # first, as its file may not fit
    released = model_evidence.ask_released(task, records, seed=settings.seed, device=device)
    canaries = model_canaries.spec_of(given, records)
    target, trained_on = deal(records.member, seed=settings.seed, shadow_num=given.shadow_num)
    say(
        f"{task.released.name}: {records.member.sum()} members, {(target & ~records.member).sum()} "
        f"non-members as targets, {(~target).sum()} more; {given.shadow_num} shadow models of "
        f"{trained_on[0].sum()} records each"
    )
    with locked(folder, "shadows", wait=0, makes=["shadow_", "task.json"]):
        facts = training.keep_or_refuse(
            folder, task, records, seed=settings.seed, fresh=given.fresh, canaries=canaries
        )
        if given.fresh:  # which may be of other code
            (settings.out / CANARY_AUDIT).unlink(missing_ok=True)
        machines = _machines(given, str(device))
        count, too = given.shadow_num, canaries is not None
        training.train_missing(task, folder, facts, machines, count, canaries=too)
        shadows = training.read_shadows(folder, facts, count, canaries=too)
    arrays = model_evidence.evidence_arrays(records, target, trained_on, released, shadows)
    write(settings.out / _EVIDENCE, model_evidence.packed(arrays))
    weak = model_evidence.weaknesses(records, target, trained_on, released, shadows)
    files = [file for file in (task.path, task.released, task.original) if file]

    def judged() -> int:
        if canaries is None or shadows.canary_outputs is None:
            return 0
        made = model_canaries.make(records, canaries, settings.seed)
        scored = model_canaries.scored(made, shadows.canary_outputs, canaries["kind"])
        claim = model_canaries.claim_of(given, int(records.member.sum()))
        return judge(settings.out, task.source, scored, claim)

    return arrays, weak, files, judged


def _machines(given: argparse.Namespace, device: str):
    from auditing.training import Machines

    gpus = given.gpus_per_shadow
    return Machines(
        device,
        workers=given.workers,
        ray=given.ray,
        gpus=float(given.device != "cpu") if gpus is None else gpus,
        cpus=1.0 if given.cpus_per_shadow is None else given.cpus_per_shadow,
    )
