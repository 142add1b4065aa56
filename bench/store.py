"""Every path and every file format under the results folder. No other file builds a path.

    results/{study}/seed_{seed}/                           of a study, a results folder for each seed
        logs/{number}.json  {number}.log                   what a stage was told, and what it said
    results/{dataset}_{model}/
        split.npz                                      each role's train, dev and test records
        attack_networks/{attack}_{digest}.pth          what attacks learnt on shadow models, for any victim
        victim_model/  shadow_model_{i}/               original models
        {version}_model/  shadow_{version}_model_{i}/  pruned ones;
                                                       version = {pruner}_{sparsity}[_{defend}_{arg}[_scratch]]
            best.pth                                   weights {name: tensor}, pruned ones zero
            best_mask.pth                              masks {parameter name: bool}, pruned models only
            manifest.json                              how, when and from what they were made; written last
            logits.npz  sensitivity.npz  generated.npz answers to an attacker's queries, made when first asked for
            attacks.jsonl                              what attacks on this model found, an object a line
            scores.npz                                 what each of them said of each target record
            tensorboard/                               loss and accuracy on dev of each epoch, if asked for
            *.resume                                   state of a training that is not finished
            .*.lock, .*.lock.json, .*.part             what is held, by whom, and what is half written
            .model.sha256                              digests of best.pth and best_mask.pth, of those that they replace
                                                       too: tells them from another program's while no manifest does

Whatever is read is tested against a SHA-256 digest that was written with it.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from attackers import ATTACKS, VERDICTS, Verdict
from attackers import version as attack_version
from attackers.metrics import INTERVALS, measures
from bench.options import OPTIONS, command, record, shown
from core.console import UserError, say
from core.files import (
    atomic_write,
    digested,
    locked,
    packed,
    packed_arrays,
    read_arrays,
    read_digested,
    read_sealed,
    sealed,
    sealed_json,
    tested,
    unpacked,
    user_error_if_damaged,
    write,
)
from core.inputs import check_folder
from datasets import SPLITS, RoleSplit, check_even
from defenders import DEFENDERS
from models import MODELS

if TYPE_CHECKING:
    import torch

    from bench.callbacks import Resume, Scalars

_CHECKPOINT, _MASK, _MANIFEST, _MODEL, _SCALARS = (
    "best.pth",
    "best_mask.pth",
    "manifest.json",
    "model",
    "tensorboard",
)
_PUT = ".model.sha256"
_PARTS = ("train", "dev", "test")
_LONG = 7 * 24 * 3600.0  # seconds; a lock is gone with the process that holds it
_INDEX = "data_index.pkl"  # the split of the original project
ORIGINAL = ""  # the version of a model that is not pruned
# what a reader's options must share with those that a model was made with; its maker's must share all of _MAKING
_SAME = ("seed", "train_seed", "dataset_name", "model_name", "num_cls", "input_dim")
_SAME_PRUNED = (*_SAME, "pruner_name", "prune_sparsity", "defend", "defend_arg")
_PRUNING = (*_SAME_PRUNED[len(_SAME) :], "prune_epochs")
_MAKING = {
    stage: tuple(
        name
        for name, option in OPTIONS.items()
        if option.result and stage in option.stages.split() and name not in other
    )
    for stage, other in {
        "pretrain": ("shadow_num", "data_path", "split"),
        "prune": ("shadow_num", "data_path", "epochs"),
        "prune_dp": ("shadow_num", "data_path", "epochs"),
    }.items()
}
_ATTACK_OPTIONS = {
    option for name in ATTACKS for option in ATTACKS[name].options.get("option_names", ())
}


@dataclass(frozen=True)
class Checkpoint:
    """A trained model.

    Attributes:
        weights: state dict, pruned weights zero.
        options: those that it was made with, see `options.record`.
        epoch: the one whose weights these are; 0 = before the first.
        ran: how many epochs were run.
        accuracy: of these weights on train, dev and test, fractions.
        split: digest of its role's part of the split.
        data: digest of the records.
        parent: digest of the checkpoint that it was pruned from; "" for an original, and for one from scratch.
        masks: {parameter name: bool tensor}, None for an original.
        privacy: what differentially private training guarantees (see `defenders.accounting`); None without it.
        digest: of its own weights as they were read; "" where they have not been.
    """

    weights: dict[str, torch.Tensor]
    options: dict
    epoch: int
    ran: int
    accuracy: dict[str, float]
    split: str
    data: str
    parent: str
    masks: dict[str, torch.Tensor] | None = None
    privacy: dict | None = None
    digest: str = ""


class Store:
    """The files of one data set and network.

    Args:
        options: as `options.parse` returns them.
        data: digest of the records.
    """

    def __init__(self, options: SimpleNamespace, data: str):
        self.options, self.data = options, data
        self.akin: list[
            str
        ] = []  # versions that were made for the same purpose as those of these options
        self.root = Path(options.results) / f"{options.dataset_name}_{options.model_name}"

    @property
    def pruned(self) -> str:
        """The version of a pruned model. Numbers are written one way: 4, 4.0 and "4" all give 4."""
        options = self.options
        name = f"{options.pruner_name}_{options.prune_sparsity:g}"
        if options.defend:
            name += f"_{options.defend}_{options.defend_arg:g}"
        return f"{name}_scratch" if options.from_scratch else name

    def undefended(self) -> Store:
        """The same without a defence."""
        store = Store(
            SimpleNamespace(
                **{**vars(self.options), "defend": "", "defend_arg": None, "from_scratch": False}
            ),
            self.data,
        )
        store.akin = [self.pruned]
        return store

    def folder(self, role: str, version: str) -> Path:
        """Where a role's model lies; `role` is "victim" or "shadow_{i}"."""
        who, _, index = role.partition("_")
        if who == "victim":
            return self.root / f"{version or 'victim'}_model"
        return self.root / "_".join(["shadow", *([version] if version else []), "model", index])

    def roles(self) -> list[str]:
        """The victim and its shadow models."""
        return ["victim", *(f"shadow_{i}" for i in range(self.options.shadow_num))]

    def common(self) -> list[Path]:
        """What belongs to no single model."""
        return [self.root / "split.npz", self.root / "attack_networks"]

    @property
    def record(self) -> dict:
        """The options as they are stored with a result."""
        return record(self.options)

    def digest(self, role: str, version: str) -> str:
        """Tells a stored checkpoint from any other; "" where there is none."""
        path = self.folder(role, version) / _MANIFEST
        if not os.path.exists(path):
            return ""
        manifest = read_sealed(path)
        with user_error_if_damaged(path):
            return manifest["files"][_CHECKPOINT]

    def parent(self, role: str, version: str) -> str:
        """The digest of the checkpoint that a model is pruned from; "" where it is from none."""
        return self.digest(role, ORIGINAL) if version and not self.options.from_scratch else ""

    def save_split(self, parts: dict[str, RoleSplit]) -> Path:
        """Store the split. One that lies there stays if it says the same of more shadows.

        Raises UserError where it says otherwise or cannot be read, unless the options say `fresh`.
        """
        path = self.root / "split.npz"
        with ExitStack() as locks:
            locks.enter_context(locked(self.root, "split", wait=60, makes=["split.npz"]))
            if os.path.exists(path) and self.options.fresh:
                for role in (
                    parts
                ):  # those at work on models of the split that goes are not left without it
                    locks.enter_context(self.making(role, ORIGINAL))
            return self._save_split(path, parts)

    def _save_split(self, path: Path, parts: dict[str, RoleSplit]) -> Path:
        if os.path.exists(path) and not self.options.fresh:
            with _unless_fresh():
                kind, have = self._split()
            if kind != self.options.split:
                raise UserError(
                    f"{path} is of --split {kind}, not {self.options.split}: use another --results "
                    f"folder, or start over with --fresh"
                )
            if any(
                not np.array_equal(have[key], indices)
                for key, indices in _arrays(parts).items()
                if key in have
            ):
                seed = self._made_with(ORIGINAL, "victim").get("seed", self.options.seed)
                again = (
                    "give that seed again"
                    if seed == self.options.seed
                    else f"give --seed {seed} again"
                )
                raise UserError(
                    f"{path} splits other records or was made with another seed: {again}, "
                    f"use another --results folder, or start over with --fresh"
                )
            if all(key in have for key in _arrays(parts)):
                return path
        with atomic_write(path) as file:
            np.savez(file, kind=np.array(self.options.split), **_arrays(parts))
        return path

    def _split(self) -> tuple[str, dict[str, np.ndarray]]:
        path = self.root / "split.npz"
        with user_error_if_damaged(path), np.load(path, allow_pickle=False) as arrays:
            have = {key: arrays[key] for key in arrays.files}
            kind = str(have.pop("kind", "paper"))
            numbers = all(indices.dtype == np.int64 for indices in have.values())
            if not (kind in SPLITS and "victim_train" in have and numbers):
                raise ValueError("it holds something else")
            return kind, have

    def load_split(self, n: int) -> dict[str, RoleSplit]:
        """The split as pretrain.py stored it, of the victim and the first `shadow_num` shadows.

        Sets `options.split`, which later stages follow. Raises UserError where there is none, one of fewer shadows, or
        one of another number of records than `n`; and where nothing can be written beside it, before any work is done
        in vain.
        """
        path = self.root / "split.npz"
        roles = self.roles()
        if not os.path.exists(path):  # unlike Path.exists, False also for a name that is too long
            for role in roles:
                self._refuse_foreign(role, ORIGINAL)
            check_folder("results", self.options.results)
            self._not_yet(path, ORIGINAL)
        self.options.split, have = self._split()
        with user_error_if_damaged(path):
            victim_and_others = [have[f"{role}_{name}"] for role in roles[:2] for name in _PARTS]
        if f"{roles[-1]}_{_PARTS[-1]}" not in have:
            self._not_yet(self.folder(roles[-1], ORIGINAL), ORIGINAL)
        if self.options.split == "inout":
            check_even(self.options.shadow_num)
        if not os.access(self.root, os.W_OK):
            raise UserError(f"cannot write in {self.root}: permission denied")
        count = len(np.unique(np.concatenate(victim_and_others)))
        if count != n:
            raise UserError(
                f"{path} splits {count} records, the data set has {n}: run "
                f"`{self._remake(ORIGINAL)}`, or use another --results folder"
            )
        return {role: RoleSplit(*(have[f"{role}_{name}"] for name in _PARTS)) for role in roles}

    def check_place(self, version: str) -> None:
        """Raise UserError where making this version would replace a file of another program, or one that cannot be
        read, unless the options say `fresh`. To be called before any work."""
        if self.options.fresh:
            return
        for role in self.roles():
            self._refuse_foreign(role, version)
            with _unless_fresh():
                self.digest(role, version)
        index = self.root / _INDEX
        if (
            version == ORIGINAL
            and os.path.exists(index)
            and not os.path.exists(self.root / "split.npz")
        ):
            raise UserError(
                f"{index} lies there without a split.npz: {self.root} is of the original project; use "
                f"another --results folder, or --fresh to write beside it"
            )

    def _refuse_foreign(self, role: str, version: str) -> None:
        path = self._foreign(role, version)
        if path is not None:
            raise UserError(
                f"{_MANIFEST} is missing beside {path}, which another program or another version has made: "
                f"to replace it run `{self._remake(version, role)}`, or use "
                f"another --results folder"
            )

    def _foreign(self, role: str, version: str) -> Path | None:
        """A checkpoint or mask that has no manifest, and that no `save` has put there; None where there is none."""
        folder = self.folder(role, version)
        if os.path.exists(folder / _MANIFEST):
            return None
        put = self._put(folder)
        return next(
            (
                folder / name
                for name in (_CHECKPOINT, _MASK)
                if os.path.lexists(folder / name) and _file_digest(folder / name) not in put
            ),
            None,
        )

    @staticmethod
    def _put(folder: Path) -> set[str]:
        """Digests of the files that `save` has put into a folder."""
        path = folder / _PUT
        if not os.path.exists(path):
            return set()
        with user_error_if_damaged(path):
            return set(path.read_text(encoding="ascii").split())

    def save(
        self, role: str, version: str, checkpoint: Checkpoint, *, device: str, start: float
    ) -> Path:
        """Store a model, all files or none; with its manifest it counts as finished."""
        import torch

        folder = self.folder(role, version)
        contents = {_CHECKPOINT: checkpoint.weights} | (
            {_MASK: checkpoint.masks} if checkpoint.masks else {}
        )
        ready = {name: packed(content) for name, content in contents.items()}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in ready.items()}
        facts = {
            name: value
            for name, value in vars(checkpoint).items()
            if name not in ("weights", "masks", "digest")
        }
        when = [
            datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")
            for at in (start, time.time())
        ]
        made = {
            "start": when[0],
            "end": when[1],
            "device": device,
            "workers": self.options.workers,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "commit": _commit(),
        }
        ready = {_MANIFEST: sealed_json(facts | {"files": files, "made": made})} | ready
        ours = list(files.values())
        if (
            self._foreign(role, version) is None
        ):  # those that are replaced, should a kill leave them beside new ones
            ours += [
                _file_digest(folder / name)
                for name in (_CHECKPOINT, _MASK)
                if os.path.exists(folder / name)
            ]
        write(folder / _PUT, "".join(f"{line}\n" for line in dict.fromkeys(ours)).encode())
        with (
            ExitStack() as places
        ):  # all is on disk before anything is replaced; the manifest's place is taken last
            for name, content in ready.items():
                file = places.enter_context(atomic_write(folder / name))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            (folder / _MANIFEST).unlink(missing_ok=True)
        (folder / f"{_MODEL}.resume").unlink(missing_ok=True)
        return folder / _CHECKPOINT

    def load(self, role: str, version: str, part: RoleSplit) -> Checkpoint:
        """A model, on the CPU.

        Raises:
            UserError: it is not there; it is damaged; or it was made with other options, data or split than are
                asked for now, or from an original that has since been trained again.
        """
        found = self._read(role, version)
        if found is None:
            self._refuse_foreign(role, version)
            self._not_yet(self.folder(role, version) / _CHECKPOINT, version)
        parent = self.parent(role, version)
        self._compare(
            found,
            role,
            version,
            self._facts([part], _SAME_PRUNED if version else _SAME, None, [parent]),
        )
        return found

    def finished(
        self, role: str, version: str, part: RoleSplit, *, precision: str, parent: str
    ) -> Checkpoint | None:
        """A model that need not be made again; None where there is none, or the options say `fresh`.

        Raises UserError where there is one that was made otherwise than is now asked for, is damaged, or is another
        program's.
        """
        if not self.options.fresh:
            self._refuse_foreign(role, version)
        found = None if self.options.fresh else self._read(role, version)
        if found is not None:
            self._compare(
                found,
                role,
                version,
                self._facts([part], _MAKING[self._maker(version)], precision, [parent]),
            )
        return found

    def _read(self, role: str, version: str) -> Checkpoint | None:
        folder = self.folder(role, version)
        if not os.path.exists(folder / _MANIFEST):
            return None
        manifest = read_sealed(folder / _MANIFEST)
        with user_error_if_damaged(folder / _MANIFEST):
            del manifest["made"]
            files = manifest.pop("files")
            if (
                manifest.get("privacy") is not None
            ):  # before there was secret noise, it followed from the seed
                manifest["options"] = {"dp_noise": "seeded"} | manifest["options"]
            found = Checkpoint({}, **manifest, digest=files[_CHECKPOINT])
        if not all(
            os.path.exists(folder / name) for name in files
        ):  # removed, as the error of a damaged file says
            return None
        contents = {name: unpacked(folder / name, digest) for name, digest in files.items()}
        return dataclasses.replace(found, weights=contents[_CHECKPOINT], masks=contents.get(_MASK))

    def _facts(
        self,
        parts: list[RoleSplit],
        names: tuple[str, ...],
        precision: str | None,
        parents: list[str],
    ) -> dict:
        """What must be the same; of several models, of all of them."""
        asked = self.record | {"precision": precision}
        return {name: asked[name] for name in names} | {
            "split": " ".join(map(digest, parts)),
            "data": self.data,
            "parent": " ".join(parents),
        }

    def _compare(self, found: Checkpoint, role: str, version: str, wanted: dict) -> None:
        self._refuse(
            self.folder(role, version) / _CHECKPOINT,
            found.options | vars(found),
            wanted,
            role,
            version,
        )

    def _refuse(self, path: Path, have: dict, wanted: dict, role: str, version: str) -> None:
        said = {
            "split": "another split",
            "data": "another data set",
            "parent": f"another original than now lies in {self.folder(role, ORIGINAL)}",
        }
        differ = [
            said.get(name) or f"{name} {have.get(name)!r} (now {value!r})"
            for name, value in wanted.items()
            if have.get(name) != value
        ]
        if differ:
            names = [name for name, value in wanted.items() if have.get(name) != value]
            raise UserError(
                f"{path} was made with {', '.join(differ)}: {self._keeping(names, have)}to make it anew "
                f"run `{self._remake(version, role, wanted)}`, or use another --results folder"
            )

    def _keeping(self, names: list[str], have: dict) -> str:
        """How to ask for a model that differs from what is asked for in these options; "" where no option does it."""
        stage = self.options.stage
        if "split" in names:  # the digest of its records, which no option gives
            return ""
        if not all(
            name in OPTIONS and stage in OPTIONS[name].stages.split() and have.get(name) is not None
            for name in names
        ):
            return ""
        if "seed" in names and have["seed"] == have.get("train_seed"):  # which follows from it
            names = [name for name in names if name != "train_seed"]
        return f"to use it give {' '.join(f'--{name} {shown(have[name])}' for name in names)}; "

    def _remake(self, version: str, role: str = "victim", asked: Iterable[str] = ()) -> str:
        """The command that makes models of a version anew, as they were but for the options in `asked`."""
        return f"{self._command(version, role, asked)} --fresh"

    def _command(self, version: str, role: str = "victim", asked: Iterable[str] = ()) -> str:
        """The command of the stage that makes a version.

        It asks for what the models that are there were made with, this role's first, so that it neither refuses nor
        makes them anew. Options in `asked` and those that tell versions apart stay as they are.
        """
        stage, options = self._maker(version), SimpleNamespace(**vars(self.options))
        asked = {*asked, *(_MAKING[stage] if stage == options.stage else ())}
        if stage == "pretrain" and options.stage != stage:
            options.split = self._split_kind()
        for name, value in self._made_with(version, role).items():
            if name not in asked:
                setattr(options, name, value)
        shadows = self._shadows(version)
        options.shadow_num = max(
            options.shadow_num, shadows + shadows % 2 if options.split == "inout" else shadows
        )
        return command(stage, options)

    def _made_with(self, version: str, role: str) -> dict:
        """The options of models that are there: of this version, else of one that was made for the same purpose, else
        of the originals. {} where there are none that can be read."""
        of_version = {*_SAME_PRUNED[len(_SAME) :], "from_scratch", "precision"}
        for like in dict.fromkeys([version, *self.akin, self.undefended().pruned, ORIGINAL]):
            for one in dict.fromkeys([role, *self.roles()]):
                with suppress(UserError, KeyError, TypeError):
                    manifest = read_sealed(self.folder(one, like) / _MANIFEST)
                    made = {
                        name: self._option_of(manifest, name)
                        for name in _MAKING[self._maker(version)]
                    }
                    if like == version:
                        return made | {"precision": _unless_default(manifest)}
                    if like == ORIGINAL:
                        made |= {
                            name: self._option_of(manifest, name)
                            for name in ("epochs", "prune_epochs")
                        }
                    return {name: value for name, value in made.items() if name not in of_version}
        return {}

    def _split_kind(self) -> str:
        """Of which split the originals that are there were made, also where split.npz itself is gone."""
        for role in self.roles():
            with suppress(UserError, KeyError, TypeError):
                return read_sealed(self.folder(role, ORIGINAL) / _MANIFEST)["options"]["split"]
        return self.options.split

    @staticmethod
    def _option_of(manifest: dict, name: str):
        """What a model was made with; manifests from before there was an option do not name it."""
        if name == "dp_noise" and manifest.get("privacy") is not None:
            return manifest["options"].get(name, "seeded")
        return manifest["options"].get(name, OPTIONS[name].when_missing)

    def _shadows(self, version: str) -> int:
        """How many shadow models of a version are there, finished or, of the originals, in the split."""
        with suppress(UserError, OSError):
            if version == ORIGINAL:
                return sum(
                    key.startswith("shadow_") and key.endswith("_train") for key in self._split()[1]
                )
            return sum(
                os.path.exists(folder / _MANIFEST)
                for folder in self.root.glob(self.folder("shadow_*", version).name)
            )
        return 0

    def resume(
        self,
        roles: list[str],
        version: str,
        parts: dict[str, RoleSplit],
        *,
        precision: str,
        device: str,
        parents: list[str],
    ) -> Resume:
        """Where the training of one role's model, or of a stack of several, keeps its state."""
        from bench.callbacks import Resume

        role = roles[0]
        facts = self._facts(
            [parts[one] for one in roles], _MAKING[self._maker(version)], precision, parents
        )
        path = self.folder(role, version) / f"{_MODEL}.resume"
        return Resume(
            path,
            facts,
            [device, *roles],
            self.options,
            functools.partial(self._refuse, role=role, version=version),
        )

    def scalars(self, roles: list[str], version: str) -> Scalars:
        """Where the training of one role's model, or of a stack of several, writes down what TensorBoard shows."""
        from bench.callbacks import Scalars

        return Scalars([self.folder(role, version) / _SCALARS for role in roles], self.options)

    def network(
        self, name: str, facts: list, train: Callable[[list], dict], *, device: str
    ) -> dict:
        """Weights of an attack's network: those that lie there, or else `train(callbacks)`'s, which are kept.

        An attacker who has trained on shadow models once need not do it again for the next victim. Whoever comes while
        another process trains the same network waits for it.

        Args:
            facts: all that the weights depend on but the option `threads` and the device: arrays, and what its `repr`
                tells from others, such as a network.
        """
        from bench.callbacks import Resume

        said = [
            array_digest(fact) if isinstance(fact, np.ndarray) else repr(fact) for fact in facts
        ]
        facts = {"network": name, "device": device, "threads": self.options.threads, "facts": said}
        folder, name = self.common()[1], f"{name}_{array_digest(np.array(json.dumps(facts)))[:16]}"
        path = folder / f"{name}.pth"
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(folder, name, wait=2, makes=[f"{name}."]))
            except UserError as busy:
                say(f"waiting for a network of this attack: {busy}")
                lock.enter_context(locked(folder, name, wait=_LONG, makes=[f"{name}."]))
            if os.path.exists(path) and not self.options.fresh:
                return read_digested(path)
            resume = Resume(
                folder / f"{name}.resume", facts, [device], self.options, _refuse_other_network
            )
            weights = train([resume])
            write(path, digested(weights))
            resume.path.unlink(missing_ok=True)
        return weights

    def attack_lock(self, name: str) -> str:
        """What `making` locks for an attack."""
        return f"{name}_adaptive" if self.options.adaptive else name

    @contextmanager
    def making(self, role: str, version: str, what: str = _MODEL, *, wait: float = 0):
        """Hold the lock of a model's folder. It is gone with the process that holds it, however that ends.

        Raises UserError where another process holds it after `wait` seconds, or those that the options say if more.
        """
        makes = {
            _MODEL: (_CHECKPOINT, _MASK, _MANIFEST, _PUT, f"{_MODEL}.resume"),
            "attacks": ("attacks.jsonl", "scores.npz"),
        }.get(what, (f"{what}.",))
        with locked(
            self.folder(role, version), what, wait=max(wait, self.options.wait), makes=makes
        ):
            yield

    def matchup_digest(self, version: str, shadows: Store, shadow_version: str) -> str | None:
        """The digest of the models that lie there now; None where one is gone or another's child."""
        made = [self._made("victim", version)]
        made += [
            shadows._made(f"shadow_{i}", shadow_version) for i in range(self.options.shadow_num)
        ]
        return matchup_digest(made) if all(made) else None

    def _made(self, role: str, version: str) -> SimpleNamespace | None:
        path = self.folder(role, version) / _MANIFEST
        if not os.path.exists(path):
            return None
        said, original = read_sealed(path), self.parent(role, version)
        with user_error_if_damaged(path):
            parent, digest = said["parent"], said["files"][_CHECKPOINT]
        return SimpleNamespace(parent=original, digest=digest) if parent == original else None

    def answers(
        self,
        role: str,
        version: str,
        what: str,
        facts: dict,
        ask: Callable[[], np.ndarray] | None,
        *,
        records: np.ndarray | None,
        fresh: bool,
    ) -> np.ndarray:
        """A model's answers to an attacker: those that lie there of just these facts, else `ask()`'s, which are kept.

        Args:
            what: logits, sensitivity or generated.
            facts: all that they depend on.
            ask: None = they must be there.
            records: numbers of the records asked, in order, which are kept beside the answers; None of those made up.
            fresh: ask in any case.
        Raises UserError where they must be there and another command has replaced them.
        """
        path = self.folder(role, version) / f"{what}.npz"
        with self.making(role, version, what, wait=600):
            if os.path.exists(path) and not fresh:
                have, arrays = read_arrays(path)
                if have == facts:
                    return arrays["answers"]
            if ask is None:
                raise UserError(f"{path} has been replaced by another command: give this one again")
            answers = ask()
            asked = {} if records is None else {"records": records}
            write(path, packed_arrays(facts, {"answers": answers} | asked))
        return answers

    def record_attack(
        self,
        attack: str,
        version: str,
        victim: Checkpoint,
        models: str,
        device: str,
        found: dict[str, dict],
        said: dict[str, Verdict],
        asked: dict[str, np.ndarray],
    ) -> Path:
        """Write what an attack on a victim found: a line for each verdict, in place of that of the same options.

        A line is an object: `attack`, its measures, the settings that were `chosen` on the shadow models, the victim's
        `train_accuracy` and `test_accuracy`, the `matchup_digest` of victim and shadows, the device, all options, those
        of training as they were then, what its arrays in scores.npz are called after (their content), and the digest of
        all that.

        Args:
            found, said: measures of each verdict, see `metrics.measures`, and the verdict itself.
            asked: the targets' `records`, `labels` and `member`, (n,).
        """
        own = self._attack_options(version, attack)
        where = {name: getattr(self.options, name) for name in ("attacks", "data_root", "results")}
        told = {
            name: value for name, value in victim.options.items() if name not in _ATTACK_OPTIONS
        }
        told |= own | where | {"device": device}
        new, targets = {}, array_digest(*asked.values())[:8]
        new |= {f"{name}_{targets}": array for name, array in asked.items()}
        lines = []
        for name, verdict in said.items():
            scores = [verdict.scores, np.asarray(verdict.threshold)]
            key = f"{name}_{array_digest(*scores)[:8]}"
            new |= {key: scores[0], f"{key}_threshold": scores[1]}
            chosen = {"chosen": verdict.chosen} if verdict.chosen else {}
            lines.append(
                {
                    "attack": name,
                    "version": attack_version(name),
                    **found[name],
                    **chosen,
                    "train_accuracy": victim.accuracy["train"],
                    "test_accuracy": victim.accuracy["test"],
                    "models": models,
                    "scores": key,
                    "targets": targets,
                    **told,
                }
            )

        folder = self.folder("victim", version)
        with self.making("victim", version, "attacks", wait=60):
            have, before = self._before(version)
            # first the scores, those of lines that go now included: at no time is a line without
            used = {name for line in before for name in _arrays_of(line)}
            arrays = {name: array for name, array in have.items() if name in used} | new
            write(folder / "scores.npz", packed_arrays({}, dict(sorted(arrays.items()))))
            lines += [
                line
                for line in before
                if set(_arrays_of(line)) <= set(arrays)
                and not (line["attack"] in found and self._same_attack(line, own))
            ]
            order = {
                name: place for place, name in enumerate(VERDICTS)
            }  # whichever was finished first
            lines.sort(key=lambda line: (order.get(line["attack"], len(order)), json.dumps(line)))
            _write_lines(folder / "attacks.jsonl", lines)
        return folder / "attacks.jsonl"

    def update_measures(self, version: str) -> int:
        """Write anew the measures whose intervals are by an older method (see `remeasured`); returns how many lines
        these were. Lines that cannot be measured any more stay as they are, and nobody reads them."""
        path = self.folder("victim", version) / "attacks.jsonl"
        if self.options.fresh:  # `record_attack` keeps what can be read of a damaged file
            return 0
        with _unless_fresh():
            before = _read_lines(path)
        if all(line.get("intervals") == INTERVALS for line in before):
            return 0
        with self.making("victim", version, "attacks", wait=60):
            before = _read_lines(path)
            lines, gone = remeasured(before, path.with_name("scores.npz"))
            updated = sum(line.get("intervals") != INTERVALS for line in before) - len(gone)
            if updated:
                _write_lines(path, lines + gone)
        return updated

    def _before(self, version: str) -> tuple[dict[str, np.ndarray], list[dict]]:
        """What scores.npz and attacks.jsonl hold; where the options say `fresh`, as much of it as can be read."""
        folder, have = self.folder("victim", version), {}
        if not self.options.fresh:
            lines = _read_lines(
                folder / "attacks.jsonl"
            )  # those by older definitions of their attacks too
            return self._scores(version), remeasured(lines, folder / "scores.npz")[0]
        try:
            have = self._scores(version)
        except UserError:
            say(f"{folder / 'scores.npz'}: replaced, as it cannot be read")
        lines, problem = read_lines(folder / "attacks.jsonl")
        if problem:
            say(
                f"{folder / 'attacks.jsonl'}: replaced, with the lines that can be read ({problem})"
            )
        return have, lines

    def _attack_options(self, version: str, attack: str) -> dict:
        """The options that an attack's result depends on."""
        others = _ATTACK_OPTIONS - set(ATTACKS[attack].options.get("option_names", ()))
        own = {
            name: value
            for name, value in self.record.items()
            if "mia" in OPTIONS[name].stages.split() and name not in others
        }
        return own | (dict.fromkeys(_PRUNING) if version == ORIGINAL else {})

    def _same_attack(self, line: dict, own: dict) -> bool:
        return all(
            line.get(name, OPTIONS[name].when_missing if name in OPTIONS else None) == value
            for name, value in own.items()
        )

    def recorded(self, attacks: Iterable[str], version: str, models: str) -> list[str]:
        """Those attacks of which all verdicts are recorded of these models and options, and their scores."""
        with _unless_fresh():
            scores, before = set(self._scores(version)), self.attacks(version)
        lines = [
            line for line in before if line["models"] == models and set(_arrays_of(line)) <= scores
        ]

        def complete(attack: str) -> bool:
            own = self._attack_options(version, attack)
            names = {verdict for verdict, of in VERDICTS.items() if of == attack}
            return names <= {line["attack"] for line in lines if self._same_attack(line, own)}

        return [attack for attack in attacks if complete(attack)]

    def _scores(self, version: str) -> dict[str, np.ndarray]:
        path = self.folder("victim", version) / "scores.npz"
        return read_arrays(path)[1] if os.path.exists(path) else {}

    def attacks_on(self, version: str, models: str | None) -> list[dict]:
        """What has been found of just these models (a digest), with the options of attacks as they are now."""
        own = {
            name: getattr(self.options, name)
            for name in (*_ATTACK_OPTIONS, "train_seed", "threads")
        }
        return [
            line
            for line in self.attacks(version)
            if line["models"] == models
            and all(line.get(name, value) == value for name, value in own.items())
        ]

    def attacks(self, version: str) -> list[dict]:
        """What attacks on a victim have found so far, as `record_attack` wrote it, all by the present definitions of
        attacks and intervals; lines from before there were scores are left out."""
        folder = self.folder("victim", version)
        lines = [
            line for line in _read_lines(folder / "attacks.jsonl") if _of_present_version(line)
        ]
        return remeasured(lines, folder / "scores.npz")[0]

    def _maker(self, version: str) -> str:
        """The stage that makes models of this version."""
        return (
            DEFENDERS[self.options.defend].options.get("stage", "prune") if version else "pretrain"
        )

    def _not_yet(self, path: Path, version: str):
        raise UserError(f"{path} is not there: first run `{self._command(version)}`")


