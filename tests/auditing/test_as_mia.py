"""The same answers through mia.py and through audit.py: the same figures to the digit."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import run

import audit
import mia
import pretrain
import prune
from bench.attacking import load_matchup, load_releases
from bench.command_line import parse
from bench.run import begin
from bench.signals import collect_signals

DIGITS = dict(
    dataset_name="digits", data_path=None, num_cls=10, input_dim=64, epochs=3, prune_epochs=2
)
ATTACKS = "threshold,gap,loss,calibrated,attack_p,lira,bavaria,rmia,base,ensemble,nn,nn_cls"
JOINT = "lira_joint,nn_joint"


def dump(path, argv):
    """Write what mia.py's attackers have of the models, as a user would have it."""
    options = parse("mia", ["cpu", *argv])
    the_run = begin(options)
    checkpoints = load_matchup(the_run)
    releases = load_releases(the_run, list(options.attacks))
    evidence = collect_signals(
        the_run, checkpoints, attacks=list(options.attacks), releases=releases
    )
    arrays = dict(
        labels=evidence.labels,
        member=np.isin(evidence.record_ids, the_run.splits["victim"].train),
        target=evidence.target,
        record_ids=evidence.record_ids,
        victim_logits=evidence.victim.logits,
        shadows_logits=np.stack([one.logits for one in evidence.shadows]),
        shadow_member=evidence.member,
        calibration_mask=evidence.calibration_mask,
    )
    for one in evidence.also.values():
        arrays |= dict(
            original_logits=one.victim.logits,
            original_shadows_logits=np.stack([shadow.logits for shadow in one.shadows]),
        )
    np.savez(path, **arrays)


@pytest.mark.slow
@pytest.mark.parametrize("split, shadows", [("inout", 8), ("paper", 4)])
def test_figures_are_those_of_mia(write_config, short_attack_training, split, shadows):
    config = write_config(**DIGITS, split=split, shadow_num=shadows)
    run(pretrain, config)
    run(prune, config)
    run(mia, config, "--attacks", ATTACKS)
    run(mia, config, "--attacks", JOINT, "--also", "original")
    run(mia, config, "--attacks", ATTACKS, "--original")
    dump("evidence.npz", [config, "--attacks", JOINT, "--also", "original"])
    words = ["evidence.npz", "--out", "out", "--attacks", f"{ATTACKS},{JOINT}"]
    assert audit.main(["answers", *words]) == 0
    expected = {}
    for file in Path("results").rglob("attacks.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            release = "original" if line["original"] else "both" if line.get("also") else "released"
            expected[line["attack"], release] = line
    found = json.loads(Path("out/audit.json").read_text())["attacks"]
    assert {(one["name"], one["release"]) for one in found} == expected.keys()
    assert len(found) == 2 * 15 + 2
    for one in found:
        line = expected[one["name"], one["release"]]
        for measure, value in one["measures"].items():
            assert value == line[measure], (one["name"], one["release"], measure)
