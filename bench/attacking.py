"""Making attacks: those that fit, on what they need, judged and written down."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from attackers import (
    ATTACKS,
    Evidence,
    LabelOnlyEvidence,
    Verdict,
    attack,
    metrics,
    part_of_all,
    unfit,
)
from bench.attack_log import AttackLog, Finding
from bench.checkpoints import Checkpoint, load_checkpoint
from bench.label_only import collect_classes
from bench.matchup import Matchup, matchup_digest, releases_digest
from bench.options import Options
from bench.outputs import cached_network
from bench.run import Run
from bench.signals import BESIDE_LOGITS, collect_signals
from core.console import NotApplicable, UserError, say
from core.parallel import parallel_map

Checkpoints = Mapping[str, Checkpoint]  # by role
Releases = Mapping[str, Checkpoints]  # by the name of a version


def fitting_attacks(options: Options) -> list[str]:
    """The attacks that are asked for; of `all`, those that can be made in this split with so many
    shadow models. Raises UserError where one that is named cannot."""
    everything = options.attacks == ("all",)
    names = list(options.attacks)
    if everything:
        names = list(filter(part_of_all, ATTACKS))
        for name in ATTACKS:
            if reason := ATTACKS[name].options.get("by_name_only"):
                say(f"left out: {name}: {reason}: name it with --attacks {name}")
    online, shadow_num = options.split == "inout", options.shadow_num
    reasons = {
        name: unfit(name, online=online, shadow_num=shadow_num, also=options.also) for name in names
    }
    for reason in filter(None, reasons.values()):
        if not everything:
            raise UserError(reason)
        say(f"left out: {reason}")
    return [name for name in names if reasons[name] is None]


def load_matchup(run: Run) -> Checkpoints:
    """What is known of the victim and the shadow models. Raises UserError where one is not there or
    does not fit."""
    matchup = run.matchup
    checkpoints = _load(matchup, run)
    say(
        f"loaded {matchup.victim_folder}\n"
        f"and {run.options.shadow_num} of {matchup.folder('shadow_*')}"
    )
    return checkpoints


def load_releases(run: Run, attacks: list[str]) -> Releases:
    """The same of each other version that the attacker holds, where one of these attacks uses it.
    Raises likewise."""
    if not any(ATTACKS[name].options.get("releases") for name in attacks):
        return {}
    releases = {name: _load(release, run) for name, release in run.matchup.releases.items()}
    if releases:
        say(f"the attacker also holds {', '.join(releases)}")
    return releases


def log_of(run: Run, checkpoints: Checkpoints, releases: Releases) -> AttackLog:
    """The log of attacks on just these models."""
    digests = {name: matchup_digest(of.values()) for name, of in releases.items()}
    return AttackLog(
        run.matchup,
        matchup_digest(checkpoints.values()),
        releases_digest(digests) if digests else None,
    )


def _load(matchup: Matchup, run: Run) -> Checkpoints:
    return {
        role: load_checkpoint(matchup.models(role), role, split)
        for role, split in run.splits.items()
    }


def make_attacks(
    run: Run, checkpoints: Checkpoints, releases: Releases, log: AttackLog, attacks: list[str]
) -> dict[str, Exception]:
    """Make attacks and write down what they find; returns those that have failed, and how.

    One that fails stops no other. Of `all`, those that cannot be made of these models are left out
    with a line.
    """
    options = run.options
    evidence, failed = _evidence_for(run, checkpoints, releases, attacks)
    missing = [name for name in attacks if name not in failed]

    def make(name: str, progress) -> Path:
        return _attack_and_record(name, evidence[name], run, checkpoints["victim"], log, progress)

    for name, result in parallel_map(
        make, missing, workers=options.workers or 1, threads=options.threads, goes_on=(Exception,)
    ):
        if isinstance(result, NotApplicable) and options.attacks == ("all",):
            say(f"left out: {name}: {result}")
        elif isinstance(result, Exception):
            failed[name] = result
        else:
            say(f"{name}: saved {result}")
    return failed


def verdicts_of(
    name: str, evidence: Evidence | LabelOnlyEvidence, run: Run, progress
) -> dict[str, Verdict]:
    """What an attack says of the targets, with the options of the run, by the name of each
    verdict."""
    options = run.options
    own = {one: getattr(options, one) for one in ATTACKS[name].options.get("option_names", ())}
    return attack(
        name,
        evidence,
        device=run.device,
        seed=options.train_seed,
        progress=progress,
        fit_or_load=partial(cached_network, models=run.matchup.victim, device=run.device.type),
        **own,
    )


def _attack_and_record(
    name: str,
    evidence: Evidence | LabelOnlyEvidence,
    run: Run,
    victim: Checkpoint,
    log: AttackLog,
    progress,
) -> Path:
    """Make an attack, measure it, and write down what it found."""
    with log.lock_of(name):
        verdicts = verdicts_of(name, evidence, run, progress)
        target = evidence.target
        assert evidence.record_ids is not None  # as it is collected
        records, labels = evidence.record_ids[target], evidence.labels[target]
        # looked at only now that the attack has said what it has to say
        member = np.isin(records, run.splits["victim"].train)
        measures = {
            verdict: metrics.measures(one, member, labels, num_cls=run.records.num_cls)
            for verdict, one in verdicts.items()
        }
        targets = {"records": records, "labels": labels, "member": member}
        return log.record(Finding(name, verdicts, measures, targets, str(run.device)), victim)


def _evidence_for(
    run: Run, checkpoints: Checkpoints, releases: Releases, attacks: list[str]
) -> tuple[dict[str, Evidence | LabelOnlyEvidence], dict[str, Exception]]:
    """The evidence for each of these attacks, and the errors of those for which it cannot be had."""
    found: dict[str, Evidence | LabelOnlyEvidence] = {}
    of_classes = [name for name in attacks if "label_only" in ATTACKS[name].options]
    others = [name for name in attacks if name not in of_classes]
    evidence, failed = _signals_for(run, checkpoints, releases, others) if others else (None, {})
    if evidence is not None:
        found |= {name: evidence for name in others if name not in failed}
    for name in of_classes:
        try:
            found[name] = collect_classes(run, checkpoints, name)
        except Exception as error:
            failed[name] = error
    return found, failed


def _signals_for(
    run: Run, checkpoints: Checkpoints, releases: Releases, attacks: list[str]
) -> tuple[Evidence, dict[str, Exception]]:
    """The evidence for these attacks, and of those that need more than logits the errors where only
    that fails."""
    try:
        return collect_signals(run, checkpoints, attacks=attacks, releases=releases), {}
    except Exception as error:
        more = set(BESIDE_LOGITS)
        modest = [name for name in attacks if not more & set(ATTACKS[name].options)]
        if not modest or len(modest) == len(attacks):
            raise
        failed = {name: error for name in attacks if name not in modest}
    return collect_signals(run, checkpoints, attacks=modest, releases=releases), failed


def reason_of(error: Exception) -> str:
    """Why an attack has failed, in a line; where that is a fault of the code, its traceback goes to
    stderr."""
    if isinstance(error, UserError):
        return str(error)
    out_of_memory = isinstance(error, RuntimeError) and "memory" in str(error)  # torch's
    if isinstance(error, MemoryError) or out_of_memory:
        return "the memory is too small: try fewer --workers"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"
