"""The page of an audit: what it says is what was found, and it can be read by anyone."""

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import audit_cases
import numpy as np
import pytest

from attackers.evidence import Verdict
from attackers.metrics import measures
from auditing import page, tables
from auditing.result import AttackResult, GroupRisk
from reporting import figures as reported
from reporting.columns import MEASURES

CASES = ["full", "minimal", "silent"]


@pytest.fixture(scope="module")
def audits():
    return {name: getattr(audit_cases, name)() for name in CASES}


@pytest.fixture
def without_images(monkeypatch):
    """Figures are drawn, but no image is made of them, which takes long."""
    monkeypatch.setattr(
        reported.Figure, "savefig", lambda figure, file, **how: file.write(b"no image")
    )


class Reader(HTMLParser):
    """All text, the rows of each table by its name, tags with their attributes, and headings."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.texts, self.ignored = [], {}, [], False
        self.cell = None
        self.feed(html)
        self.text = " ".join("".join(self.texts).replace("\xa0", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ignored = tag == "style"
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs).get("aria-label"), [])
        elif tag == "caption":
            self.cell = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.cell = []
        if tag in ("small", "li", "p", "dd", "div", "th", "td"):
            self.handle_data(" ")

    def handle_endtag(self, tag):
        self.ignored = False
        if tag == "caption":
            name = "".join(self.cell).strip()
            self.rows = self.tables.setdefault(name, [])
            self.cell = None
        elif tag in ("th", "td"):
            self.rows[-1].append(" ".join("".join(self.cell).replace("\xa0", " ").split()))
            self.cell = None

    def handle_data(self, data):
        if not self.ignored:
            self.texts.append(data)
        if self.cell is not None:
            self.cell.append(data)


def read(audit):
    return Reader(page.as_html(audit))


def in_percent(value):
    return f"{100 * value:.2f} %" if 0 < value < 0.01 else f"{100 * value:.1f} %"


def figure_in_table(attack, measure):
    """How a table has a figure: its value, and the ends of its interval."""
    value, interval = attack.measures[measure], attack.measures.get(f"{measure}_interval")
    if value is None or interval is None:
        return "–"
    if measure == "auc":
        return f"{value:.3f} {interval[0]:.3f} to {interval[1]:.3f}"
    digits = 2 if interval[1] < 0.01 else 1
    ends = f"{100 * interval[0]:.{digits}f} to {100 * interval[1]:.{digits}f} %"
    return f"{in_percent(value)} {ends}"


@pytest.mark.parametrize("case", CASES)
def test_the_page_stands_alone_and_says_nothing_of_missing_values(case, audits, tmp_path):
    page.write_page(audits[case], tmp_path)
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["audit.html"]
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\(|@import|https?://|<script""", html)
    text = Reader(html).text
    assert not re.search(r"\bNone\b(?!\.)|\b(nan|NaN|inf|True|False|null|undefined)\b|[{}]", text)


@pytest.mark.parametrize("case", CASES)
def test_it_can_be_read_without_eyes_or_colours(case, audits, without_images):
    tags = read(audits[case]).tags
    assert dict(tags)["html"]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert all(len(attributes["alt"]) > 20 for tag, attributes in tags if tag == "img")


@pytest.mark.parametrize(
    "outcome, word", [("pass", "✓ Pass"), ("fail", "✕ Fail"), ("inconclusive", "? Inconclusive")]
)
def test_the_outcome_comes_first_in_a_word(outcome, word, audits, without_images):
    text = read(replace(audits["full"], outcome=outcome)).text
    assert word in text[: text.index("Gate ")]


def test_no_gates_no_decision(audits, without_images):
    text = read(audits["minimal"]).text
    assert "Not decided" in text and "decides nothing" in text
    assert not any(word in text for word in ("Pass", "Fail", "Inconclusive"))


def test_gates_say_what_came_of_them_and_what_to_add(audits, without_images):
    audit = audits["full"]
    rows = read(audit).tables["Gates"][1:]
    assert [row[1].split()[-1].lower() for row in rows] == [gate.outcome for gate in audit.gates]
    for row, gate in zip(rows, audit.gates):
        assert row[0].startswith(gate.condition)
        assert row[2].endswith(f" by {gate.attack}")
        value, _, ends = row[2].removesuffix(f" by {gate.attack}").partition(" (")
        whole = next(one for one in audit.attacks if one.name == gate.attack)
        assert f"{value} {ends.removesuffix(')')}" == figure_in_table(whole, gate.measure)
        assert gate.reason.rstrip(".") in row[3] and all(text in row[3] for text in gate.add)
    (row,) = read(audits["silent"]).tables["Gates"][1:]
    assert row[2] == "–" and "shadow models; known non-members" in row[3]


