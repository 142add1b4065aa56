"""What tests of reports use: results as a table worked by hand, and a page's tables."""

import html
import json
import re

import pandas as pd

import report
from reporting.columns import RECORDED, SIZES


def run(stage, *words):
    assert stage.main(["cpu", *words]) == 0


def lines_of(folder):
    return [json.loads(line) for line in (folder / "attacks.jsonl").read_text().splitlines()]


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def rows(*values, **columns):
    """A table as `results_table` makes it, a row for each (attack, seed, accuracy)."""
    base = (
        {name: None for name in RECORDED}
        | dict.fromkeys(SIZES, float("nan"))
        | {
            "dataset_name": "d",
            "model_name": "m",
            "split": "paper",
            "shadow_num": 5,
            "pruner_name": "l1unstructure",
            "prune_sparsity": 0.7,
            "defend": "",
            "defend_arg": float("nan"),
            "from_scratch": False,
            "adaptive": False,
            "original": False,
            "device": "cpu",
            "measure": "accuracy",
            "low": 0.4,
            "high": 0.9,
            "members": 10,
            "non_members": 12,
            "train_accuracy": 0.9,
            "test_accuracy": 0.6,
            "epsilon": float("nan"),
            "delta": float("nan"),
            "caveat": "",
            "victim_results": None,
            "line": None,
            "delta_option": None,
            "also": "",
            "attacker_records": 1.0,
        }
        | columns
    )
    return pd.DataFrame(
        [
            base
            | {
                "attack": attack,
                "seed": seed,
                "train_seed": seed,
                "value": value,
                "folder": f"{seed}",
            }
            for attack, seed, value in values
        ]
    )


def trained(*values, **columns):
    """A table as `results_table` makes it, a row for each (attack, seed, training, accuracy)."""
    return pd.concat(
        [
            rows((attack, seed, value), **columns).assign(train_seed=training)
            for attack, seed, training, value in values
        ],
        ignore_index=True,
    )


def tables(page):
    """{title: [[(text, bold)]]}, the first row the header."""
    found = {}
    for title, body in re.findall(
        r'<table[^>]*data-title="([^"]*)">(.*?)</table>', page, re.DOTALL
    ):
        found[title] = [
            [
                (html.unescape(re.sub("<[^>]*>", " ", cell)).split(), "<b>" in cell)
                for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.DOTALL)
            ]
            for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
        ]
    return found


def page_of(results, folder):
    """The page on results, written into a folder."""
    assert report.main([str(results), "--out", str(folder / "out")]) == 0
    return (folder / "out" / "report.html").read_text()
