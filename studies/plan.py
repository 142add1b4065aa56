"""The stages of a study: each once, in an order in which each comes behind those that it needs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.command_line import for_stage
from bench.configs import command, stage_of
from bench.guesses import GUESSES, knowledge_in_words
from bench.layout import ModelSet, study_job
from bench.matchup import Matchup
from bench.options import OPTIONS, Options
from bench.releases import release_options
from core.console import UserError
from datasets import DATASETS
from studies.grid import what_differs


@dataclass(eq=False)
class Job:
    """A stage's command. It starts when those it `needs` are done and those it comes `after` have
    ended.

    Attributes:
        config: where what it is told is written down.
        state: waiting, running, done or failed.
    """

    stage: str
    options: Options
    needs: list[Job]
    config: Path
    after: list[Job] = field(default_factory=list)
    state: str = "waiting"
    began: float = 0.0
    seconds: float = 0.0
    error: str = ""

    @property
    def command(self) -> list[str]:
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
            words.append(ModelSet(options).version)
        words += ["adaptive"] * (options.adaptive and self.stage == "mia")
        words += ["also", ",".join(options.also)] if options.also else []
        guess = knowledge_in_words({name: getattr(options, name) for name in GUESSES})
        words += [guess] if guess else []
        return " ".join(words + [",".join(options.attacks)] * (self.stage == "mia"))

    @property
    def duration_key(self) -> tuple:
        """What takes about as long."""
        return self.stage, self.options.defend, self.options.attacks, self.options.shadow_num

    def reads(self) -> list[Path]:
        """What it reads or adds to."""
        victim, _ = models_of(self.options)
        places = [victim.split_file, victim.attack_networks]
        held = [self.options, *(release_options(self.options, name) for name in self.options.also)]
        versions = [models for options in held for models in models_of(options)]
        lineages = [one for models in versions for one in models.lineage]
        for models in dict.fromkeys([victim.originals, *lineages]):
            places += [models.folder(role) for role in models.roles]
        return places


def models_of(options: Options) -> tuple[ModelSet, ModelSet]:
    """The models that a stage makes, twice; or the victim's and the shadows' that it attacks
    with."""
    if options.stage == "mia":
        known = DATASETS[options.dataset_name].options if options.data_path is None else {}
        matchup = Matchup.of(options, shape=known.get("shape"))
        return matchup.victim, matchup.shadows
    made = ModelSet(options, original=options.stage == "pretrain")
    return made, made


def cells_of(jobs: list[Job]) -> list[Job]:
    """Those jobs that end a cell: each has one run of mia.py."""
    return [job for job in jobs if job.stage == "mia"]


def plan(cells: list[Options]) -> list[Job]:
    """The stages of all cells, each once, in an order in which each comes behind those that it
    needs.

    Cells that differ only in the number of shadow models share those; the attacks on one victim, or
    by one set of shadow models, come one after the other, as they share outputs and attack
    networks.
    """
    planner = _Planner()
    last: dict[Path, Job] = {}
    for cell in cells:
        needs = [planner.add("pretrain", cell, [])]
        held = [cell, *(release_options(cell, name) for name in cell.also)]
        needs = needs + [job for one in held for job in planner.add_versions(one, needs)]
        attack = planner.add("mia", cell, needs)
        victim, shadows = models_of(attack.options)
        for folder in (victim.folder("victim"), shadows.folder("shadow_0")):
            if last.get(folder, attack) is not attack:
                attack.after.append(last[folder])
            last[folder] = attack
    return list(planner.jobs.values())


class _Planner:
    """The jobs that were added, by what tells them apart, and which makes each victim."""

    def __init__(self) -> None:
        self.jobs: dict[tuple, Job] = {}
        self.makers: dict[Path, Job] = {}

    def add_versions(self, cell: Options, needs: list[Job]) -> list[Job]:
        """The jobs that compress the victim's and the shadows' models of a cell."""
        if cell.original:
            return []
        jobs = self.add_compression(cell, needs)
        victim, shadows = models_of(cell)
        if shadows != victim:
            if shadows.root != victim.root:
                needs = [self.add("pretrain", shadows.options, [])]
                jobs += needs
            jobs += self.add_compression(shadows.options, needs)
        return jobs

    def add_compression(self, cell: Options, needs: list[Job]) -> list[Job]:
        """The jobs that compress the models of a cell, one behind the other."""
        jobs: list[Job] = []
        if cell.pruned or not cell.quantizer:
            jobs.append(self.add(stage_of(cell.defend), cell, needs))
        if cell.quantizer:
            jobs.append(self.add("quantize", cell, needs + jobs))
        return jobs

    def add(self, stage: str, cell: Options, needs: list[Job]) -> Job:
        """The job of a cell's stage, which may be there already. Raises UserError where another
        one makes the same models."""
        options = for_stage(stage, cell)
        names = [name for name in OPTIONS if stage in (*OPTIONS[name].stages, "mia")]
        apart = what_differs(options, names, () if stage == "mia" else ("shadow_num",))
        config = study_job(options.results, len(self.jobs))
        job = self.jobs.setdefault((options.results, apart), Job(stage, options, needs, config))
        folder = models_of(options)[0].folder("victim")
        if stage != "mia" and self.makers.setdefault(folder, job) is not job:
            raise UserError(
                f"two kinds of {folder} are asked for: options that differ too little, or two "
                f"configs of one network; make two studies of them"
            )
        most = max(job.options.shadow_num, options.shadow_num)
        job.options = replace(job.options, shadow_num=most)
        return job