@pytest.mark.parametrize("case", ["full", "minimal"])
def test_each_attack_is_in_the_table_with_its_figures(case, audits, without_images):
    audit = audits[case]
    head, *rows = read(audit).tables["Attacks"]
    assert len(rows) == len(audit.attacks) and len(head) == 2 + len(MEASURES)
    for row in rows:
        (attack,) = [
            one for one in audit.attacks if row[0].split()[0] == one.name and row[1] == one.release
        ]
        assert " ".join(attack.about.split()) in row[0]
        assert row[2:] == [figure_in_table(attack, measure) for measure in MEASURES]
    on_released = [row for row in rows if row[1] != "original"]
    assert rows[: len(on_released)] == on_released
    areas = [float(row[3].split()[0]) for row in on_released]
    assert areas == sorted(areas, reverse=True)


def test_the_strongest_attack_is_named_with_all_its_figures(audits, without_images):
    audit = audits["full"]
    strongest, text = audit.attacks[audit.strongest], read(audit).text
    part = text[text.index("The strongest attack:") : text.index("What was audited")]
    assert strongest.name in part
    for measure in ("accuracy", "auc", "tpr_at_0.1", "tpr_at_0.01"):
        value, _, ends = figure_in_table(strongest, measure).partition(" ")
        assert value in part and ends.removeprefix("% ") in part
    assert "TPR at FPR 0.1 %" not in part
    card = text[text.index("Membership inference was tested") :]
    for measure in ("accuracy", "auc", "tpr_at_0.01"):
        figure = figure_in_table(strongest, measure)
        value = re.match(r"[\d.]+( %)?", figure)[0]
        assert f"{value} (95 % interval {figure[len(value) + 1 :]})" in card


def test_what_was_not_made_is_said_with_its_reason(audits, without_images):
    text = read(audits["full"]).text
    assert "blindmi, blindmi_scaled: it needs outputs on generated records" in text
    assert all(f"{each.reason}" in text for each in audits["full"].untested)


def test_compression_is_judged_by_the_interval_of_the_difference(audits, without_images):
    audit = audits["full"]
    found = audit.comparisons[0]
    cases = {(-0.03, -0.01): "less", (0.01, 0.03): "more", (-0.01, 0.01): "not told apart"}
    for (low, high), words in cases.items():
        change = replace(found.difference, low=low, high=high)
        other = replace(found, attack="aaa", measure="accuracy", original=0.6, released=0.55)
        moved = replace(audit, comparisons=[other, replace(found, difference=change)])
        head, first, second = read(moved).tables["Released against original"]
        assert head == ["Attack", "Accuracy", "AUC"]
        assert first[:2] == ["lira", "–"] and second[2] == "–"  # the strongest comes first
        assert first[2].replace("−", "-") == (
            f"{found.difference.value:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"{found.original:.3f} → {found.released:.3f}: {words}"
        )
        assert "60.0 % → 55.0 %" in second[1]


def test_groups_are_sorted_by_what_is_certain(audits, without_images):
    audit = audits["full"]
    shown = read(audit).tables
    for kind, title in (("group", "Groups most at risk"), ("class", "Classes most at risk")):
        every = {one.name: one for one in audit.groups if one.kind == kind and one.auc}
        rows = shown[title][1:]
        lows = [every[row[0]].auc.low for row in rows]
        assert lows == sorted((one.auc.low for one in every.values()), reverse=True)[: len(rows)]
        for name, counts, area, named in rows:
            group = every[name]
            assert counts == f"{group.members}, {group.non_members}"
            assert area.startswith(f"{group.auc.value:.3f} {group.auc.low:.3f}")
            assert named.startswith(in_percent(group.named_members.value))
    assert "islands" == shown["Groups most at risk"][1][0]
    (few,) = [one for one in audit.groups if one.auc is None]
    assert f"abroad ({few.members} + {few.non_members})" in read(audit).text


def test_groups_that_all_have_too_few_records():
    groups = [GroupRisk("group", f"g{n}", n, 2, None, None, None) for n in range(8)]
    audit = replace(audit_cases.minimal(), groups=groups)
    table, text = tables.group_table(audit, "group")
    assert table is None and "g5 (5 + 2) and 2 more" in text
    assert tables.group_table(audit, "class") == (None, "")


