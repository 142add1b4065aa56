"""The command line of study.py, and where it says that a study runs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from bench.command_line import DEVICES, Parser
from bench.configs import default_data_root
from bench.options import Options
from core.console import UserError
from core.inputs import check_folder, locate, path_argument
from studies.plan import Job

_WAIT = 600.0  # seconds for a lock, which a process on a node that has died may hold for a while


@dataclass(frozen=True)
class StudyCommand:
    """What a command line asks for; see `parse` for the meaning of each."""

    study: str
    device: str
    results: str
    jobs: int | None
    dry_run: bool
    ray: str | None
    gpus_per_task: float | None
    cpus_per_task: float | None
    ship: bool


def parse(argv: list[str] | None, about: str) -> StudyCommand:
    """What a command line asks for. Raises UserError where it is wrong."""
    parser = Parser(prog="study.py", description=about)
    add = parser.add_argument
    add("study", type=path_argument, help="JSON file of options, see config/studies/")
    add("--device", default="0", help=f"as in the stages: {DEVICES} (default: 0)")
    folder = "folder of all results (default: results)"
    add("--results", default="results", metavar="DIR", type=path_argument, help=folder)
    number = "stages run at once here (default: the number of cores on a CPU, 1 on a GPU)"
    add("--jobs", type=_count, metavar="N", help=number)
    add("--dry_run", action="store_true", help="print the commands and run nothing")
    cluster = "run on this Ray cluster; auto: the one that this machine belongs to"
    add("--ray", metavar="ADDRESS", help=cluster)
    gpus = "a task's share of a GPU on a Ray cluster (default: 1; 0 with --device cpu)"
    add("--gpus_per_task", type=_share, metavar="X", help=gpus)
    add("--cpus_per_task", type=_share, metavar="X", help="and of CPUs (default: 1)")
    ship = "the nodes share no results folder: files travel through Ray's object store"
    add("--ship", action="store_true", help=ship)
    given = vars(parser.parse_args(argv))
    given.pop("_before", None)
    asked = StudyCommand(**given)
    shares = (asked.gpus_per_task, asked.cpus_per_task)
    if asked.ray is None and (asked.ship or shares != (None, None)):
        raise UserError("--ship, --gpus_per_task and --cpus_per_task are for --ray ADDRESS")
    if asked.ray is not None and asked.jobs is not None:
        raise UserError(
            "--jobs is for this machine: on a Ray cluster --cpus_per_task and --gpus_per_task say "
            "how many"
        )
    check_folder("--results", asked.results)
    return replace(asked, study=locate(asked.study, "study"))


def runner_for(asked: StudyCommand, jobs: list[Job]):
    """What runs the jobs, see `runners`; tells each of them its device and workers."""
    from studies.runners import Local, Ray

    if asked.ray is not None:
        gpus = float(asked.device != "cpu") if asked.gpus_per_task is None else asked.gpus_per_task
        cpus = 1.0 if asked.cpus_per_task is None else asked.cpus_per_task
        device = "0" if gpus else "cpu"  # Ray shows each task its own GPU as the first
        workers = None if gpus else max(1, int(cpus))
        for job in jobs:
            job.options = _for_nodes(job.options, ship=asked.ship)
            job.options = replace(job.options, device=device, workers=workers, wait=_WAIT)
        results = Path(asked.results)
        return Ray(address=asked.ray, results=results, ship=asked.ship, gpus=gpus, cpus=cpus)

    from core.devices import choose_device
    from core.parallel import available_cores

    on_cpu = choose_device(asked.device).type == "cpu"
    at_once = min(asked.jobs or (available_cores() if on_cpu else 1), len(jobs))
    for job in jobs:
        job.options = replace(job.options, wait=_WAIT)
        if on_cpu:
            workers = max(1, available_cores() // at_once)
            job.options = replace(job.options, device="cpu", workers=workers)
    return Local(jobs=at_once)


def _for_nodes(options: Options, *, ship: bool) -> Options:
    """The options with data so named that nodes find it, which run elsewhere: by whole paths, or by
    each node's own default."""
    if options.data_path is not None:
        options = replace(options, data_path=str(Path(options.data_path).absolute()))
    if Path(options.data_root).exists() and not ship:
        return replace(options, data_root=str(Path(options.data_root).absolute()))
    if options.data_root == default_data_root():
        return replace(options, data_root=None)  # type: ignore[arg-type]  # as nobody named it
    return options


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of 0 or more, not {text!r}")
    return number
