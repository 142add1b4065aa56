"""Which numbers figures show, and what is said where there is none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_helpers import page_of, rows, run

import attackers.neural
import mia
import pretrain
import report
from attackers import VERDICTS
from base_model import TrainConfig
from bench.results import find_results
from core.files import packed_arrays, read_arrays, sealed_json
from defenders.accounting import NO_GUARANTEE, advantage_bound, rounded_up
from reporting import figures
from reporting.columns import ordered_attacks
from reporting.figures import RocCurve
from reporting.pictures import epsilon_figure, rates_within
from reporting.results import results_table
from reporting.signal_pictures import true_class_signals
from reporting.signal_plots import TrueClassSignals, class_means
from reporting.style import attack_handles, line_style, line_styles
from reporting.summary import label_configurations, summarise


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_no_epsilon_of_seeded_noise_stands_alone(made, tmp_path, old):
    """Nor one of a model from before there was secret noise, whose files do not say how it was."""
    shutil.copytree(made, tmp_path / "results")
    for manifest in (tmp_path / "results").rglob("l1*_dp_*/manifest.json"):
        told = json.loads(manifest.read_text())
        del told["sha256"]
        told["privacy"] |= {"noise": "seeded"}
        if old:
            del told["privacy"]["noise"], told["options"]["dp_noise"]
        manifest.write_bytes(sealed_json(told))
    table = report.load_results(tmp_path / "results")
    private = table["defend"] == "dp"
    assert set(table.loc[private, "caveat"]) == {NO_GUARANTEE} and set(
        table.loc[private, "dp_noise"]
    ) == {"seeded"}
    assert report.main([str(tmp_path / "results")]) == 0
    for name in ("report.csv", "report.md", "report.html"):
        text = (tmp_path / "results" / name).read_text()
        epsilon = rounded_up(
            table.loc[private, "epsilon"].iloc[0], decimals=0 if table["epsilon"].max() > 100 else 2
        )
        shown = [line for line in text.splitlines() if f"{epsilon}" in line and "dp 0.1" in line]
        assert (shown or name == "report.csv") and all(NO_GUARANTEE in line for line in shown)
        of_dp = (
            [line for line in text.splitlines() if ",dp," in line] if name == "report.csv" else []
        )
        assert all(NO_GUARANTEE in line for line in of_dp) and (of_dp or name != "report.csv")
    caption = (
        (tmp_path / "results" / "report.md")
        .read_text()
        .split("Epsilon against attack advantage", 1)[1]
    )
    assert f"Of victims of seeded noise, {NO_GUARANTEE}." in caption


def test_a_bound_is_drawn_of_secret_noise_only(monkeypatch):
    table = pd.concat(
        [
            rows(
                ("conf", 7, 0.6),
                defend="dp",
                defend_arg=1.0,
                from_scratch=True,
                epsilon=2.0,
                delta=1e-4,
                caveat=caveat,
                dp_noise="",
            )
            for caveat in ("", NO_GUARANTEE)
        ],
        ignore_index=True,
    )
    drawn = []
    monkeypatch.setattr(
        figures,
        "epsilon",
        lambda panels, bounded, delta: drawn.append((set(panels), bounded)) or b"",
    )
    epsilon_figure(summarise(label_configurations(table)[0]))
    ((panels, bounded),) = drawn
    assert (
        len(panels) == 2
        and len(bounded) == 1
        and not any(NO_GUARANTEE in panel for panel in bounded)
    )
    assert all((NO_GUARANTEE in panel) == ("seeded noise" in panel) for panel in panels)


def test_rates_are_the_largest_within_the_limit():
    class Readable:
        def truth(self, line):
            return {
                "member": np.array([1, 1, 1, 0, 0, 1], bool),
                "scores": np.array([9, 8, 5, 6, 1, 0.5]),
            }

    assert rates_within(Readable(), {}, np.array([0.1, 0.5, 0.9, 1.0])).tolist() == [
        0.5,
        0.75,
        0.75,
        1.0,
    ]


def test_means_by_class_worked_by_hand():
    answers = TrueClassSignals(
        np.array([1.0, 0.5, 0.2, 0.4, 0.9]),
        np.array([0, 0, 0, 1, 1]),
        np.array([True, True, False, True, True]),
        1,
    )
    assert class_means(answers, least=1).to_dict("index") == {
        0: pytest.approx({"members": 0.75, "non_members": 0.2, "gap": 0.55})
    }
    assert class_means(answers, least=2).empty


def test_every_attack_has_a_line_style_of_its_own_whatever_its_options():
    styles = [tuple(line_style(name).values()) for name in VERDICTS]
    assert len(set(styles)) == len(styles)
    both = pd.concat([rows(("rmia", 7, 0.6), rmia_a=a) for a in (0.2, 0.3)], ignore_index=True)
    handles = attack_handles(label_configurations(both)[0])
    assert [handle.get_label() for handle in handles] == ["rmia (rmia_a 0.2)", "rmia (rmia_a 0.3)"]
    assert {handle.get_color() for handle in handles} == {line_style("rmia")["color"]}


def test_curves_of_an_attack_with_other_releases_are_told_apart():
    both = pd.concat(
        [
            rows(("lira_joint", 7, 0.6), ("rmia", 7, 0.6), also=names)
            for names in ("int8", "original")
        ]
    )
    both.loc[both["attack"] == "rmia", "also"] = ""
    named = label_configurations(both.reset_index(drop=True))[0]
    styles = line_styles(ordered_attacks(named))
    joint = [styles[f"lira_joint + {names}"] for names in ("int8", "original")]
    assert joint[0] == line_style("lira_joint") and styles["rmia"] == line_style("rmia")
    assert joint[0]["color"] == joint[1]["color"] and joint[0]["linestyle"] != joint[1]["linestyle"]
    curve = RocCurve("lira_joint", np.array([0.1, 1.0]), np.array([0.2, 1.0]), 0.6)
    names = ("lira_joint + int8", "lira_joint + original")
    figure = figures.roc.__wrapped__({"v": dict.fromkeys(names, curve)})
    (first, second) = figure.axes[0].get_lines()[1:]
    assert first.get_color() == second.get_color()
    assert first._dash_pattern != second._dash_pattern


def test_answers_of_the_true_class_are_those_of_the_targets(made):
    folder = made / "tiny" / "seed_7" / "tiny_columnfc" / "l1unstructure_0.7_model"
    found = {place.folder: place for place in find_results(made)}[folder]
    kept = np.load(folder / "logits.npz")
    scores = np.load(folder / "scores.npz")
    target = found.lines[0]["targets"]
    table = label_configurations(results_table([found], made))[0]
    answers = true_class_signals(table, "logits")
    logits = {number: row for number, row in zip(kept["records"], kept["answers"])}
    expected = [
        np.exp(logits[number][label]) / np.exp(logits[number]).sum()
        for number, label in zip(scores[f"records_{target}"], scores[f"labels_{target}"])
    ]
    assert answers.value == pytest.approx(np.array(expected), rel=1e-5)
    assert answers.member.tolist() == scores[f"member_{target}"].tolist()
    part = np.load(folder.parent / "split.npz")
    assert set(scores[f"records_{target}"][answers.member]) == set(part["victim_train"])


def test_with_sensitivities_they_are_drawn(write_config, tmp_path, monkeypatch):
    monkeypatch.setattr(attackers.neural, "CONFIG", TrainConfig(epochs=1, optimizer="sgd"))
    config = write_config()
    run(pretrain, config)
    run(mia, config, "--original", "--attacks", "samia")
    page = page_of(Path("results"), tmp_path)
    assert "Sensitivity by class" in page and "Confidence by class" in page


def test_numbers_of_shadow_models_have_a_figure(made, tmp_path, results):
    config = str(next(made.parent.glob("tiny.json")))
    run(
        mia,
        config,
        "--results",
        str(results / "tiny" / "seed_7"),
        "--attacks",
        "threshold",
        "--shadow_num",
        "2",
    )
    page = page_of(results, tmp_path)
    assert (
        "against the number of shadow models" in page
        and "l1unstructure 70 %, 2 shadow models" in page
    )


def test_without_sensitivities_the_page_says_so(written):
    page = (written / "report.html").read_text()
    assert "run samia, which asks for them" in page and "Confidence by class" in page
    assert "Sensitivity by class" not in page


def test_answers_without_the_numbers_of_records_are_left_out(results, tmp_path):
    for path in results.rglob("logits.npz"):
        facts, arrays = read_arrays(path)
        path.write_bytes(packed_arrays(facts, {"answers": arrays["answers"]}))
    page = page_of(results, tmp_path)
    assert (
        "mia.py --fresh" in page
        and "Confidence by class" not in page
        and '<h3 id="s1-roc">' in page
    )


def test_answers_of_another_model_are_not_shown(results, tmp_path):
    for path in results.rglob("logits.npz"):
        facts, arrays = read_arrays(path)
        path.write_bytes(packed_arrays(facts | {"model": "another"}, arrays))
    assert "Confidence by class" not in page_of(results, tmp_path)


@pytest.mark.parametrize("epsilon, delta", [(0.1, 1e-5), (1.0, 1e-3), (2.0, 0.0), (0.5, 0.2)])
def test_the_bound_of_the_advantage_by_brute_force(epsilon, delta):
    """Over all pairs of rates that an exchange of one record allows, two steps of (epsilon, delta)."""
    factor, slack = np.exp(2 * epsilon), delta * (1 + np.exp(epsilon))
    fpr, tpr = np.meshgrid(np.linspace(0, 1, 2001), np.linspace(0, 1, 2001))
    allowed = (tpr <= factor * fpr + slack) & (1 - fpr <= factor * (1 - tpr) + slack)
    most = (tpr - fpr)[allowed].max()
    assert advantage_bound(np.array([epsilon]), delta)[0] == pytest.approx(most, abs=2e-3)
    assert advantage_bound(np.array([1e3]), delta)[0] == 1
