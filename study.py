"""Run a whole study: a grid of options, each stage once however many of its cells share it.

    python study.py config/studies/digits.json
    python study.py config/studies/location.json --dry_run
    python study.py config/studies/cifar10.json --ray auto --gpus_per_task 0.25

A study is a JSON file: "config" names a config or several, and any option of the stages stands with one value or a
list of them, "defend" as ["", "ppb", ["adv", 1]]. Every combination is a cell: a victim that is attacked. "grids" may
list several such objects, each of which adds to what stands beside them. Given again, what is there is kept.
"""

from core import console  # first, see core.interrupts

# isort: split

import argparse
import itertools
import json
import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from attackers import unfit
from bench.options import (
    OPTIONS,
    Parser,
    as_config,
    command,
    config_values,
    default_data_root,
    for_stage,
    parse,
    read_config,
    read_value,
)
from bench.store import ORIGINAL, Store, study_folder, study_job
from core.console import UserError
from core.files import write
from core.inputs import check_folder, locate, path_argument, read_object
from core.registry import nearest
from defenders import DEFENDERS

_OWN = (
    "results",
    "fresh",
    "workers",
    "wait",
    "per_class",
)  # options that belong to a command, not to a study
_WORDS = ("about", "config", "grids")  # keys of a study that are no options
# options that tell models apart by their folder's name; those that differ in any other have results folders apart
_IN_NAMES = (
    "dataset_name",
    "model_name",
    "pruner_name",
    "prune_sparsity",
    "defend",
    "defend_arg",
    "from_scratch",
    "shadow_num",
)
_WAIT = 600.0  # seconds for a lock, which a process on a node that has died may hold for a while


@dataclass(eq=False)
class Job:
    """A stage's command. It starts when those it `needs` are done and those it comes `after` have ended.

    Attributes:
        config: where what it is told is written down.
        state: waiting, running, done or failed.
    """

    stage: str
    options: SimpleNamespace
    needs: list["Job"]
    config: Path
    after: list["Job"] = field(default_factory=list)
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    error: str = ""

    @property
    def words(self) -> list[str]:
        """The command line by which a person would run it."""
        words = shlex.split(command(self.stage, self.options))
        return words + ["--attacks", ",".join(self.options.attacks)] * (self.stage == "mia")

    @property
    def argv(self) -> list[str]:
        """What the stage's main is given: a config of its own says all of it."""
        return [self.options.device, str(self.config)]

    @property
    def log(self) -> Path:
        """What it said."""
        return self.config.with_suffix(".log")

    @property
    def label(self) -> str:
        """What it is, for people."""
        options, words = self.options, [self.stage, Path(self.options.results).name]
        words += [f"{options.dataset_name}_{options.model_name}"]
        if options.original and self.stage == "mia":
            words.append("original")
        elif self.stage != "pretrain":
            words.append(Store(options, "").pruned)
        words += ["adaptive"] * (options.adaptive and self.stage == "mia")
        return " ".join(words + [",".join(options.attacks)] * (self.stage == "mia"))

    @property
    def kind(self) -> tuple:
        """What takes about as long."""
        return self.stage, self.options.defend, self.options.attacks, self.options.shadow_num

    def reads(self) -> list[Path]:
        """What it reads or adds to."""
        (victim, version), (shadow, shadow_version) = _stores(self.options)
        places = dict.fromkeys([(victim, ORIGINAL), (victim, version), (shadow, shadow_version)])
        return victim.common() + [
            store.folder(role, of) for store, of in places for role in store.roles()
        ]


@console.stage
def main(argv=None):
    parser = Parser(
        prog="study.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "study", type=path_argument, help="JSON file of options, see config/studies/"
    )
    parser.add_argument(
        "--device",
        default="0",
        help="as in the stages: a GPU's number (0: the first, or the CPU "
        "where there is none), cuda:N or cpu (default: 0)",
    )
    parser.add_argument(
        "--results",
        default="results",
        metavar="DIR",
        type=path_argument,
        help="folder of all results (default: results)",
    )
    parser.add_argument(
        "--jobs",
        type=_counted,
        metavar="N",
        help="stages run at once here (default: the number of cores on a CPU, 1 on a GPU)",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands and run nothing")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on this Ray cluster; auto: the one that this machine belongs to",
    )
    parser.add_argument(
        "--gpus_per_task",
        type=_share,
        metavar="X",
        help="a task's share of a GPU on a Ray cluster (default: 1; 0 with --device cpu)",
    )
    parser.add_argument(
        "--cpus_per_task", type=_share, metavar="X", help="and of CPUs (default: 1)"
    )
    parser.add_argument(
        "--ship",
        action="store_true",
        help="the nodes share no results folder: files travel through Ray's object store",
    )
    asked = parser.parse_args(argv)
    if asked.ray is None and (
        asked.ship or asked.gpus_per_task is not None or asked.cpus_per_task is not None
    ):
        raise UserError("--ship, --gpus_per_task and --cpus_per_task are for --ray ADDRESS")
    if asked.ray is not None and asked.jobs is not None:
        raise UserError(
            "--jobs is for this machine: on a Ray cluster --cpus_per_task and --gpus_per_task say how many"
        )

    check_folder("--results", asked.results)
    asked.study = locate(asked.study, "study")
    jobs = plan(read(asked.study, device=asked.device, results=asked.results))
    if asked.dry_run:
        for job in jobs:
            console.say(shlex.join(job.words))
        return
    console.say(
        f"{asked.study}: {_some(len(_cells(jobs)), 'cell')}, {_some(len(jobs), 'stage')} to run or to keep"
    )
    place = _place(asked, jobs)
    try:
        run(jobs, place)
    finally:
        place.stop()
    report_failures(jobs)
    console.say(f"all done: python report.py {asked.results} --study {asked.study}")


