"""Attack the victim: who was in its training set?

    python mia.py 0 config/cifar10_resnet18.json --attacks samia,threshold
    python mia.py 0 config/cifar10_resnet18.json --attacks samia --original
    python mia.py 0 config/cifar10_resnet18.json --attacks samia --defend ppb --defend_arg 4 --adaptive
"""
import sys

import console
from attackers import ATTACKS
from options import parse


@console.stage
def main(argv=None):
    options = parse("mia", argv, about=f"{__doc__}\nattacks:\n{ATTACKS.help()}")

    import numpy as np

    from attackers import metrics
    from attackers.signals import Shadow, query
    from base_model import generator
    from roles import on_device, prepare, stored_model
    from store import ORIGINAL, Store, models_digest
    from workers import side_by_side

    device, records = prepare(options)
    store = Store(options, records.digest())
    shadow_store = store if options.adaptive else store.undefended()
    parts = store.load_split(len(records))
    victim_version, shadow_version = (ORIGINAL, ORIGINAL) if options.original else (store.pruned, shadow_store.pruned)
    checkpoints = {role: store.load(role, victim_version, part) if role == "victim" else
                   shadow_store.load(role, shadow_version, part) for role, part in parts.items()}
    console.say(f"loaded {store.folder('victim', victim_version)} and {options.shadow_num} of "
                f"{shadow_store.folder('shadow_*', shadow_version)}")

    models = models_digest(checkpoints.values())
    kept = [name for name in options.attacks if not options.fresh and store.has_attack(
        victim_version, ATTACKS[name].options.get("reports", [name]), models)]
    for name in kept:
        console.say(f"{name}: kept what {store.folder('victim', victim_version)} holds of it")
    missing = [name for name in options.attacks if name not in kept]

    asked = {role: np.concatenate([part.train, part.test]) for role, part in parts.items()}
    asked["victim"].sort()  # the victim's records come in an order that says nothing of who is a member

    def signals(role, watch):
        model = stored_model(options, records, role, "mia", device, checkpoints[role])
        noise = generator(options.train_seed, "mia", role, "noise", device=device)
        return query(model, on_device(records, device), asked[role], generator=noise)

    answers = dict(side_by_side(signals, parts if missing else (), workers=options.workers, threads=options.threads))
    targets = asked["victim"]

    def attack(name, watch):
        shadows = [Shadow(answers[role], np.arange(len(asked[role])) < len(parts[role].train))
                   for role in parts if role != "victim"]
        with store.making("victim", victim_version, store.attack_lock(name)):
            try:
                verdicts = ATTACKS.load(name)(
                    shadows, answers["victim"], device=device, seed=options.train_seed, watch=watch,
                    resume=store.resume_attack(name, victim_version, models, device.type))
            except console.UserError as error:
                raise console.UserError(f"{name}: {error}") from error
            member = np.isin(targets, parts["victim"].train)  # looked at only now that the attack has spoken
            accuracy = {said: metrics.balanced_accuracy(verdict.member, member) for said, verdict in verdicts.items()}
            return store.add_attack(name, victim_version, checkpoints["victim"], models, str(device), accuracy)

    for name, path in side_by_side(attack, missing, workers=options.workers, threads=options.threads):
        console.say(f"{name}: saved {path}")
    closing_table(store, len(targets))


def closing_table(store, count: int) -> None:
    """What has been found so far of the victim: original, pruned, and pruned with this defence."""
    from store import ORIGINAL

    options = store.options
    basic = store.undefended()
    columns = {"original": (store, ORIGINAL, store, ORIGINAL), "pruned": (basic, basic.pruned, basic, basic.pruned)}
    if options.defend:
        columns[f"{options.defend} {options.defend_arg:g}"] = (store, store.pruned, basic, basic.pruned)
        columns["adaptive"] = (store, store.pruned, store, store.pruned)
    found = {}
    for title, (victim, version, shadows, shadow_version) in columns.items():
        models = victim.models_digest(version, shadows, shadow_version)
        lines = {line["attack"]: line for line in victim.attacks(version)
                 if line.get("models") == models and line["train_seed"] == options.train_seed}
        if lines:
            found[title] = lines
    attacks = list(dict.fromkeys(attack for lines in found.values() for attack in lines))
    rows = [[f"victim, {part} accuracy",
             *(console.percent(next(iter(lines.values()))[f"{part}_accuracy"]) for lines in found.values())]
            for part in ("train", "test")]
    rows += [[attack, *(console.percent(lines[attack]["accuracy"] if attack in lines else None)
                        for lines in found.values())] for attack in attacks]
    console.table(f"{store.root}, {basic.pruned}: attack accuracy in percent (50 = guessing), "
                  f"shadow models: {options.shadow_num}, {count} target records", ["", *found], rows)


if __name__ == "__main__":
    sys.exit(main())