def test_records_most_at_risk_are_members_by_score(audits, without_images):
    audit = audits["full"]
    records, scores = audit.records, audit.attacks[audit.strongest].scores
    rows = read(audit).tables["Records most at risk"][1:]
    best = sorted(np.flatnonzero(records.member), key=lambda at: -scores[at])[:10]
    assert len(rows) == 10
    for row, at in zip(rows, best):
        as_high = sum(scores[~records.member] >= scores[at])
        assert row == [
            records.record_ids[at],
            str(records.labels[at]),
            f"{as_high} of {(~records.member).sum():,}",
            f"{records.memorisation[at]:.2f}".replace("-", "−"),
        ]
    assert len(read(audits["minimal"]).tables["Records most at risk"][0]) == 3
    assert "this order may be chance" in read(audits["minimal"]).text


def test_records_that_score_alike_count_and_the_better_remembered_comes_first(
    audits, without_images
):
    audit = audits["full"]
    gap = next(at for at, one in enumerate(audit.attacks) if one.name == "gap")
    records, called = audit.records, audit.attacks[gap].scores == 1
    rows = read(replace(audit, strongest=gap)).tables["Records most at risk"][1:]
    best = np.sort(records.memorisation[records.member & called])[::-1][:10]
    assert [row[3] for row in rows] == [f"{gain:.2f}" for gain in best]
    assert {row[2] for row in rows} == {f"{(called & ~records.member).sum():,} of 2,500"}


def test_what_users_name_is_escaped(audits, without_images):
    audit, bad = audits["full"], "<script>alert('x')</script>&amp;"
    first = replace(audit.groups[-1], name=bad)
    ids = np.full(len(audit.records.member), bad)
    html = page.as_html(
        replace(
            audit,
            subject=replace(audit.subject, title=bad, files={bad: "0" * 64}),
            command=bad,
            versions={bad: bad},
            groups=[*audit.groups[:-1], first],
            records=replace(audit.records, record_ids=ids),
            weaknesses=[bad],
            warnings=[bad],
            gates=[replace(audit.gates[2], condition=bad, reason=bad, add=[bad])],
        )
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;amp;") >= 19


def test_scores_that_say_little(audits):
    """The only attack has binary scores, or all equal ones."""
    audit = audits["minimal"]
    (gap,) = [one for one in audit.attacks if one.name == "gap"]
    reader = read(replace(audit, attacks=[gap], strongest=0))
    assert [tag for tag, _ in reader.tags].count("img") == 1  # no ROC of a single point
    member, labels = audit.records.member, audit.records.labels
    verdict = Verdict(np.zeros(len(member)), 1.0)
    found = measures(verdict, member, labels, num_cls=audit_cases.CLASSES)
    equal = AttackResult(
        "loss", "the loss", "released", found, verdict.scores, np.zeros(len(member), bool)
    )
    reader = read(replace(audit, attacks=[equal], strongest=None))
    assert "gives all records the same score" in reader.text
    assert "loss: all targets have the same score" in reader.text
    assert reader.tables["Attacks"][1][2:] == ["–"] * 5
    assert "Records most at risk" not in reader.tables
    nobody = dict.fromkeys(("accuracy", "accuracy_interval", "called_members"))
    no_threshold = replace(audit.attacks[0], measures=audit.attacks[0].measures | nobody)
    reader = read(replace(audit, attacks=[no_threshold]))
    assert reader.tables["Attacks"][1][2] == "–" != reader.tables["Attacks"][1][3]
    assert "No accuracy was measured" in reader.text


@pytest.mark.browser
@pytest.mark.parametrize("case", CASES)
def test_the_page_in_a_browser_and_on_paper(case, audits, tmp_path, browser):
    page.write_page(audits[case], tmp_path)
    for width in (1400, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((tmp_path / "audit.html").as_uri())
        script = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert browser.execute_script(script)
        script = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert browser.execute_script(script)
        assert browser.execute_script(CONTRASTS) >= 4.5  # WCAG 2.2, AA
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    paper = {"preferCSSPageSize": True, "printBackground": True, "transferMode": "ReturnAsStream"}
    stream = browser.execute_cdp_cmd("Page.printToPDF", paper)["stream"]
    assert sheets(browser, stream) <= 2


def sheets(browser, stream):
    """How many pages a printed PDF has."""
    import base64

    content, ended = b"", False
    while not ended:
        part = browser.execute_cdp_cmd("IO.read", {"handle": stream})
        text, ended = part["data"], part["eof"]
        content += base64.b64decode(text) if part.get("base64Encoded") else text.encode()
    pages = re.findall(rb"/Type\s*/Page\b", content)
    assert content.startswith(b"%PDF") and pages
    return len(pages)


# the smallest contrast of a text and the background that it stands on
CONTRASTS = """
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b]
  .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const has_text = element => [...element.childNodes]
  .some(node => node.nodeType === 3 && node.textContent.trim());
return Math.min(...[...document.body.querySelectorAll("*")].filter(has_text).map(element => {
  const pair = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}));
"""