def read(path: str, *, device: str, results: str) -> list[SimpleNamespace]:
    """The cells of a study, as options of mia.py. Those that come to the same are one, with the attacks of all.

    Raises:
        UserError: it cannot be read, or a key or value is wrong.
    """
    study = read_object(path, "study")
    if not isinstance(study.get("about", ""), str):
        raise UserError(f"study {path}: about must be a text")
    grids = study.pop("grids", [{}])
    if not (
        isinstance(grids, list)
        and grids
        and all(isinstance(grid, dict) and not {"grids", "about"} & set(grid) for grid in grids)
    ):
        raise UserError(f"study {path}: grids must be a list of objects of options")
    cells: dict[tuple, SimpleNamespace] = {}
    for grid in grids:
        for values in _combinations(path, study | grid):
            config = locate(values.pop("config"), "config", beside=[Path(path).parent])
            given = _meant(read_config(config) | _checked(path, values))
            cell = parse("mia", [device, config], study=given, where=f"study {path}")
            cell.results, cell.fresh = (
                str(_folder(cell, results=results, study=Path(path).stem)),
                False,
            )
            seen = cells.setdefault(_same(cell, OPTIONS, ()), cell)
            both = tuple(dict.fromkeys(seen.attacks + cell.attacks))
            seen.attacks = ("all",) if "all" in both else both
            for name in cell.attacks:
                if name != "all" and (
                    reason := unfit(name, online=cell.split == "inout", shadow_num=cell.shadow_num)
                ):
                    raise UserError(f"study {path}: {reason}")
    return list(cells.values())


def _combinations(path: str, grid: dict) -> Iterable[dict]:
    for key in grid:
        if key in _OWN:
            raise UserError(f"study {path}: {key} is not for a study: it belongs to the command")
        if key not in OPTIONS and key not in _WORDS:
            raise UserError(f"study {path}: unknown key {key!r}{nearest(key, (*OPTIONS, *_WORDS))}")
    axes = {
        key: value if isinstance(value, list) else [value]
        for key, value in grid.items()
        if key not in ("about", "attacks")
    }
    if not axes.get("config") or not all(isinstance(config, str) for config in axes["config"]):
        raise UserError(f"study {path}: config is missing: the path of a config, or a list of them")
    for key, values in axes.items():
        if len(values) > 1 and key in OPTIONS and not OPTIONS[key].result:
            raise UserError(f"study {path}: {key} changes no result, so it can have one value only")
    if empty := [key for key, values in axes.items() if not values]:
        raise UserError(f"study {path}: {empty[0]} is an empty list")
    more = {"attacks": grid["attacks"]} if "attacks" in grid else {}
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values)) | more


def _checked(path: str, cell: dict) -> dict:
    """What a study says of a cell, a defence and its strength apart. Raises UserError where a value is none of its
    option's kind, whether or not it has a meaning in this cell."""
    if not isinstance(cell.get("defend", ""), str):
        if not isinstance(cell["defend"], list) or len(cell["defend"]) != 2:
            raise UserError(
                f'study {path}: defend is a list of names and of pairs such as ["ppb", 4]; '
                f"{cell['defend']!r} is neither"
            )
        cell["defend"], cell["defend_arg"] = cell["defend"]
    for name, value in cell.items():
        read_value(f"study {path}: {name}", name, value)
    return cell


def _meant(cell: dict) -> dict:
    """A cell, its config's values included, in which what has no meaning is at its default: a defence of the original,
    knowledge of none."""
    without = set()
    if cell.get("original") in (True, "true"):
        without |= {"pruner_name", "prune_sparsity", "prune_epochs", "defend"}
    if "defend" in without or not cell.get("defend"):
        without |= {"defend_arg", "adaptive"}
    if "defend" in without or cell.get("defend") != "dp":
        without |= {
            name
            for name, option in OPTIONS.items()
            if option.stages in ("prune_dp", "prune_dp mia")
        }
    return cell | {name: OPTIONS[name].default for name in without}


