"""What is written: the page, the same as Markdown and as CSV."""

import csv
import itertools
import json
import re
import shutil

from report_helpers import page_of, tables

import report


def test_a_study_is_headed_by_what_it_is_about_and_lies_in_its_folder(results, tmp_path):
    (tmp_path / "tiny.json").write_text(
        json.dumps({"about": "Is <b>5 & 7</b> more?", "seed": [7, 8]})
    )
    assert report.main([str(results), "--study", str(tmp_path / "tiny.json")]) == 0
    page = (results / "tiny" / "report.html").read_text()
    assert (
        "Is &lt;b&gt;5 &amp; 7&lt;/b&gt; more?" in page
        and "<h1>Membership inference: tiny</h1>" in page
    )
    assert not (results / "report.html").exists()


def test_out_is_where_it_is_written_with_the_images_of_markdown(made, written):
    pictures = re.findall(r"\]\((report_figures/.*?png)\)", (written / "report.md").read_text())
    assert len(pictures) >= 6 and len(set(pictures)) == len(pictures)
    assert all((written / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert not list(made.rglob("report*"))


def test_csv_and_markdown_equal_the_tables_of_the_page(written):
    page = (written / "report.html").read_text()
    said = {
        (row["victim"], row["attack"]): row
        for row in csv.DictReader((written / "report.csv").open())
        if row["measure"] == "accuracy"
    }
    head, *body = tables(page)["Attack accuracy"]
    names = [" ".join(text) for text, _ in head]
    cells = {
        (" ".join(row[0][0]), name): cell
        for row in body
        for name, cell in zip(names[2:], row[2:])
        if cell[0]
    }
    assert cells.keys() == said.keys() and len(cells) > 20
    for key, (text, bold) in cells.items():
        row = said[key]
        assert text == [f"{100 * float(row['mean']):.1f}", "±", f"{100 * float(row['sd']):.1f}"]
        assert bold == (row["best"] == "True")
    markdown = (written / "report.md").read_text()
    for (victim, _), (text, bold) in cells.items():
        line = next(
            line
            for line in markdown.split("### Attack accuracy\n")[1].splitlines()
            if line.startswith(f"| {victim} |")
        )
        assert ("**{}**" if bold else "| {} |").format(" ".join(text)) in line
    for victim, best in itertools.groupby(sorted(said.items()), key=lambda item: item[0][0]):
        best = [row for _, row in best]
        assert max(best, key=lambda row: float(row["mean"]))["best"] == "True"


def test_names_are_escaped(results, tmp_path):
    evil = results / "<img src=x onerror=alert(1)>"
    shutil.move(results / "tiny" / "seed_8", evil)
    (evil / "tiny_columnfc" / "victim_model" / "attacks.jsonl").unlink()  # so that its name is told
    page = page_of(results, tmp_path)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img src=x" not in page
    assert "<img src=x" not in (tmp_path / "out" / "report.md").read_text()


def test_one_seed_has_no_deviation(results, tmp_path):
    shutil.rmtree(results / "tiny" / "seed_8")
    page = page_of(results, tmp_path)
    assert all("±" not in text for row in tables(page)["Attack accuracy"] for text, _ in row)
    assert "1 seed" in page


def test_an_original_alone(results, tmp_path):
    for folder in (results / "tiny").glob("seed_*/tiny_columnfc/l1unstructure*"):
        shutil.rmtree(folder)
    page = page_of(results, tmp_path)
    assert "there is one victim only" in page and page.count("<img") >= 3
    assert [row[0][0] for row in tables(page)["Attack accuracy"]] == [["victim"], ["original"]]
