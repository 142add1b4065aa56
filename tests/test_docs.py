"""README and docs: short, and every link leads somewhere."""

import re

import pytest
from helpers import PROJECT

from bench.options import OPTIONS

PAGES = sorted(
    [PROJECT / "README.md", *PROJECT.glob("docs/*.md"), *PROJECT.glob("CONTRIBUTING.md")]
)


def anchors(text):
    """GitHub's names of a page's headings."""
    heads = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match("https?:", target):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


def test_the_readme_is_short_and_names_every_page():
    readme = (PROJECT / "README.md").read_text()
    assert len(readme.encode()) < 12_000
    assert all(f"docs/{page.name}" in readme for page in PROJECT.glob("docs/*.md"))


def test_every_option_has_a_row():
    rows = [
        line
        for line in (PROJECT / "docs/options.md").read_text().splitlines()
        if line.startswith("|")
    ]
    for name, option in OPTIONS.items():
        if option.stages:
            assert any(
                f"`--{name}`" in row.split("|")[1] or f"`{name}`" in row.split("|")[1]
                for row in rows
            ), name
