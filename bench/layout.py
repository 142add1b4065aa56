"""Where everything lies under the results folder. No other module builds such a path.

results/{study}/seed_{seed}/              of a study, a results folder for each seed
    logs/{number}.json  {number}.log      what a stage was told, and what it said
results/{dataset}_{model}/
    split.npz                             each role's train, dev and test records
    attack_networks/{attack}_{digest}.pth what attacks learnt on shadow models, for any victim
    victim_model/  shadow_model_{i}/      original models
    {version}_model/                      compressed ones, and shadow_{version}_model_{i}/;
                                          version = {pruned}, {quantizer} or {pruned}_{quantizer},
                                          then [_{defend}_{arg}[_scratch]];
                                          pruned = {pruner}_{sparsity}[_x{rounds}][_rewind{epoch}]
        best.pth                          weights {name: tensor} as layers work with them, pruned
                                          ones zero
        best_mask.pth                     masks {parameter name: bool}, pruned models only
        epoch_{number}.pth                weights after an epoch of pretraining, if asked for
        manifest.json                     how, when and from what they were made; written last
        logits.npz                        outputs for an attacker's queries, made when first asked
        sensitivity.npz  views.npz        for
        generated.npz  distillation.npz
        copies.npz  distances.npz         likewise, classes and distances alone
        attacks.jsonl                     what attacks on this model found, an object a line
        scores.npz                        what each of them said of each target record
        records.csv                       the same as a table, and how far it can be relied on
        tensorboard/                      loss and accuracy on dev of each epoch, if asked for
        canaries.npz  canaries.json       canaries of its private training, and what an audit by
                                          them found
        *.resume                          state of a training that is not finished
        .*.lock, .*.lock.json, .*.part    what is held, by whom, and what is half written
        .model.sha256                     digests of best.pth and best_mask.pth, of those that they
                                          replace too: tells them from another program's while no
                                          manifest does

Whatever is read is tested against a SHA-256 digest that was written with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.options import Options
from core.files import locked

WEIGHTS, MASKS, MANIFEST = "best.pth", "best_mask.pth", "manifest.json"
SAVED_DIGESTS = ".model.sha256"
ATTACKS, SCORES, SPLIT = "attacks.jsonl", "scores.npz", "split.npz"
RECORDS = "records.csv"
REPORT, REPORT_FIGURES = "report", "report_figures"  # of which endings, in the folder of results
RESUME, ROUNDS, SCALARS = "model.resume", "rounds.resume", "tensorboard"
CANARIES, CANARY_AUDIT = "canaries.npz", "canaries.json"
ORIGINAL_INDEX = "data_index.pkl"  # the split of the original project
_SUFFIX = "_model"
# the options that a version is named after, first those of pruning
PRUNED_AFTER = ("pruner_name", "prune_sparsity", "prune_iterations", "rewind")
NAMED_AFTER = (*PRUNED_AFTER, "quantizer", "pruned", "defend", "defend_arg", "from_scratch")
PRUNING = (*PRUNED_AFTER, "prune_epochs")
QUANTIZING = ("quantizer", "pruned", "quantize_epochs")
# what each lock of a model's folder protects; any other protects the files that begin with its name
_MADE_UNDER = {
    "model": (WEIGHTS, MASKS, MANIFEST, SAVED_DIGESTS, RESUME, ROUNDS, CANARIES, "epoch_"),
    "attacks": (ATTACKS, SCORES, RECORDS),
}


@dataclass(frozen=True)
class ModelSet:
    """The victim's and the shadow models of one version, and the options that they are made with.

    Attributes:
        original: whether they are the models before compression.
        data: digest of the records; "" where only places are asked for.
        alike: versions that were made for the same purpose, of which an error's command can tell
            how these are to be made.
        moved_to: the folder of the data set and network; None = where the options say.
    """

    options: Options
    original: bool = False
    data: str = ""
    alike: tuple[ModelSet, ...] = ()
    moved_to: Path | None = None

    @classmethod
    def under_attack(cls, options: Options, data: str = "") -> ModelSet:
        """The version that options of mia.py ask for."""
        return cls(options, original=options.original, data=data)

    @property
    def root(self) -> Path:
        """The folder of the data set and network."""
        options = self.options
        return (
            self.moved_to or Path(options.results) / f"{options.dataset_name}_{options.model_name}"
        )

    @property
    def version(self) -> str:
        """The part of the folders' names that tells versions apart; "" of originals. Numbers are
        written one way: 4, 4.0 and "4" all give 4."""
        options, words = self.options, []
        if self.is_pruned:
            words += [options.pruner_name, f"{options.prune_sparsity:g}"]
            words += [f"x{options.prune_iterations}"] * (options.prune_iterations > 1)
            words += [f"rewind{options.rewind}"] * (options.rewind is not None)
        if self.quantizer:
            words.append(self.quantizer)
        if options.defend and not self.original:
            words += [options.defend, f"{options.defend_arg:g}"]
            words += ["scratch"] * options.from_scratch
        return "_".join(words)

    @property
    def quantizer(self) -> str:
        """Whose weights they have; "" of float ones."""
        return "" if self.original else self.options.quantizer

    @property
    def is_pruned(self) -> bool:
        return not self.original and (self.options.pruned or not self.options.quantizer)

    @property
    def meaningless(self) -> tuple[str, ...]:
        """The options of compression and defence that say nothing of these, and so are None in
        results of them."""
        if self.original:
            return (*PRUNING, *QUANTIZING, "defend", "defend_arg")
        return () if self.is_pruned else PRUNING

    @property
    def record(self) -> dict:
        """The options that are stored with these, see `Options.record`. With originals lie those of
        later stages too, which nobody reads."""
        unused = () if self.original else self.meaningless
        return self.options.record | dict.fromkeys(unused)

    @property
    def parent(self) -> ModelSet | None:
        """The models that these are made of; None of originals, and of those from scratch.

        A defence has a part in each step of compression: what is quantised with one was pruned with
        it.
        """
        if self.original or self.options.from_scratch:
            return None
        if self.quantizer and self.is_pruned:
            return replace(self, options=self.options.unquantized)
        return self.originals

    @property
    def lineage(self) -> list[ModelSet]:
        """What these come from, the first first, and they themselves."""
        return [*(self.parent.lineage if self.parent else []), self]

    @property
    def originals(self) -> ModelSet:
        """The models before compression."""
        alike = tuple(one.originals for one in self.alike)
        return replace(self, original=True, alike=alike)

    @property
    def undefended(self) -> ModelSet:
        """The compressed ones without a defence."""
        return replace(self, options=self.options.undefended, original=False, alike=(self,))

    @property
    def of_attacker(self) -> ModelSet:
        """The version of an attacker's shadow models: this one where the attacker knows its defence
        or there is none, else the same without a defence; where the attacker guesses its pruner,
        sparsity or network, one that has these."""
        knows = self.original or self.options.adaptive or not self.options.defend
        models = self if knows else self.undefended
        if not models.options.guess:
            return models
        return replace(models, options=models.options.guessed, alike=(self, *models.alike))

    @property
    def roles(self) -> list[str]:
        """The victim and its shadow models."""
        return ["victim", *(f"shadow_{i}" for i in range(self.options.shadow_num))]

    def folder(self, role: str) -> Path:
        """Where a role's model lies; `role` is "victim" or "shadow_{i}"."""
        who, _, index = role.partition("_")
        if who == "victim":
            return self.root / f"{self.version or 'victim'}{_SUFFIX}"
        names = ["shadow", *([self.version] if self.version else []), "model", index]
        return self.root / "_".join(names)

    def file(self, role: str, name: str) -> Path:
        """A file in a role's folder."""
        return self.folder(role) / name

    def lock(self, role: str, what: str = "model", *, wait: float = 0) -> AbstractContextManager:
        """Hold a lock of a role's folder. It is gone with the process that holds it, however that
        ends.

        Raises UserError where another process holds it after `wait` seconds, or those that the
        options say if more.
        """
        makes = _MADE_UNDER.get(what, (f"{what}.",))
        return locked(self.folder(role), what, wait=max(wait, self.options.wait), makes=makes)

    @property
    def split_file(self) -> Path:
        return self.root / SPLIT

    @property
    def attack_networks(self) -> Path:
        """The folder of what attacks learnt on shadow models."""
        return self.root / "attack_networks"


