"""The documentation's pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "client" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = ("sh", "console", "python")
OTHERS = ("json", "yaml", "mermaid", "nginx")
_MARK = re.compile(r"<!-- (run by|not run|given|file): (.*?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Comments before it, which no reader sees, say more: ``run by: PATH`` of the test that runs it; ``not run: WHY``
    where nothing here can; ``given: CODE`` to run first; ``file: PATH`` where a reader is to put it.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def runs(self) -> bool:
        """Whether it is to be run as it stands."""
        return self.language in COMMANDS and not self.marks.keys() & {"run by", "not run", "file"}

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command of a shell block with the output that the page shows; a ``sh`` block is one without any."""
        if self.language != "console":
            yield self.text, ""
            return
        command, output = "", ""
        for line in self.text.splitlines(keepends=True):
            if command and not _is_whole(command):
                command += line
            elif line.startswith("$ "):
                if command:
                    yield command, output
                command, output = line[2:], ""
            else:
                output += line
        yield command, output


def _is_whole(command: str) -> bool:
    if command.rstrip("\n").endswith("\\"):
        return False
    try:
        shlex.split(command, comments=True)
    except ValueError:  # a quotation goes on
        return False
    return True


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found, marks = [], {}
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block":
            marks |= dict(_MARK.findall(token.content))
        elif token.type == "fence":
            found.append(Block(page, token.map[0] + 1, token.info, token.content, marks))
            marks = {}
        elif token.type.endswith("_open"):
            marks = {}
    return found