def _same(options: SimpleNamespace, names: Iterable[str], without: Iterable[str]) -> tuple:
    """Tells a stage's command from others, by the options of these names that can change a result."""
    return options.stage, *(
        (name, getattr(options, name))
        for name in names
        if OPTIONS[name].result and name not in without
    )


def _folder(cell: SimpleNamespace, *, results: str, study: str) -> Path:
    """A cell's results folder: one for each seed, and for whatever else makes other models than the config says, but
    has no part in the name of a model's folder."""
    plain = config_values(cell.config_path)
    plain |= {
        name: value
        for name, value in (("train_seed", cell.seed), ("prune_epochs", cell.epochs // 2))
        if plain[name] is None
    }  # which follow from others
    apart = [
        name
        for name, option in OPTIONS.items()
        if option.result
        and option.stages != "mia"
        and name not in ("seed", *_IN_NAMES)
        and getattr(cell, name) != plain[name]
    ]
    return study_folder(results, study, {name: getattr(cell, name) for name in ("seed", *apart)})


def plan(cells: list[SimpleNamespace]) -> list[Job]:
    """The stages of all cells, each once, in an order in which each comes behind those that it needs.

    Cells that differ only in the number of shadow models share those; the attacks on one victim, or by one set of
    shadow models, come one after the other, as they share answers and attack networks.
    """
    jobs: dict[tuple, Job] = {}
    made: dict[Path, Job] = {}
    last: dict[Path, Job] = {}

    def add(stage: str, cell: SimpleNamespace, needs: list[Job], **instead) -> Job:
        options = for_stage(stage, cell, **instead)
        own = [
            name
            for name, option in OPTIONS.items()
            if stage in option.stages.split() or stage == "mia"
        ]
        key = options.results, _same(options, own, () if stage == "mia" else ("shadow_num",))
        job = jobs.setdefault(
            key, Job(stage, options, needs, study_job(options.results, len(jobs)))
        )
        (victim, version), _ = _stores(options)
        if stage != "mia" and made.setdefault(victim.folder("victim", version), job) is not job:
            raise UserError(
                f"two kinds of {victim.folder('victim', version)} are asked for: options that differ too "
                f"little, or two configs of one network; make two studies of them"
            )
        job.options.shadow_num = max(job.options.shadow_num, options.shadow_num)
        return job

    for cell in cells:
        needs = [add("pretrain", cell, [])]
        if not cell.original:
            pruned = [add(DEFENDERS[cell.defend].options.get("stage", "prune"), cell, needs)]
            if cell.defend and not cell.adaptive:
                pruned.append(
                    add("prune", cell, needs, defend="", defend_arg=None, from_scratch=False)
                )
            needs = needs + pruned
        attack = add("mia", cell, needs)
        for place in _shared(attack.options):
            if last.get(place, attack) is not attack:
                attack.after.append(last[place])
            last[place] = attack
    return list(jobs.values())


def _stores(options: SimpleNamespace) -> tuple[tuple[Store, str], tuple[Store, str]]:
    """Store and version of the victim and of the shadow models that a stage has to do with."""
    victim = Store(options, "")
    if options.original or options.stage == "pretrain":
        return (victim, ORIGINAL), (victim, ORIGINAL)
    shadow = victim.undefended() if options.stage == "mia" and not options.adaptive else victim
    return (victim, victim.pruned), (shadow, shadow.pruned)


def _shared(options: SimpleNamespace) -> list[Path]:
    """What two attacks should not work on at once: the victim, and the shadow models."""
    (victim, version), (shadow, shadow_version) = _stores(options)
    return [victim.folder("victim", version), shadow.folder("shadow_0", shadow_version)]


def _some(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _cells(jobs: list[Job]) -> list[Job]:
    """Those jobs that end a cell: each has one run of mia.py."""
    return [job for job in jobs if job.stage == "mia"]


def run(jobs: list[Job], place) -> None:
    """Run all jobs on `place` (see `runners`), as many at once as it takes; a failed one stops those that need it."""
    cells = _cells(jobs)
    bar = console.progress(total=len(cells), label="cells", unit="cell")
    try:
        while any(job.state in ("waiting", "running") for job in jobs):
            _fail_with_what_they_need(jobs)
            ready = [
                job
                for job in jobs
                if job.state == "waiting"
                and all(need.state == "done" for need in job.needs)
                and all(before.state in ("done", "failed") for before in job.after)
            ]
            for job in ready[: max(0, place.capacity - len(place.running))]:
                write(job.config, json.dumps(as_config(job.options), indent=1).encode())
                job.state, job.began = "running", time.monotonic()
                place.start(job)
            for job, status in place.finished(timeout=0.5) if place.running else ():
                job.seconds = time.monotonic() - job.began
                job.state = "done" if status == 0 else "failed"
                if status:
                    job.error = _error(job, status)
                done = sum(cell.state == "done" for cell in cells)
                console.say(
                    f"[{done}/{len(cells)}] {job.seconds:6.1f} s  {job.label}"
                    + (f": FAILED: {job.error}" if status else "")
                )
                bar.update(done - bar.n)
            bar.set_postfix_str(_overview(jobs, place), refresh=True)
    finally:
        bar.close()


def _fail_with_what_they_need(jobs: list[Job]) -> None:
    for job in jobs:  # a need stands before what needs it
        lost = [need for need in job.needs if need.state == "failed"]
        if job.state == "waiting" and lost:
            job.state, job.error = "failed", f"not run, as this failed: {lost[0].label}"


def _overview(jobs: list[Job], place) -> str:
    failed = sum(cell.state == "failed" for cell in _cells(jobs))
    at_work = sum(
        any(job.state == "running" for job in [cell, *cell.needs]) for cell in _cells(jobs)
    )
    left = time_left(jobs, len(place.running))
    return f"{at_work} running, {failed} failed" + (
        "" if left is None else f", about {console.duration(left)} left"
    )


def time_left(jobs: list[Job], at_once: int) -> float | None:
    """Seconds, by what jobs of the same kind, else of the same stage, else all, took; None before any has ended."""
    ended = [job for job in jobs if job.state == "done"]
    if not ended:
        return None

    def mean(alike: list[Job]) -> float | None:
        return sum(job.seconds for job in alike) / len(alike) if alike else None

    by: dict = {}
    for job in ended:
        for key in (job.kind, job.stage):
            by.setdefault(key, []).append(job)
    default, now, left = mean(ended), time.monotonic(), 0.0
    for job in jobs:
        if job.state in ("waiting", "running"):
            whole = mean(by.get(job.kind, [])) or mean(by.get(job.stage, [])) or default
            left += max(0.0, whole - (now - job.began if job.state == "running" else 0.0))
    return left / max(1, at_once)


def _error(job: Job, status: int) -> str:
    lines = (
        job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if job.log.exists()
        else []
    )
    said = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    if said and status > 0:
        return "; ".join(line.removeprefix("error: ") for line in said)
    return f"ended with status {status} (out of memory?)"


def report_failures(jobs: list[Job]) -> None:
    """Name what failed, and exit with status 1; nothing where nothing has."""
    failed = [job for job in jobs if job.state == "failed"]
    if not failed:
        return
    causes = [job for job in failed if not any(need.state == "failed" for need in job.needs)]
    console.say(
        f"\n{len(_cells(failed))} of {len(_cells(jobs))} cells failed; given again, the study tries "
        f"these again:"
    )
    for job in causes:
        lost = sum(job in cell.needs for cell in _cells(failed))
        more = f" (and {_some(lost, 'cell')} behind it)" if lost else ""
        console.say(f"  {job.label}{more}\n    {job.error}\n    log: {job.log}")
    sys.exit(1)


def _place(asked, jobs: list[Job]):
    """Where the jobs run; tells them device and workers."""
    from studies.runners import Local, Ray

    for job in jobs:
        job.options.wait = _WAIT
    if asked.ray is not None:
        gpus = (
            asked.gpus_per_task if asked.gpus_per_task is not None else float(asked.device != "cpu")
        )
        cpus = 1.0 if asked.cpus_per_task is None else asked.cpus_per_task
        for job in jobs:  # Ray shows each task its own GPU as the first
            job.options.device, job.options.workers = (
                "0" if gpus else "cpu",
                max(1, int(cpus)) if not gpus else None,
            )
            _data_of_nodes(job.options, ship=asked.ship)
        return Ray(
            address=asked.ray, results=Path(asked.results), ship=asked.ship, gpus=gpus, cpus=cpus
        )
    from core.devices import choose_device
    from core.parallel import available_cores

    on_cpu = choose_device(asked.device).type == "cpu"
    at_once = min(asked.jobs or (available_cores() if on_cpu else 1), len(jobs))
    if on_cpu:
        for job in jobs:
            job.options.device, job.options.workers = "cpu", max(1, available_cores() // at_once)
    return Local(jobs=at_once)


def _data_of_nodes(options: SimpleNamespace, *, ship: bool) -> None:
    """Name data so that nodes find it, which run elsewhere: by whole paths, or by each node's own default."""
    if options.data_path is not None:
        options.data_path = str(Path(options.data_path).absolute())
    if Path(options.data_root).exists() and not ship:
        options.data_root = str(Path(options.data_root).absolute())
    elif options.data_root == default_data_root():
        options.data_root = None


def _counted(text: str) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
