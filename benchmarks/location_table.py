"""The README's table: Location, seed 7, l1unstructure 0.7, 5 shadow models; ours beside the paper's code.

    python benchmarks/location_table.py --trainings 32 --neural 16 --samia 2 --results results_location

Each training (`--train_seed`) has its own results folder; what lies there already is not run again.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# Four trainings of the paper's code on this split: mean and standard deviation in percent, over so many of them.
REFERENCE = {"test_accuracy": (57.6, 1.8, 4), "conf": (80.4, 2.0, 4), "mentr": (80.8, 1.7, 4), "xent": (71.9, 4.0, 4),
             "samia": (84.2, None, 1), "nn": (79.9, None, 1), "nn_top3": (80.9, None, 1)}


def run(stage: str, *words: str) -> None:
    subprocess.run([sys.executable, PROJECT / f"{stage}.py", "cpu", PROJECT / "config/location.json", *words],
                   check=True, stdout=subprocess.DEVNULL)


def training(results: Path, train_seed: int, attacks: str) -> dict[str, float]:
    """Run what is missing of one training; returns percentages by attack, and of the victim's test accuracy."""
    same = ("--results", str(results), "--train_seed", str(train_seed))
    found = results / "location_columnfc" / "l1unstructure_0.7_model" / "attacks.jsonl"
    if not found.exists():
        run("pretrain", *same)
        run("prune", *same)
    lines = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    have = {line["attack"] for line in lines}
    have |= {"threshold"} if have >= {"conf", "xent", "mentr", "top1_conf"} else set()
    missing = [name for name in attacks.split(",") if name not in have]
    if missing:
        run("mia", *same, "--attacks", ",".join(missing))
        lines = [json.loads(line) for line in found.read_text().splitlines()]
    return {line["attack"]: 100 * line["accuracy"] for line in lines} | {
        "test_accuracy": 100 * lines[0]["test_accuracy"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", type=int, default=8)
    parser.add_argument("--neural", type=int, default=8, help="in how many of them nn, nn_top3 and nn_cls run too")
    parser.add_argument("--samia", type=int, default=2, help="in how many of them samia runs too (it takes minutes)")
    parser.add_argument("--first", type=int, default=0, help="the first train_seed")
    parser.add_argument("--results", type=Path, default=Path("results_location"))
    args = parser.parse_args()

    values: dict[str, list[float]] = {}
    for number in range(args.first, args.first + args.trainings):
        attacks = "threshold" + ",nn,nn_top3,nn_cls" * (number - args.first < args.neural)
        attacks += ",samia" * (number - args.first < args.samia)
        for name, value in training(args.results / f"train_seed_{number}", number, attacks).items():
            values.setdefault(name, []).append(value)
        print(f"train_seed {number}: " + ", ".join(f"{name} {value[-1]:.1f}" for name, value in values.items()),
              flush=True)
    print("\n| | ours | trainings | reference | trainings |\n|---|---|---|---|---|")
    for name, ours in values.items():
        mean, spread, count = REFERENCE.get(name, (None, None, 0))
        theirs = "-" if mean is None else f"{mean}" + (f" ({spread})" if spread else "")
        ours_spread = f" ({statistics.stdev(ours):.1f})" if len(ours) > 1 else ""
        print(f"| {name} | {statistics.mean(ours):.1f}{ours_spread} | {len(ours)} | {theirs} | {count or '-'} |")


if __name__ == "__main__":
    main()
