"""The README's table of differential privacy: Location, l1unstructure 0.7, from scratch, adaptive attacker, 5 shadows.

    python benchmarks/dp_table.py --results results_dp

For each noise multiplier epsilon, test accuracy and attack accuracy; above them the same without a defence. All
attacks' counts are held against what the guarantee allows. What lies in --results already is not run again. The noise
is secret, so that another run gives other figures, within their intervals.
"""
import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import numpy as np  # noqa: E402
from scipy.stats import binomtest  # noqa: E402

from attackers import Verdict  # noqa: E402
from attackers.metrics import accuracy_interval, balanced_accuracy  # noqa: E402
from core.files import read_arrays, read_sealed  # noqa: E402
from defenders.accounting import caveat  # noqa: E402

EPOCHS = 75  # at most, of private training from scratch; the 25 of fine-tuning are too few
THRESHOLDS = ("conf", "xent", "mentr", "top1_conf")


def run(stage: str, *words) -> None:
    print(stage, *words, flush=True)
    command = [sys.executable, PROJECT / f"{stage}.py", "cpu", PROJECT / "config/location.json", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def attacked(results: Path, seed: int, noise: float | None, samia: bool) -> tuple[dict, dict]:
    """Run what is missing; returns the victim's manifest and {attack: (decisions, members)}."""
    same = ["--results", results, "--seed", seed]
    run("pretrain", *same)
    if noise is None:
        folder, private = "l1unstructure_0.7_model", []
        run("prune", *same)
    else:
        folder = f"l1unstructure_0.7_dp_{noise:g}_scratch_model"
        private = ["--defend", "dp", "--defend_arg", noise, "--from_scratch"]
        run("prune_dp", *same, *private, "--prune_epochs", EPOCHS)
        private += ["--adaptive"]
    run("mia", *same, *private, "--attacks", "threshold" + ",samia" * samia)
    folder = results / "location_columnfc" / folder
    _, arrays = read_arrays(folder / "scores.npz")
    verdicts = {}
    for line in map(json.loads, (folder / "attacks.jsonl").read_text().splitlines()):
        verdict = Verdict(arrays[line["scores"]], arrays[f"{line['scores']}_threshold"])
        verdicts[line["attack"]] = verdict.member, arrays[f"member_{line['targets']}"]
    return read_sealed(folder / "manifest.json"), verdicts


def exceeds(decision: np.ndarray, member: np.ndarray, privacy: dict, epsilon: float, *, tests: int) -> bool:
    """Whether an attack is surely better than the guarantee allows (95 % over all `tests`, Bonferroni).

    Members and non-members differ by a substitution, two steps of adding or removing: TPR <= exp(2 epsilon) FPR +
    delta (1 + exp(epsilon)), and the same of (1 - FPR, 1 - TPR).
    """
    if 2 * epsilon > 700:
        return False  # whatever that allows is more than 1
    slack = privacy["delta"] * (1 + math.exp(epsilon))

    def rate(right: np.ndarray):
        return binomtest(int(right.sum()), len(right)).proportion_ci(1 - 0.05 / tests, method="exact")

    found = ((rate(decision[member]), rate(decision[~member])), (rate(~decision[~member]), rate(~decision[member])))
    return any(true.low > math.exp(2 * epsilon) * false.high + slack for true, false in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.1, 1.0, 4.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--results", type=Path, default=Path("results_dp"))
    parser.add_argument("--no-samia", dest="samia", action="store_false", help="leave out what takes long")
    args = parser.parse_args()
    rows, counts = [], []
    for noise in (None, *args.noise):
        manifests, pooled = [], {}
        for seed in args.seeds:
            found, verdicts = attacked(args.results / f"seed_{seed}", seed, noise, args.samia and seed == args.seeds[0])
            manifests.append(found)
            for name, pair in verdicts.items():
                pooled.setdefault(name, []).append(pair)
        pooled = {name: tuple(map(np.concatenate, zip(*pairs))) for name, pairs in pooled.items()}
        best = max(THRESHOLDS, key=lambda name: balanced_accuracy(*pooled[name]))
        privacy = manifests[0]["privacy"]
        epsilon = privacy and privacy["epsilon"]
        accuracies = [100 * found["accuracy"]["test"] for found in manifests]
        said = "; ".join(sorted(filter(None, {caveat(found["privacy"]) for found in manifests})))
        rows.append(["-" if noise is None else f"{noise:g}", "-" if epsilon is None else
                     f"{epsilon:.3g}" + (f" ({said})" if said else ""),
                     f"{statistics.mean(accuracies):.1f}", f"{_cell(pooled[best])} (`{best}`)",
                     _cell(pooled["samia"]) if "samia" in pooled else "-"])
        if epsilon is not None:
            counts += [(noise, name, pair, privacy, epsilon) for name, pair in pooled.items()]
    print("\n| noise multiplier | epsilon | test accuracy | strongest threshold attack | samia |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    beyond = [f"{name} at {noise:g}" for noise, name, pair, privacy, epsilon in counts
              if exceeds(*pair, privacy, epsilon, tests=len(counts))]
    print(f"\nattacks of {len(counts)} that are surely better than the guarantee allows: {', '.join(beyond) or 'none'}")


def _cell(pair: tuple[np.ndarray, np.ndarray]) -> str:
    low, high = accuracy_interval(*pair)
    return f"{100 * balanced_accuracy(*pair):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
