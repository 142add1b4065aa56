"""Attack the victim: who was in its training set?

python mia.py 0 config/cifar10_resnet18.json --attacks samia,threshold
python mia.py 0 config/cifar10_resnet18.json --attacks samia --original
python mia.py 0 config/cifar10_resnet18.json --attacks samia --defend ppb --defend_arg 4 --adaptive
"""

import sys
import traceback
from functools import partial

from core import console
from attackers import ATTACKS, VERDICTS, attack, unfit
from bench.options import OPTIONS, parse


@console.stage
def main(argv=None):
    options = parse("mia", argv, about=f"{__doc__}\nattacks:\n{ATTACKS.help()}")

    import numpy as np

    from attackers import metrics
    from bench.store import ORIGINAL, Store, matchup_digest
    from bench.training import load_device_and_data
    from core.parallel import parallel_map
    from defenders.accounting import caveat

    device, records = load_device_and_data(options)
    store = Store(options, records.digest())
    parts = store.load_split(len(records))
    attacks = fitting(options)
    settle(options, records)
    shadow_store = store if options.adaptive else store.undefended()
    victim_version, shadow_version = (
        (ORIGINAL, ORIGINAL) if options.original else (store.pruned, shadow_store.pruned)
    )
    checkpoints = {
        role: store.load(role, victim_version, part)
        if role == "victim"
        else shadow_store.load(role, shadow_version, part)
        for role, part in parts.items()
    }
    console.say(
        f"loaded {store.folder('victim', victim_version)}\n"
        f"and {options.shadow_num} of {shadow_store.folder('shadow_*', shadow_version)}"
    )

    updated = store.update_measures(victim_version)
    if updated:
        console.say(
            f"{updated} result{'s' * (updated > 1)} had intervals by an older method: measured again from the "
            f"scores"
        )
    models = matchup_digest(checkpoints.values())
    kept = [] if options.fresh else store.recorded(attacks, victim_version, models)
    if kept:
        console.say(
            f"{', '.join(kept)}: kept what {store.folder('victim', victim_version)} holds of "
            f"{'it' if len(kept) == 1 else 'them'}"
        )
    missing, failed = [name for name in attacks if name not in kept], {}
    if missing:
        evidence, failed = gathered(
            records,
            parts,
            checkpoints,
            device,
            attacks=missing,
            places={
                role: (store, victim_version)
                if role == "victim"
                else (shadow_store, shadow_version)
                for role in parts
            },
        )
        missing = [name for name in missing if name not in failed]

    def speak(name, progress):
        """Let the attack speak, judge it, and write down what it found."""
        calibration_mask = {
            option: getattr(options, option)
            for option in ATTACKS[name].options.get("option_names", ())
        }
        with store.making("victim", victim_version, store.attack_lock(name)):
            verdicts = attack(
                name,
                evidence,
                device=device,
                seed=options.train_seed,
                progress=progress,
                **calibration_mask,
                fit_or_load=partial(store.network, device=device.type),
            )
            targets, labels = evidence.record_ids[evidence.target], evidence.labels[evidence.target]
            member = np.isin(
                targets, parts["victim"].train
            )  # looked at only now that the attack has spoken
            found = {
                said: metrics.measures(verdict, member, labels, num_cls=records.num_cls)
                for said, verdict in verdicts.items()
            }
            return store.record_attack(
                name,
                victim_version,
                checkpoints["victim"],
                models,
                str(device),
                found,
                verdicts,
                {"records": targets, "labels": labels, "member": member},
            )

    for name, done in parallel_map(
        speak, missing, workers=options.workers, threads=options.threads, goes_on=(Exception,)
    ):
        if isinstance(done, console.NotApplicable) and options.attacks == ("all",):
            console.say(f"left out: {name}: {done}")
        elif isinstance(done, Exception):
            failed[name] = done
        else:
            console.say(f"{name}: saved {done}")
    lines = store.attacks_on(victim_version, models)
    if lines:
        measures_table(
            store.folder("victim", victim_version), lines, caveat(checkpoints["victim"].privacy)
        )
    if options.per_class and lines:
        asked = [line for line in lines if VERDICTS.get(line["attack"]) in attacks]
        class_table(
            asked,
            *(
                np.bincount(records.y.numpy()[part], minlength=records.num_cls)
                for part in (parts["victim"].train, parts["victim"].test)
            ),
        )
    closing_table(store)
    if failed:
        raise console.UserError(
            *(f"{name}: {reason(failed[name])}" for name in attacks if name in failed)
        )


def gathered(records, parts, checkpoints, device, *, attacks: list[str], places) -> tuple:
    """The evidence for these attacks, and of those that need more than logits the errors where only that fails."""
    from bench.signals import gather

    try:
        return gather(records, parts, checkpoints, device, attacks=attacks, places=places), {}
    except Exception as error:
        modest = [
            name
            for name in attacks
            if not {"sensitivity", "generated"} & set(ATTACKS[name].options)
        ]
        if not modest or len(modest) == len(attacks):
            raise
        demanding = {name: error for name in attacks if name not in modest}
    return gather(records, parts, checkpoints, device, attacks=modest, places=places), demanding


