"""Audit one model of your own: what does it give away about the records it was trained on?

    python audit.py answers evidence.npz --out audit/ --gate "auc<=0.6"
    python audit.py model my_task.py --shadow_num 16 --out audit/
    python audit.py answers --help

COMMANDS
Exit status: 0 where all gates pass or there are none, 3 where one fails or a claim is refuted, 4
where one is inconclusive and none fails, 2 where the input is wrong or your code fails.
"""

from __future__ import annotations

from core import console  # first, see core.interrupts

# isort: split

import sys

from core.registry import Registry

COMMANDS = Registry("command")
COMMANDS.register("answers", "auditing.answers:main", "from posteriors or logits in a file")
COMMANDS.register("model", "auditing.model:main", "from weights, and code that trains such a model")
COMMANDS.register(
    "canaries", "auditing.canaries:main", "the epsilon of prune_dp.py, by records made to be told"
)


@console.stage
def main(argv=None):
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        console.say(__doc__.replace("COMMANDS", f"{COMMANDS.help()}\n"))
        return 0
    return COMMANDS.load(name)([*map(str, words)])


if __name__ == "__main__":
    sys.exit(main())
