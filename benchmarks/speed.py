"""How fast this code is on this machine, beside plain PyTorch and the obvious algorithms.

    python benchmarks/speed.py cpu
    python benchmarks/speed.py 0 --parts training,shadows

Appends a JSON line with the machine's description to --out and prints it as tables. Parts:

    training   records a second of training and of queries, each network, against a DataLoader with 4 workers
    location   wall time of pretrain, prune and mia on Location (which must be there or can be downloaded)
    threshold  the threshold search against one that tries every pair
    private    clipped gradients of DP-SGD, against torch.func and Opacus, which write out each record's; and the
               noise of a step at sparsity 0.7, secret and seeded, against torch's generator
    samia      a step of SAMIA's network in training: on the CPU in slices on all cores, against the whole batch with
               torch's own threads; on a GPU the whole batch
    shadows    time and peak memory of pretrain on Location with 1 to 256 shadow models
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from benchmarks import rates, stages, steps
from benchmarks.timing import machine
from core.parallel import tune_malloc

PARTS = rates.PARTS | steps.PARTS | stages.PARTS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("device", help="as for the stages: a GPU's number or cpu")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument(
        "--quick", action="store_true", help="training of columnfc only, little data: to see it run"
    )
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks" / "speed.jsonl")
    args = parser.parse_args()
    names = args.parts.split(",")
    unknown = set(names) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}: choose from {', '.join(PARTS)}")
    tune_malloc()
    line = machine(args.device)
    print(", ".join(f"{name} {value}" for name, value in line.items() if value is not None))
    for name in names:
        part = PARTS[name]
        line[name] = part.measure(args.device, **(part.quick if args.quick else {}))
        part.show(line[name])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"\nsaved {os.path.relpath(args.out)}")


if __name__ == "__main__":
    main()