def epoch_file(epoch: int) -> str:
    """The name of the weights after an epoch of pretraining."""
    return f"epoch_{epoch}.pth"


def outputs_file(what: str) -> str:
    """The name of a model's logits or other outputs."""
    return f"{what}.npz"


def attack_network_file(name: str) -> str:
    """The name of what an attack has learnt."""
    return f"{name}.pth"


def attack_state_file(name: str) -> str:
    """The name of the state of an attack's training that is not finished."""
    return f"{name}.resume"


def study_folder(results: str, study: str, values: dict) -> Path:
    """The results folder of those cells of a study that share the values of some options."""
    words = "_".join(f"{name}_{value}" for name, value in values.items())
    return Path(results) / study / re.sub(r"[^A-Za-z0-9._+-]+", "-", words)


def study_job(results: str, number: int) -> Path:
    """The config that a study gives to a stage; beside it, with another ending, what the stage
    says."""
    return Path(results) / "logs" / f"{number:04d}.json"


def is_victim_folder(folder: Path) -> bool:
    """Whether this is the folder of a victim's model."""
    name = Path(os.path.abspath(folder)).name
    return (
        folder.is_dir()
        and name.endswith(_SUFFIX)
        and not name.startswith("shadow_")
        and any(os.path.exists(folder / file) for file in (MANIFEST, WEIGHTS, ATTACKS))
    )


def roots_of(files: Iterable[str], folder: Path, top: Path) -> Iterator[Path]:
    """The folders of data sets and networks that the files of a folder below `top` tell of."""
    if SPLIT in files:
        yield folder
    if ATTACKS in files and folder != top:
        yield folder.parent


def victim_folders(root: Path) -> list[Path]:
    """The folders of all victims of a data set and network."""
    folders = (folder for folder in root.glob(f"*{_SUFFIX}") if folder.is_dir())
    return sorted(folder for folder in folders if not folder.name.startswith("shadow_"))


def results_around(folder: Path) -> Path | None:
    """The folder of a data set and network that a path lies in; None where it lies in none."""
    folder = Path(os.path.abspath(folder))
    return next((parent for parent in folder.parents if os.path.exists(parent / SPLIT)), None)