def reason(error: Exception) -> str:
    """Why an attack has failed, in a line; where that is a fault of the code, its traceback goes to stderr."""
    if isinstance(error, console.UserError):
        return str(error)
    if (
        isinstance(error, MemoryError) or isinstance(error, RuntimeError) and "memory" in str(error)
    ):  # torch's
        return "the memory is too small: try fewer --workers"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def fitting(options) -> list[str]:
    """The attacks that are asked for; of `all`, those that can be made in this split with so many shadows."""
    everything = options.attacks == ("all",)
    names = (
        [name for name in ATTACKS if "variant_of" not in ATTACKS[name].options]
        if everything
        else options.attacks
    )
    reasons = {
        name: unfit(name, online=options.split == "inout", shadow_num=options.shadow_num)
        for name in names
    }
    for reason in filter(None, reasons.values()):
        if not everything:
            raise console.UserError(reason)
        console.say(f"left out: {reason}")
    return [name for name in names if reasons[name] is None]


def settle(options, records) -> None:
    """Put values in the place of defaults that depend on the data, so that lines hold what was used."""
    from attackers import lira, rmia

    if options.fix_variance is None:
        options.fix_variance = options.shadow_num < lira.FIX_VARIANCE_BELOW
    if options.rmia_a == "paper":
        options.rmia_a = rmia.default_a(records)


def measures_table(folder, lines: list[dict], caveat: str = "") -> None:
    """Every measure of the attacks on one victim, with its interval and what that leaves out; `caveat` is said of its
    privacy. Below, what few scores or settings it rests on."""
    from attackers import ties

    titles = {
        "accuracy": "accuracy",
        "auc": "AUC",
        "tpr_at_0.1": "TPR at FPR 10 %",
        "tpr_at_0.01": "at 1 %",
        "tpr_at_0.001": "at 0.1 %",
    }
    titles = {
        measure: title
        for measure, title in titles.items()  # none that says nothing
        if any(line[measure] is not None for line in lines)
    }

    def cell(line, measure):
        if line[measure] is None:
            return "-"
        low, high = map(console.percent, line[f"{measure}_interval"])
        return f"{console.percent(line[measure])} [{low}, {high}]"

    members, others = lines[0]["members"], lines[0]["non_members"]
    console.table(
        f"attacks on {folder}{f' ({caveat})' if caveat else ''}\n"
        f"{members} members, {others} non-members; percent [95 % interval]\n"
        f"intervals cover the choice of the target records, not the randomness of training",
        ["", *titles.values()],
        [[line["attack"], *(cell(line, measure) for measure in titles)] for line in lines],
    )
    for line in lines:
        if said := ties.remark(line):
            fixed = (
                [
                    f"--{name}"
                    for name in ATTACKS[VERDICTS[line["attack"]]].options.get("option_names", ())
                    if OPTIONS[name].default == "choose" != line[name]
                ]
                if line["attack"] in VERDICTS
                else []
            )
            console.say(
                f"{line['attack']}: {said}"
                + (
                    f"; without {' and '.join(fixed)} the attack chooses on the shadow models"
                    if fixed
                    else ""
                )
            )
        if line.get("chosen"):
            console.say(
                f"{line['attack']}, chosen on the shadow models: "
                + ", ".join(f"{name} {value:g}" for name, value in line["chosen"].items())
            )


def class_table(lines: list[dict], members, others) -> None:
    """Balanced accuracy and AUC of each attack for each class."""
    console.table(
        "by class: accuracy / AUC in percent",
        ["class", "members", "others", *(line["attack"] for line in lines)],
        [
            [
                str(label),
                str(members[label]),
                str(others[label]),
                *(_both(line["class_accuracy"][label], line["class_auc"][label]) for line in lines),
            ]
            for label in range(len(members))
        ],
    )


def _both(accuracy: float | None, area: float | None) -> str:
    return f"{console.percent(accuracy)} / {console.percent(area)}"


def closing_table(store) -> None:
    """What has been found so far of the victim: original, pruned, and pruned with this defence."""
    from bench.store import ORIGINAL

    options = store.options
    basic = store.undefended()
    columns = {
        "original": (store, ORIGINAL, store, ORIGINAL),
        "pruned": (basic, basic.pruned, basic, basic.pruned),
    }
    if options.defend:
        scratch = " scratch" if options.from_scratch else ""
        columns[f"{options.defend} {options.defend_arg:g}{scratch}"] = (
            store,
            store.pruned,
            basic,
            basic.pruned,
        )
        columns["adaptive"] = (store, store.pruned, store, store.pruned)
    found = {}
    for title, (victim, version, shadows, shadow_version) in columns.items():
        try:
            models = victim.matchup_digest(version, shadows, shadow_version)
            lines = {line["attack"]: line for line in victim.attacks_on(version, models)}
        except console.UserError as error:  # of another victim than that which was attacked
            console.say(f"left out of the table: {title}: {error}")
            continue
        if lines:
            found[title] = lines
    if not found:
        return
    attacks = [name for name in VERDICTS if any(name in lines for lines in found.values())]
    rows = [
        [
            f"victim, {part} accuracy",
            *(
                console.percent(next(iter(lines.values()))[f"{part}_accuracy"])
                for lines in found.values()
            ),
        ]
        for part in ("train", "test")
    ]
    rows += [
        [
            attack,
            *(
                _both(lines[attack]["accuracy"], lines[attack]["auc"]) if attack in lines else "-"
                for lines in found.values()
            ),
        ]
        for attack in attacks
    ]
    console.table(
        f"{store.root}, {basic.pruned}, {options.shadow_num} shadow models\n"
        f"attack accuracy / AUC in percent (50 = guessing)",
        ["", *found],
        rows,
    )


if __name__ == "__main__":
    sys.exit(main())
