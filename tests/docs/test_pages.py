"""The pages say what is so: they are linked, complete, and their numbers and lists are those of the code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from api.app import endpoints
from api.reference import reference
from tests.docs.pages import PAGES, ROOT, name

DOCS = ROOT / "docs"
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_LOADS = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"((?:https?:)?//[^\"]+)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built with every warning an error: a page, an anchor or an entry of the menu that is not there."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run([zensical, "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site):
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")} - {Path("404.md")}
    assert built == {path.relative_to(DOCS) for path in DOCS.rglob("*.md")}
    for path in site.rglob("*.html"):
        assert not _LOADS.findall(path.read_text()), path


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name)
def test_links_lead_somewhere(page):
    for link in _LINK.findall(page.read_text()):
        if not link.startswith(("http", "#", "mailto:")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{name(page)}: {link}"


def test_the_reference_is_that_of_the_code():
    assert (DOCS / "api.md").read_text() == reference(endpoints().openapi()), "make docs writes it anew"


def test_all_decisions_are_listed_by_their_titles():
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", (DOCS / "adr" / "index.md").read_text(), re.MULTILINE)
    decisions = sorted((DOCS / "adr").glob("0*.md"))
    assert listed == [(path.read_text().partition("\n")[0].strip("# "), path.name) for path in decisions]


def test_numbers_for_the_choice_are_those_of_the_results():
    rows = [_cells(line) for line in (DOCS / "choosing.md").read_text().splitlines() if line.startswith("| `")]
    study = (DOCS / "results.md").read_text().partition("## Fashion-MNIST, every method")[2].partition("\n## ")[0]
    table = study.partition("\nThe 6 best")[0]
    measured = {cells[0].rpartition("/")[2]: cells for cells in map(_cells, table.splitlines()) if len(cells) > 5}
    assert len(rows) >= 13
    for defense, *numbers, _ in rows:
        found = measured[defense.strip("`")]
        assert numbers == [found[2], found[4], found[5]], defense


def test_every_error_has_a_meaning():
    rows = [_cells(line) for line in (DOCS / "errors.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 90
    assert [row[0] for row in rows if not row[1] or not row[2 if len(row) == 4 else 1]] == []


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]
