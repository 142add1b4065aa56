"""Kill stages and damage files for as long as told; print how many faults were survived.

python tests/soak.py --minutes 30
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = map(str, (TESTS, TESTS.parent))

from faults import ATTACKS, READ_BY, STAGES, damage, outcome, run_all_stages
from helpers import config_writer

KILLS, ATTEMPTS = 5, 12


def kill_round(folder: Path, draw: random.Random) -> int:
    """Returns the number of kills after which all files were those of an uninterrupted run."""
    path = config_writer(folder)(
        epochs=300,
        prune_epochs=60,
        workers=draw.choice([1, 2, 3]),
        save_every=0,
        shadow_num=draw.choice([1, 2]),
        attacks=draw.choice(["samia", "nn_cls,samia"]),
    )
    expected = run_all_stages(path, draw, kills=0)
    shutil.rmtree("results")
    assert run_all_stages(path, draw, kills=KILLS) == expected, "a killed run came to other files"
    return KILLS * len(STAGES)


def damage_round(folder: Path, draw: random.Random) -> tuple[int, int]:
    """Returns the numbers of runs on damaged files and of those that stopped with a line; all
    others were right."""
    path = config_writer(folder)(epochs=2, attacks=ATTACKS)
    for stage in STAGES:
        status, _, error = outcome(stage, path)
        assert status == 0, error
    file = draw.choice(list(READ_BY))
    return ATTEMPTS * len(READ_BY[file]), damage(file, path, draw, ATTEMPTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None, help="of the faults (default: the time)")
    args = parser.parse_args()
    seed = int(time.time()) if args.seed is None else args.seed
    draw, end = random.Random(seed), time.monotonic() + 60 * args.minutes
    kills = runs = noticed = 0
    print(f"soak: {args.minutes:g} minutes, --seed {seed}", flush=True)
    while time.monotonic() < end:
        for soak in (kill_round, damage_round):
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                found = soak(Path(folder), draw)
                os.chdir("/")
            if soak is kill_round:
                kills += found
            else:
                runs, noticed = runs + found[0], noticed + found[1]
        print(
            f"survived: {kills} kills, {runs} runs on damaged files ({noticed} stopped with a "
            "line, the others were right); no result differed",
            flush=True,
        )


if __name__ == "__main__":
    main()