def study_folder(results: str, study: str, said: dict) -> Path:
    """The results folder of those cells of a study that share the options in `said`."""
    words = "_".join(f"{name}_{value}" for name, value in said.items())
    return Path(results) / study / re.sub(r"[^A-Za-z0-9._+-]+", "-", words)


def study_job(results: str, number: int) -> Path:
    """The config that a study gives to a stage; beside it, with another ending, what the stage says."""
    return Path(results) / "logs" / f"{number:04d}.json"


@contextmanager
def _unless_fresh():
    """Say of a file that cannot be read that --fresh replaces it: another program may have made it."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{error}; if it is another program's, use another --results folder, or --fresh to replace it"
        ) from error


def _file_digest(path: Path) -> str:
    """SHA-256 of a file's content; "" of what is no file."""
    if not path.is_file():
        return ""
    with user_error_if_damaged(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unless_default(manifest: dict) -> str | None:
    """The precision that a model was trained in; None where `core.devices.choose_precision` takes it by itself."""
    options, device = manifest["options"], manifest["made"]["device"]
    if options["defend"] == "dp":
        return None
    convolves = "Conv2d" in MODELS[options["model_name"]].options["layers"]
    usual = "bf16" if convolves and device != "cpu" else "fp32"
    return None if options["precision"] == usual else options["precision"]


def _refuse_other_network(path: Path, have: dict, wanted: dict) -> None:
    if have != wanted:  # hardly ever: its name has their digest
        raise UserError(f"{path} is the state of another network: start over with --fresh")


@dataclass(frozen=True, eq=False)
class VictimResults:
    """What lies in the folder of a victim, for who reads results without options.

    Attributes:
        folder: of the victim.
        lines: what attacks on the models that lie there now have found, an object a verdict.
        stale: how many more lines there are, on models that are gone or have been made anew, or by another definition
            of the attack.
        manifest: of the victim; {} where it is not finished, or cannot be read.
        unmeasured: how many more lines there are, with intervals by an older method, whose scores are gone.
        problems: what of its files was left out, and why; more is added when they are read.
    """

    folder: Path
    lines: list[dict]
    stale: int
    manifest: dict
    unmeasured: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    def add_problem(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    @functools.cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """The arrays of scores.npz, see `_arrays_of`; {} where it cannot be read."""
        try:
            return read_arrays(self.folder / "scores.npz")[1]
        except UserError as error:
            self.add_problem(_without_remedy(error))
            return {}

    def truth(self, line: dict) -> dict[str, np.ndarray] | None:
        """The `records`, `labels` and `member` (n,) of a line's targets, their `scores` and the `threshold`; None where
        scores.npz lacks them."""
        scores, threshold, *rest = _arrays_of(line)
        if not {scores, threshold, *rest} <= set(self.scores):
            if self.scores:
                self.add_problem(
                    f"{self.folder / 'scores.npz'} lacks the scores of {line['attack']}"
                )
            return None
        return {name.split("_")[0]: self.scores[name] for name in rest} | {
            "scores": self.scores[scores],
            "threshold": self.scores[threshold],
        }

    def answers(self, what: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Numbers of the records asked (N,) and the victim's answers (N, C); None where there are none of this victim,
        or from before the numbers were kept, or that can be read."""
        path = self.folder / f"{what}.npz"
        if not os.path.exists(path):
            return None
        try:
            facts, arrays = read_arrays(path)
        except UserError as error:
            self.add_problem(_without_remedy(error))
            return None
        current = facts.get("model") == self.manifest.get("files", {}).get(_CHECKPOINT)
        return (
            (arrays["records"], arrays["answers"])
            if current and {"records", "answers"} <= set(arrays)
            else None
        )


def attacked(results: Path, *, unreadable: list[str] | None = None) -> list[VictimResults]:
    """All victims below a folder, at any depth, those not attacked yet included, or the one whose folder it is.

    Args:
        unreadable: what cannot be read of the folders below is added to it.
    Raises UserError where there is no such folder.
    """

    def fail(error: OSError):
        said = f"cannot read {error.filename}: {error.strerror}"
        if Path(error.filename) == results:
            raise UserError(
                f"{said}: name a folder of results, "
                f"such as {results_around(results) or 'that of --results'}"
            ) from error
        if unreadable is not None:
            unreadable.append(said)

    if _is_of_model(results):
        return [_attacked(results)]
    roots = set()
    for folder, _, files in os.walk(results, onerror=fail):
        roots |= {Path(folder)} if "split.npz" in files else set()
        roots |= (
            {Path(folder).parent} if "attacks.jsonl" in files and Path(folder) != results else set()
        )
    return [
        _attacked(folder)
        for root in sorted(roots)
        for folder in sorted(root.glob(f"*_{_MODEL}"))
        if folder.is_dir() and not folder.name.startswith("shadow_")
    ]


def _is_of_model(folder: Path) -> bool:
    """Whether this is the folder of a victim."""
    name = Path(os.path.abspath(folder)).name
    return (
        folder.is_dir()
        and name.endswith(f"_{_MODEL}")
        and not name.startswith("shadow_")
        and any(os.path.exists(folder / file) for file in (_MANIFEST, _CHECKPOINT, "attacks.jsonl"))
    )


def results_around(folder: Path) -> Path | None:
    """The folder of a data set and network that a path lies in; None where it lies in none."""
    folder = Path(os.path.abspath(folder))
    return next((parent for parent in folder.parents if os.path.exists(parent / "split.npz")), None)


def _without_remedy(error: UserError) -> str:
    """What cannot be read and why; not that it be removed, which is for a stage that makes it anew."""
    return str(error).partition(": it is damaged")[0]


def _attacked(folder: Path) -> VictimResults:
    manifest, told, problems = folder / _MANIFEST, {}, []
    root = Path(os.path.abspath(folder)).parent
    try:
        told = read_sealed(manifest) if os.path.exists(manifest) else {}
    except UserError as error:
        problems.append(_without_remedy(error))
    if not all(isinstance(told.get(name) or {}, dict) for name in ("files", "privacy")):
        problems.append(f"{manifest} is of another version")
        told = {}

    @functools.cache
    def now(original: bool, adaptive: bool, options: tuple) -> str | None:
        """The digest of the models that a line of these options is about."""
        store = Store(SimpleNamespace(results="", **dict(options)), "")
        shadows = store if adaptive or original else store.undefended()
        store.root = shadows.root = root  # wherever it lies now
        return store.matchup_digest(
            *(
                (ORIGINAL, shadows, ORIGINAL)
                if original
                else (store.pruned, shadows, shadows.pruned)
            )
        )

    def current(line: dict) -> bool:
        names = ("dataset_name", "model_name", "shadow_num", "from_scratch", *_PRUNING)
        options = tuple((name, line.get(name, OPTIONS[name].default)) for name in names)
        return (
            _of_present_version(line)
            and now(line["original"], line["adaptive"], options) == line["models"]
        )

    kept, stale = [], 0
    try:
        lines, problem = read_lines(folder / "attacks.jsonl")
    except UserError as error:
        lines, problem = [], _without_remedy(error)
    if problem:
        problems.append(
            problem if problem.startswith("cannot") else f"of {folder / 'attacks.jsonl'}: {problem}"
        )
    for line in lines:
        try:
            fits = current(line)
        except UserError as error:
            problem = f"results in {folder}: {_without_remedy(error)}"
        except (KeyError, TypeError, ValueError, AttributeError):
            problem = f"{folder / 'attacks.jsonl'}: results of another version"
        else:
            kept += [line] if fits else []
            stale += not fits
            continue
        if problem not in problems:
            problems.append(problem)
    try:
        measured, gone = remeasured(kept, folder / "scores.npz")
    except UserError as error:
        measured = [line for line in kept if line.get("intervals") == INTERVALS]
        gone = [line for line in kept if line.get("intervals") != INTERVALS]
        problems.append(_without_remedy(error))
    return VictimResults(folder, measured, stale, told, len(gone), problems)


def _read_lines(path: Path) -> list[dict]:
    """The lines of an attacks.jsonl, [] where there is none; those from before there were scores are left out."""
    lines, problem = read_lines(path)
    with user_error_if_damaged(path):
        if problem:
            raise ValueError(problem)
    return lines


def read_lines(path: Path) -> tuple[list[dict], str]:
    """What can be read of an attacks.jsonl, as `_read_lines` returns it, and what is wrong with the rest of it, ""
    where nothing is.

    Raises UserError where nothing can be read at all.
    """
    if not os.path.exists(path):
        return [], ""
    with user_error_if_damaged(path):
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines, damaged = [], []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(tested(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(str(number))
    # each says how many there are
    complete = bool(lines) and all([line.pop("lines", None) == len(texts) for line in lines])
    problem = "" if complete else "lines are missing"
    if damaged:
        problem = (
            f"line{'s' * (len(damaged) > 1)} {', '.join(damaged)} damaged or of another program"
        )
    return [line for line in lines if "targets" in line], problem


def _of_present_version(line: dict) -> bool:
    """Whether a line was made by the present definition of its attack."""
    return line.get("version", 1) == attack_version(line["attack"])


def _write_lines(path: Path, lines: list[dict]) -> None:
    # each says how many there are, so that a file that was cut between two is noticed
    text = "".join(json.dumps(sealed(line | {"lines": len(lines)})) + "\n" for line in lines)
    write(path, text.encode())


def remeasured(lines: list[dict], scores: Path) -> tuple[list[dict], list[dict]]:
    """Lines of attacks.jsonl whose intervals are all by the present methods, and those that cannot be had so.

    A line with intervals by older methods gets its measures anew from its scores, threshold and truth, with no attack
    made again. Where these are gone from `scores`, the victim's scores.npz, that is not possible.

    Raises UserError where scores.npz is needed and damaged.
    """
    if all(line.get("intervals") == INTERVALS for line in lines):
        return lines, []
    arrays = read_arrays(scores)[1] if os.path.exists(scores) else {}
    current, gone = [], []
    for line in lines:
        if line.get("intervals") == INTERVALS:
            current.append(line)
        elif set(_arrays_of(line)) <= arrays.keys():
            values, threshold, _, labels, member = (arrays[name] for name in _arrays_of(line))
            current.append(
                line
                | measures(
                    Verdict(values, threshold), member, labels, num_cls=len(line["class_accuracy"])
                )
            )
        else:
            gone.append(line)
    return current, gone


def matchup_digest(models: Iterable[Checkpoint]) -> str:
    """Tells a victim, its shadow models (in this order) and their originals from any others."""
    return hashlib.sha256(
        "".join(model.parent + model.digest for model in models).encode()
    ).hexdigest()[:16]


def digest(part: RoleSplit) -> str:
    """Tells a role's part of the split from any other."""
    return array_digest(*vars(part).values())


def array_digest(*arrays: np.ndarray) -> str:
    """Tells arrays from any others of their kind."""
    return hashlib.sha256(b"|".join(array.tobytes() for array in arrays)).hexdigest()


def _arrays_of(line: dict) -> list[str]:
    """What an attack's line refers to in scores.npz."""
    scores, targets = line["scores"], line["targets"]
    return [
        scores,
        f"{scores}_threshold",
        *(f"{name}_{targets}" for name in ("records", "labels", "member")),
    ]


def _arrays(parts: dict[str, RoleSplit]) -> dict[str, np.ndarray]:
    return {
        f"{role}_{name}": indices
        for role, part in parts.items()
        for name, indices in vars(part).items()
    }


@functools.cache
def _commit() -> str | None:
    """The commit of this code, where it lies in a git repository."""
    try:
        ran = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return ran.stdout.strip() or None
