"""The page as a browser shows it."""

import re

import pandas as pd
import pytest
from report_helpers import rows

from attackers import VERDICTS
from reporting.answer import answer
from reporting.columns import MEASURES
from reporting.document import Cell, Page, Section, Table
from reporting.findings import findings, original_of
from reporting.page import as_html
from reporting.summary import label_configurations, network_accuracies, summarise
from reporting.tables import accuracy_table, change_table, measure_table
from reporting.untested import untested

pytestmark = pytest.mark.browser


@pytest.mark.browser
def test_the_page_in_a_browser(written, browser):
    page = (written / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)|url\(|@import|https?://""", page)
    browser.get((written / "report.html").as_uri())
    images = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth])"
    )
    assert len(images) >= 6 and all(complete and width > 0 for complete, width in images)
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )
    links = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"
    )
    assert links and all(
        browser.execute_script("return document.querySelector(arguments[0]) !== null", link)
        for link in links
    )

    def column(at):
        return browser.execute_script(
            "return [...document.querySelector('table.attacks').tBodies[0].rows]"
            ".map(row => row.cells[arguments[0]].dataset.key)",
            at,
        )

    heads = browser.find_elements("css selector", ".measure:first-of-type th")
    at = [head.text for head in heads].index("gap")  # not on all victims
    before = column(at)
    there = sorted((key for key in before if key), key=float)
    gone = [""] * before.count("")
    assert gone and there and before != there + gone
    up, down = there + gone, there[::-1] + gone
    for order, expected in (("ascending", up), ("descending", down), ("ascending", up)):
        heads[at].find_element("tag name", "button").click()
        assert column(at) == expected and heads[at].get_attribute("aria-sort") == order
    names = column(0)
    heads[0].find_element("tag name", "button").click()
    assert (
        heads[at].get_attribute("aria-sort") is None and sorted(names) == sorted(column(0)) != names
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.browser
def test_numbers_are_sorted_as_numbers(tmp_path, browser):
    keys = [9.5, 10.25, None, -3.0, 1e-5, 100.0]
    table = Table("t", "c", ["n"], [[Cell(str(key), key)] for key in keys])
    page = Page("t", "", "", "", [], [Section("s", victims=[table])])
    (tmp_path / "p.html").write_text(as_html(page))
    browser.get((tmp_path / "p.html").as_uri())
    browser.find_element("css selector", "th button").click()
    shown = browser.execute_script(
        "return [...document.querySelectorAll('td')].map(cell => cell.textContent)"
    )
    assert shown == ["-3.0", "1e-05", "9.5", "10.25", "100.0", "None"]


def wide_page(folder):
    """A page of tables as wide as they get: all attacks, one seed, an interval in each cell."""
    verdicts = list(VERDICTS)
    values = [(verdict, 7, 0.5 + number / 100) for number, verdict in enumerate(verdicts)]
    victim = {"prune_sparsity": 0.7, "train_accuracy": 0.9}
    original = {"original": True, "pruner_name": None, "prune_sparsity": float("nan")}
    named = label_configurations(
        pd.concat(
            [
                rows(*values, measure=measure, **columns)
                for measure in MEASURES
                for columns in (victim, victim | {"defend": "ppb", "adaptive": True}, original)
            ],
            ignore_index=True,
        )
    )[0]
    summary, accuracies = summarise(named), network_accuracies(named)
    section = Section("s", victims=[accuracy_table(accuracies)])
    section.answer = answer("s", findings(named, summary, accuracies), untested(named, named))
    section.measures += [
        measure_table(summary[summary["measure"] == measure], measure) for measure in MEASURES
    ]
    section.measures.append(change_table(named, original_of(named, accuracies)))
    path = folder / "wide.html"
    path.write_text(as_html(Page("t", "about", "", "", ["a note"], [section])))
    return path


@pytest.fixture
def at_width(browser):
    """at_width(pixels) -> the window is so wide inside."""

    def set_width(pixels):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )

    return set_width


def overflowing(browser):
    """Of the document and of each visible box how many pixels lie behind its edge, where any do."""
    return browser.execute_script(
        "return [document.documentElement, ...document.querySelectorAll('.scroll')]"
        ".map(box => [box.textContent.slice(0, 40), box.scrollWidth - box.clientWidth])"
        ".filter(([_, hidden]) => hidden > 0)"
    )


def choices(browser):
    """The labels of the switch."""
    return browser.find_elements("css selector", ".switch label")


def shown_measures(browser):
    """The titles of the tables of measures that can be seen."""
    return [
        table.get_attribute("data-title")
        for table in browser.find_elements("css selector", "table.attacks")
        if table.is_displayed()
    ]


@pytest.mark.browser
@pytest.mark.parametrize("pixels", [1400, 1920])
def test_no_column_is_hidden_on_a_wide_screen(written, tmp_path, browser, at_width, pixels):
    for path in (written / "report.html", wide_page(tmp_path)):
        at_width(pixels)
        browser.get(path.as_uri())
        for choice in choices(browser):
            choice.click()
            assert overflowing(browser) == []
    heads = browser.execute_script(
        "return [...document.querySelectorAll('table.attacks th')].map(head => head.textContent)"
    )
    assert set(VERDICTS) < set(heads)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('table, header, .figures')]"
        ".filter(box => box.offsetWidth).map(box => box.getBoundingClientRect().right)"
    )
    assert max(sizes) > 0.95 * pixels


@pytest.mark.browser
def test_a_narrow_screen_scrolls_tables_in_their_box_alone(written, tmp_path, browser, at_width):
    for path in (written / "report.html", wide_page(tmp_path)):
        at_width(400)
        browser.get(path.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        first = browser.find_element("css selector", "table.stacked td")
        assert first.value_of_css_property("display") == "block"  # a row is a block of its own
        assert browser.execute_script(
            "const box = document.querySelector('table.stacked').parentElement;"
            "return box.scrollWidth <= box.clientWidth"
        )


@pytest.mark.browser
@pytest.mark.parametrize("scripts", [True, False])
def test_measures_are_switched_in_place(tmp_path, browser, at_width, scripts):
    """By the page's style alone: without its script too."""
    path = wide_page(tmp_path)
    if not scripts:
        page = re.sub("<script>.*?</script>", "", path.read_text(), flags=re.DOTALL)
        path.write_text(page)
    at_width(1400)
    browser.get(path.as_uri())
    titles = [measure.title for measure in MEASURES.values()]
    titles.append("Change of attack accuracy by compression")
    assert shown_measures(browser) == titles[:1]
    assert len(choices(browser)) == len(titles)
    for choice, title in zip(choices(browser), titles):
        choice.click()
        assert shown_measures(browser) == [title]


@pytest.mark.browser
def test_without_the_pages_style_all_measures_stand_one_after_the_other(tmp_path, browser):
    path = wide_page(tmp_path)
    path.write_text(re.sub("<style>.*?</style>", "", path.read_text(), flags=re.DOTALL))
    browser.get(path.as_uri())
    assert len(shown_measures(browser)) == len(MEASURES) + 1
