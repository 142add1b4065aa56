"""Prune the victim and its shadow models and fine-tune them under differential privacy.

python prune_dp.py 0 config/location.json --defend dp --defend_arg 1.0
python prune_dp.py 0 config/location.json --defend dp --defend_arg 1.0 --from_scratch
"""

import sys

from core import console
from bench.command_line import parse
from prune import prune


@console.stage
def main(argv=None):
    options = parse("prune_dp", argv, about=__doc__)
    privacy = prune(options)

    from bench.privacy_words import say_guarantee

    say_guarantee(options, privacy["victim"])


if __name__ == "__main__":
    sys.exit(main())
