"""Hold the epsilon that prune_dp.py claims of a victim against what its canaries prove.

python prune_dp.py 0 config/location.json --from_scratch --defend_arg 1 --canaries 500
python audit.py canaries results/location_columnfc/l1unstructure_0.7_dp_1_scratch_model

Writes canaries.json into the folder. Ends with status 3 where a bound exceeds the claim.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core import console
from attackers.canary_bound import CanaryBound, gaussian_bound, one_run_bound, residuals
from attackers.metrics import auc
from attackers.signals import Signals, log_odds
from bench.checkpoints import Checkpoint, read_checkpoint
from bench.command_line import Parser
from bench.layout import CANARIES, CANARY_AUDIT, MANIFEST, WEIGHTS, ModelSet
from bench.options import OPTIONS, Options
from core.console import UserError, say
from core.files import read_sealed, write
from core.inputs import path_argument
from defenders.accounting import NO_GUARANTEE, guarantee, rounded_up

if TYPE_CHECKING:
    from datasets import Records

LEVEL = 0.05
REFUTED = 3  # exit status
_TITLES = {
    "one_run": "one run (Steinke et al. 2023)",
    "gaussian": "f-DP, Gaussian (Mahloujifar et al. 2024)",
}


@dataclass(frozen=True)
class Claim:
    """(epsilon, delta) of a private training, epsilon None where none is claimed, and what must be
    said of it."""

    epsilon: float | None
    delta: float
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Scored:
    """Canaries, and what a model says of them.

    Attributes:
        scores: (m,), larger where one looks trained on.
        coin: (m,) bool, which were.
        kind: of `attackers.canaries.KINDS`.
        references: the models that tell what they would look like otherwise.
    """

    scores: np.ndarray
    coin: np.ndarray
    kind: str
    references: list[str]


def main(argv: list[str] | None = None) -> int:
    """The exit status: 3 where a bound exceeds the claim, else 0. Raises UserError."""
    parser = Parser(prog="audit.py canaries", description=__doc__)
    parser.add_argument("folder", type=path_argument, help="the victim's, as prune_dp.py names it")
    parser.add_argument(
        "--delta", metavar="X", type=float, help="at which epsilons are held (default: the claimed)"
    )
    given = parser.parse_args(argv)
    check_delta(given.delta)
    return audit(Path(given.folder), given.delta)


def check_delta(delta: float | None) -> None:
    """Raise UserError where a delta that is given is none."""
    if delta is not None and not 0 < delta < 1:
        raise UserError(f"--delta must be a number above 0 and below 1, not {delta:g}")


def audit(folder: Path, delta: float | None) -> int:
    """The exit status of an audit, which is printed and written."""
    from bench.canaries import read_canaries

    victim = _Victim.of(folder)
    claim = _claim(victim.manifest, delta)
    made, records = read_canaries(folder)
    scores, references = victim.scores(records)
    scored = Scored(scores, made.coin, victim.manifest["options"]["canary_kind"], references)
    return judge(folder, victim.digest, scored, claim)


def judge(folder: Path, model: str, scored: Scored, claim: Claim) -> int:
    """The exit status of a claim that is held against canaries; bounds are printed, and written into
    this folder with a digest of the model, or of what makes it."""
    coin = scored.coin
    bounds = {
        name: bound(scored.scores, coin, delta=claim.delta, level=LEVEL)
        for name, bound in (("one_run", one_run_bound), ("gaussian", gaussian_bound))
    }
    limit = math.inf if claim.epsilon is None else claim.epsilon
    refuted = [name for name, bound in bounds.items() if bound.epsilon > limit]
    facts = {
        "model": model,
        "canaries": len(coin),
        "entered": int(coin.sum()),
        "kind": scored.kind,
        "claimed_epsilon": claim.epsilon,
        "delta": claim.delta,
        "remark": claim.remark,
        "level": LEVEL,
        "references": scored.references,
        "auc": float(auc(scored.scores, coin)),
        "bounds": {name: asdict(bound) for name, bound in bounds.items()},
        "refuted_by": refuted,
    }
    write(folder / CANARY_AUDIT, json.dumps(facts, indent=1).encode())
    _print(folder, facts, claim, bounds)
    return REFUTED if refuted else 0


def _print(folder: Path, facts: dict, claim: Claim, bounds: Mapping[str, CanaryBound]) -> None:
    claimed = "" if claim.epsilon is None else rounded_up(claim.epsilon)
    console.table(
        f"{folder}: {facts['canaries']} canaries ({facts['kind']}), of which {facts['entered']} were "
        f"trained on; AUC of their scores {100 * facts['auc']:.1f}\n"
        f"epsilon at delta {claim.delta:g}, for adding or removing one record",
        ["", "epsilon", "right", "guesses"],
        [["claimed", claimed, "", ""]] * bool(claimed)
        + [
            [
                f"at least, by {_TITLES[name]}",
                f"{math.floor(100 * bound.epsilon) / 100:.2f}",
                str(bound.correct),
                str(bound.guesses),
            ]
            for name, bound in bounds.items()
        ],
    )
    if claim.remark:
        say(claim.remark)
    confidence = f"{100 - 100 * LEVEL:g} %"
    if facts["refuted_by"]:
        names = " and ".join(_TITLES[name] for name in facts["refuted_by"])
        say(
            f"REFUTED: with {confidence} confidence epsilon is above the claimed {claimed}, by "
            f"{names}: the training is not as private as it says"
        )
        if facts["refuted_by"] == ["gaussian"]:
            say("that bound alone takes the training for a Gaussian mechanism, which it nearly is")
    else:
        held = "no bound exceeds the claim" if claimed else "nothing is claimed: the bounds hold"
        say(
            f"{held}, each at {confidence}: that proves no privacy, only "
            f"{'that these canaries show no lack of it' if claimed else 'how much is lost at least'}"
        )


def _claim(manifest: dict, delta: float | None) -> Claim:
    """What is claimed at this delta, or at the one that the manifest names."""
    privacy, options = manifest["privacy"], manifest["options"]
    epsilon = privacy["epsilon"]
    if delta is not None and delta != privacy["delta"]:
        size = min(options["batch_size"], privacy["n"])
        epsilon = guarantee(
            n=privacy["n"],
            batch_size=size,
            noise_multiplier=privacy["noise_multiplier"],
            epochs=privacy["steps"] // math.ceil(privacy["n"] / size),
            delta=delta,
        ).epsilon
    remarks = [] if options["from_scratch"] else ["claimed of the fine-tuning alone"]
    remarks += [] if privacy["noise"] == "secret" else [f"{NO_GUARANTEE}; were it secret"]
    return Claim(epsilon, privacy["delta"] if delta is None else delta, "; ".join(remarks))


@dataclass(frozen=True)
class _Victim:
    """A private model with canaries, where its shadow models may lie too.

    Attributes:
        models: the version.
        manifest: as it is stored.
    """

    models: ModelSet
    manifest: dict

    @classmethod
    def of(cls, folder: Path) -> _Victim:
        """The model in a folder. Raises UserError where none lies there, or one without canaries, or
        a file is damaged."""
        if not os.path.exists(folder / MANIFEST):
            raise UserError(
                f"{folder} holds no finished model: name the folder of a victim as prune_dp.py "
                f"--canaries prints it"
            )
        manifest = read_sealed(folder / MANIFEST)
        if CANARIES not in manifest["files"]:
            raise UserError(
                f"{folder} was trained without canaries: run prune_dp.py with --canaries 500 and "
                f"name the victim's folder"
            )
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in manifest["options"].items()
            if name in OPTIONS
        }
        root = Path(os.path.abspath(folder)).parent
        models = ModelSet(Options(stage="prune_dp", **values), moved_to=root)
        return cls(models, manifest)

    @property
    def digest(self) -> str:
        return self.manifest["files"][WEIGHTS]

    def scores(self, records: Records) -> tuple[np.ndarray, list[str]]:
        """How much each canary (m,) looks trained on, and the models that tell what it would look
        like otherwise: the original, where the victim was made of it, and all shadow models together.

        Raises UserError where a file of the victim is damaged.
        """
        victim = read_checkpoint(self.models, "victim")
        if victim is None:
            raise UserError(f"{self.models.folder('victim')}: a file of the model is gone")
        victim.check_files()
        references = {}
        parent = self.models.parent
        original = read_checkpoint(parent, "victim") if parent else None
        if original is not None and original.digest == victim.parent:
            references["the original"] = self._log_odds(original, records)
        stored = [read_checkpoint(self.models, role) for role in self.models.roles[1:]]
        shadows = [self._log_odds(one, records) for one in stored if one is not None]
        if shadows:
            references[f"{len(shadows)} shadow models"] = np.mean(shadows, axis=0)
        log_odds = self._log_odds(victim, records)
        return residuals(log_odds, np.array([*references.values()])), [*references]

    def _log_odds(self, checkpoint: Checkpoint, records: Records) -> np.ndarray:
        """Of the canaries' labels (m,), by a stored model."""
        import torch

        from bench.role_models import stored_model
        from bench.signals import query

        device = torch.device("cpu")
        model = stored_model(
            self.models.options, records, "victim", "audit", device, weights=checkpoint.weights()
        )
        logits = query(model, records, np.arange(len(records)))
        return log_odds(Signals(logits), records.y.numpy())
