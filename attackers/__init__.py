"""Membership inference attacks, as functions on arrays.

An attack is a function
`attack(evidence, *, device, seed, progress, fit_or_load, **options) -> {name: Verdict}`:

    evidence  `Evidence`: the signals of victim and shadow models, and whom each shadow was
              trained on
    device    where an attack network is trained
    seed      of all its randomness
    progress  called with (epochs, label) before a training, see `console.epoch_bar`
    fit_or_load  called with (name, cache_key, train) where a network is trained on shadow models
              alone: returns its weights, those of an earlier attack or of `train(callbacks)`

All of these but `evidence` may be left out. Used without models or options:

    from attackers import Evidence, attack
    evidence = Evidence.from_posteriors(
        labels, victim=victim_posteriors, shadows=shadow_posteriors, member=shadow_member
    )
    verdict = attack("lira", evidence)["lira"]
    verdict.scores, verdict.threshold, verdict.member

That works beside other packages called `datasets` or `models` too: see `core.imports`.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _find_import_own():
    """`core.imports.import_own`, found by its path: another package may be called `core` too."""
    path = Path(__file__).resolve().parent.parent / "core" / "imports.py"
    loaded = sys.modules.get("core.imports")
    if loaded is None or Path(loaded.__file__ or "").resolve() != path:
        spec = importlib.util.spec_from_file_location("core.imports", path)
        assert spec is not None and spec.loader is not None  # of a .py file there are both
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        loaded.set_aside(loaded)
    return loaded.import_own


import_own = _find_import_own()
if TYPE_CHECKING:
    from attackers import evidence
    from attackers.evidence import Evidence, Verdict
    from attackers.label_only_evidence import LabelOnlyEvidence
    from attackers.signals import Signals
    from core.registry import Registry
else:  # the same, also where other packages have our modules' names
    Registry = import_own("core.registry").Registry
    evidence = import_own("attackers.evidence")
    Signals = import_own("attackers.signals").Signals
    Evidence, Verdict = evidence.Evidence, evidence.Verdict
    LabelOnlyEvidence = import_own("attackers.label_only_evidence").LabelOnlyEvidence

__all__ = [
    "ATTACKS",
    "VERDICTS",
    "Evidence",
    "LabelOnlyEvidence",
    "Signals",
    "Verdict",
    "attack",
    "can_be_combined",
    "part_of_all",
    "unfit",
    "version",
]

ATTACKS = Registry("attack")
# reports: the names of its verdicts, where they differ from its name
# sensitivity, generated: whether it needs these outputs of the models too
# distillation: likewise, of a model that is distilled for it
# shadows: the fewest shadow models, in the paper's and in the in/out split
# version: of its definition, where that has changed: results of another one are made again
# option_names: options that only this attack reads, `queries` where it takes several of a record;
#     they change no other's lines
# defaults: function(given, *, records, shadow_num) -> those options whose defaults depend on these
# releases: whether it needs another release of the same models, see `Evidence.also`
# in_turn: False where its verdicts have no `Verdict.shadow_scores`, as no shadow plays the victim
# label_only: what it asks for beside predicted classes, which are all that it sees: it takes a
#     `LabelOnlyEvidence`
# by_name_only: why it is no part of `all`
# variant_of: named only, and no part of `all`, as another attack does the same where it can
_QUERIES: dict[str, Any] = dict(option_names=("queries",))
ATTACKS.register(
    "samia",
    "attackers.neural:samia",
    "self-attention on posterior, sensitivity and class (Yuan & Zhang 2022)",
    sensitivity=True,
    in_turn=False,
    version=2,
)
ATTACKS.register(
    "threshold",
    "attackers.threshold:threshold",
    "one a class on the true class's posterior, the entropy and the modified entropy (Song & Mittal\n"
    "                 2021), one for all on the largest posterior (Salem et al. 2019)",
    reports=("conf", "xent", "mentr", "top1_conf"),
    **_QUERIES,
)
ATTACKS.register(
    "nn", "attackers.neural:nn", "perceptron on the posterior (Shokri et al. 2017)", in_turn=False
)
ATTACKS.register(
    "nn_top3",
    "attackers.neural:nn_top3",
    "perceptron on the three largest (Salem et al. 2019)",
    in_turn=False,
)
ATTACKS.register(
    "nn_cls",
    "attackers.neural:nn_cls",
    "perceptron on posterior and class (Nasr et al. 2018)",
    in_turn=False,
)
ATTACKS.register(
    "gap",
    "attackers.loss:gap",
    "member where the victim is right (Yeom et al. 2018)",
    in_turn=False,
    **_QUERIES,
)
ATTACKS.register(
    "loss", "attackers.loss:loss", "the loss, one threshold for all (Yeom et al. 2018)", **_QUERIES
)
ATTACKS.register(
    "calibrated",
    "attackers.loss:calibrated",
    "the loss beside that of shadows without the record (Watson et al. 2022)",
    shadows=(3, 6),
    version=2,
    **_QUERIES,
)
ATTACKS.register(
    "attack_p",
    "attackers.loss:attack_p",
    "the loss among that of known non-members (Ye et al. 2022)",
    alias="attack-p",
    **_QUERIES,
)
_LIRA: dict[str, Any] = dict(shadows=(3, 6), option_names=("fix_variance", "queries"), version=2)
ATTACKS.register(
    "lira",
    "attackers.lira:lira",
    "likelihood ratio, online where the split allows it, else offline\n"
    "                 (Carlini et al. 2022)",
    defaults="attackers.lira:defaults",
    **_LIRA,
)
ATTACKS.register(
    "lira_online",
    "attackers.lira:lira_online",
    "lira with shadows that were trained on the record too (the same)",
    variant_of="lira",
    **_LIRA,
)
ATTACKS.register(
    "lira_offline",
    "attackers.lira:lira_offline",
    "lira with those only that were not (the same)",
    variant_of="lira",
    **_LIRA,
)
ATTACKS.register(
    "bavaria",
    "attackers.bavaria:bavaria",
    "lira with a prior for each record's mean and variance (Braennvall 2026)",
    shadows=(2, 4),
    **_QUERIES,
)
ATTACKS.register(
    "rmia",
    "attackers.rmia:rmia",
    "likelihood ratio relative to known non-members (Zarifzadeh et al. 2024)",
    shadows=(3, 6),
    option_names=("rmia_gamma", "rmia_a", "rmia_temperature", "rmia_trim", "queries"),
    defaults="attackers.rmia:defaults",
    version=2,
)
ATTACKS.register(
    "base",
    "attackers.base:base",
    "log posterior minus the log of its mean under shadows (Lassila et al. 2025)",
    shadows=(2, 4),
    **_QUERIES,
)
ATTACKS.register(
    "qmia",
    "attackers.qmia:qmia",
    "the margin beside its distribution given the record (Bertran et al. 2023)",
    **_QUERIES,
)
_RELEASES: dict[str, Any] = dict(releases=True, option_names=("also",))
ATTACKS.register(
    "compleak_sr",
    "attackers.compleak:compleak_sr",
    "logistic regression and random forest on the posteriors of two releases and the class\n"
    "                 (Li et al. 2026)",
    reports=("compleak_sr", "compleak_sr_forest"),
    in_turn=False,
    **_RELEASES,
)
ATTACKS.register(
    "lira_joint",
    "attackers.lira_joint:lira_joint",
    "lira on all releases, one multivariate normal for their log odds",
    shadows=(3, 6),
    **_RELEASES | {"option_names": ("also", "fix_variance")},
)
ATTACKS.register(
    "nn_joint",
    "attackers.neural:nn_joint",
    "perceptron on the posteriors of all releases and class",
    in_turn=False,
    **_RELEASES,
)
ATTACKS.register(
    "compleak_mr",
    "attackers.compleak_mr:compleak_mr",
    "perceptrons on what compleak_sr's forest says of each release beside the first other one,\n"
    "                 and on the losses (Li et al. 2026)",
    in_turn=False,
    **_RELEASES,
)
ATTACKS.register(
    "trajectory",
    "attackers.trajectory:trajectory",
    "self-attention on the log odds in all releases, and class",
    in_turn=False,
    **_RELEASES,
)
ATTACKS.register(
    "blindmi",
    "attackers.blindmi:blindmi",
    "moves outputs towards generated non-members' (Hui et al. 2021)",
    generated=True,
    in_turn=False,
    version=2,
)
ATTACKS.register(
    "blindmi_scaled",
    "attackers.blindmi:blindmi_scaled",
    "blindmi with one kernel as wide as the outputs are apart, not 19 fixed ones",
    generated=True,
    in_turn=False,
)
_DISTILLED: dict[str, Any] = dict(
    distillation=True,
    in_turn=False,
    by_name_only="it distils each model anew, which takes as long as training it",
)
ATTACKS.register(
    "loss_trajectory",
    "attackers.distillation:loss_trajectory",
    "perceptron on the losses along the distillation of the model (Liu et al. 2022)",
    **_DISTILLED,
)
ATTACKS.register(
    "seqmia",
    "attackers.distillation:seqmia",
    "LSTM with attention on five metrics along that distillation (Li et al. 2024)",
    **_DISTILLED,
)
# what `ensemble` combines where nothing else is said: attacks that take seconds
COMBINED = ("loss", "calibrated", "attack_p", "lira", "bavaria", "rmia", "base")
ATTACKS.register(
    "ensemble",
    "attackers.ensemble:ensemble",
    "several attacks' scores in a logistic regression learnt on the shadow models",
    in_turn=False,
    option_names=(
        "ensemble_of",
        *dict.fromkeys(
            option for name in COMBINED for option in ATTACKS[name].options.get("option_names", ())
        ),
    ),
)
ATTACKS.register(
    "noise_robustness",
    "attackers.label_only:noise_robustness",
    "share of perturbed copies that keep the predicted class (Choquette-Choo et al. 2021)",
    label_only="copies",
    in_turn=False,
)
ATTACKS.register(
    "boundary",
    "attackers.label_only:boundary",
    "distance to the nearest other predicted class, of a sample (Li & Zhang 2021)",
    label_only="distances",
    in_turn=False,
    option_names=("boundary_records",),
    by_name_only="it takes thousands of queries a record, and so a sample of the targets alone",
)

# name of a verdict -> the attack that it comes from
VERDICTS = {
    verdict: name for name in ATTACKS for verdict in ATTACKS[name].options.get("reports", [name])
}


# the options of all attacks
OPTION_NAMES = list(
    dict.fromkeys(
        option for name in ATTACKS for option in ATTACKS[name].options.get("option_names", ())
    )
)


def registered_position(verdict: str) -> int:
    """Where a verdict stands among those registered; one that is no more registered is last."""
    names = list(VERDICTS)
    return names.index(verdict) if verdict in names else len(names)


def version(verdict: str) -> int:
    """The version of the attack that a verdict comes from; 1 where the attack is not registered."""
    return ATTACKS[VERDICTS[verdict]].options.get("version", 1) if verdict in VERDICTS else 1


def part_of_all(name: str) -> bool:
    """Whether `all` has an attack where it can be made; others are named only."""
    return not {"variant_of", "by_name_only"} & set(ATTACKS[name].options)


def can_be_combined(name: str) -> bool:
    """Whether `ensemble` can learn from an attack: shadow models play the victim in it, and it sees
    one release."""
    options = ATTACKS[name].options
    return options.get("in_turn", True) and "releases" not in options


def attack(name: str, evidence: Evidence | LabelOnlyEvidence, **how) -> dict[str, Verdict]:
    """The verdicts of the attack of this name on the targets, by the name of each verdict.

    Raises:
        TypeError: a keyword is no option of this attack, or it sees classes alone and is given
            posteriors, or the other way round.
    """
    sees = LabelOnlyEvidence if "label_only" in ATTACKS[name].options else Evidence
    if not isinstance(evidence, sees):
        raise TypeError(f"{name} takes {sees.__name__}, not {type(evidence).__name__}")
    unknown = set(how) - {
        "device",
        "seed",
        "progress",
        "fit_or_load",
        *ATTACKS[name].options.get("option_names", ()),
    }
    if unknown:
        raise TypeError(f"{name} has no option {', '.join(sorted(unknown))}")
    verdicts = ATTACKS.load(name)(evidence, **how)
    expected = [verdict for verdict, attack_name in VERDICTS.items() if attack_name == name]
    if sorted(verdicts) != sorted(expected):
        raise ValueError(
            f"{name} returned verdicts {sorted(verdicts)}, but is registered with {expected}: "
            f"`reports` names them, in a line above VERDICTS"
        )
    return verdicts


def unfit(name: str, *, online: bool, shadow_num: int, also: Sequence[str] = ()) -> str | None:
    """Why an attack cannot be made in this split with so many shadow models and these other
    releases; None where it can."""
    if ATTACKS[name].options.get("releases") and not also:
        return evidence.ONE_RELEASE.format(name)
    if name == "lira_online" and not online:
        return (
            "lira_online needs shadow models that were trained on the victim's records, which those "
            "of the paper's split were not: use lira, or start with `pretrain.py --split inout "
            "--shadow_num 16` in another --results folder"
        )
    needed = ATTACKS[name].options.get("shadows", (1, 1))[online]
    if shadow_num < needed:
        return (
            f"{name} needs at least {needed} shadow models here, not {shadow_num}: each plays the "
            f"victim against the others, of which too few would be left for a record"
        )
    return None
