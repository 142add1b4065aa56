"""Attack the victim: who was in its training set?

python mia.py 0 config/cifar10_resnet18.json --attacks samia,threshold
python mia.py 0 config/cifar10_resnet18.json --attacks samia --original
python mia.py 0 config/cifar10_resnet18.json --attacks samia --defend ppb --defend_arg 4 --adaptive
"""

import sys

from core import console
from attackers import ATTACKS, VERDICTS
from bench.command_line import parse


@console.stage
def main(argv=None):
    options = parse("mia", argv, about=f"{__doc__}\nattacks:\n{ATTACKS.help()}")

    from bench.attacking import (
        fitting_attacks,
        load_matchup,
        load_releases,
        log_of,
        make_attacks,
        reason_of,
    )
    from bench.privacy_words import remarks
    from bench.records import write_records
    from bench.run import begin
    from bench.tables import class_table, closing_table, measures_table

    run = begin(options)
    attacks = fitting_attacks(run.options)
    checkpoints, releases = load_matchup(run), load_releases(run, attacks)
    log = log_of(run, checkpoints, releases)
    updated = log.update_measures()
    if updated:
        console.say(
            f"{updated} result{'s' * (updated > 1)} had intervals by an older method: measured "
            f"again from the scores"
        )
    done = [] if options.fresh else log.done_attacks(attacks)
    if done:
        console.say(
            f"{', '.join(done)}: kept what {run.matchup.victim_folder} holds of "
            f"{'it' if len(done) == 1 else 'them'}"
        )
    missing = [name for name in attacks if name not in done]
    failed = make_attacks(run, checkpoints, releases, log, missing) if missing else {}

    lines = log.lines()
    asked = [line for line in lines if VERDICTS.get(line["attack"]) in attacks]
    if lines:
        measures_table(run.matchup.victim_folder, lines, remarks(checkpoints["victim"]))
    if options.per_class and lines:
        class_table(asked, *run.class_counts("victim"))
    if options.records and asked and not failed:
        write_records(run, checkpoints, releases, log, asked)
    closing_table(run.options)
    if failed:
        names = [name for name in attacks if name in failed]
        raise console.UserError(*(f"{name}: {reason_of(failed[name])}" for name in names))


if __name__ == "__main__":
    sys.exit(main())
