"""The README's tables of all attacks: Location, l1unstructure 0.7, 16 shadow models, both splits, three seeds.

    python benchmarks/attacks_table.py --results results_attacks

The attacks that train networks run with the first seed only; samia only in the paper's split, with 5 shadow models.
Each seed and split has its own results folder; what lies there already is not run again.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from attackers import ATTACKS, VERDICTS, unfit  # noqa: E402

SHADOWS, OF_SAMIA = 16, 5
NEURAL = ("samia", "nn", "nn_top3", "nn_cls")
MEASURES = ("accuracy", "auc", "tpr_at_0.01")


def run(stage: str, *words) -> None:
    print(stage, *words, flush=True)
    command = [sys.executable, PROJECT / f"{stage}.py", "cpu", PROJECT / "config/location.json", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def attacked(results: Path, split: str, seed: int, neural: bool) -> dict[str, list[dict]]:
    """Run what is missing with one seed; returns what was found of the "original" and the "pruned" victim."""
    same = ("--results", results, "--seed", seed, "--shadow_num", SHADOWS)
    apart = {"samia", "lira_online" if split == "inout" else "lira_offline"}  # which is what lira does there
    names = [name for name in ATTACKS if name not in apart and (neural or name not in NEURAL)
             and not unfit(name, online=split == "inout", shadow_num=SHADOWS)]
    run("pretrain", *same, "--split", split)
    run("prune", *same)
    found = {}
    for version, words in (("pruned", ()), ("original", ("--original",))):
        run("mia", *same, "--attacks", ",".join(names), *words)
        if neural and split == "paper":
            run("mia", *same[:-1], OF_SAMIA, "--attacks", "samia", *words)
        folder = "l1unstructure_0.7_model" if version == "pruned" else "victim_model"
        text = (results / "location_columnfc" / folder / "attacks.jsonl").read_text()
        found[version] = [json.loads(line) for line in text.splitlines()]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--results", type=Path, default=Path("results_attacks"))
    parser.add_argument("--no-neural", dest="neural", action="store_false", help="leave out the attacks that take long")
    args = parser.parse_args()
    for split in ("paper", "inout"):
        values: dict[tuple, list[float]] = {}
        for seed in args.seeds:
            found = attacked(args.results / f"{split}_{seed}", split, seed, args.neural and seed == args.seeds[0])
            for version, lines in found.items():
                values.setdefault((version, "test_accuracy"), []).append(lines[0]["test_accuracy"])
                for line in lines:
                    for measure in MEASURES:
                        if line[measure] is not None:
                            values.setdefault((version, line["attack"], measure), []).append(line[measure])
        _show(split, values)


def _show(split: str, values: dict[tuple, list[float]]) -> None:
    def cell(*key) -> str:
        numbers = [100 * value for value in values.get(key, ())]
        spread = f" ({statistics.stdev(numbers):.1f})" if len(numbers) > 1 else ""
        return f"{statistics.mean(numbers):.1f}{spread}" if numbers else "-"

    print(f"\n{split}: victim's test accuracy {cell('original', 'test_accuracy')}, "
          f"pruned {cell('pruned', 'test_accuracy')}\n")
    print("| | original: accuracy | AUC | TPR at 1 % FPR | pruned: accuracy | AUC | TPR at 1 % FPR | seeds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in VERDICTS:
        if (seeds := values.get(("pruned", name, "auc"))):
            cells = [cell(version, name, measure) for version in ("original", "pruned") for measure in MEASURES]
            print(f"| `{name}` | {' | '.join(cells)} | {len(seeds)} |")


if __name__ == "__main__":
    main()
