"""Reads a page as strictly as its tests need: every element closed, in order, and what it refers to."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A parsed page: ``elements`` as (tag, attributes), ``text``, and the cells of tables by the table's id."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self._open: list[str] = []
        self._table: list[list[str]] | None = None
        self.feed(markup)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(dict(attrs).get("id", ""), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, (tag, self._open)
        self._open.pop()

    def handle_data(self, data):
        self.texts.append(data)
        if self._table and self._table[-1] and {"td", "th"} & set(self._open):
            self._table[-1][-1] += data

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join("".join(self.texts).split())

    def all(self, attribute: str) -> list[str]:
        """An attribute's values wherever it is."""
        return [attributes[attribute] or "" for _, attributes in self.elements if attribute in attributes]

    def rows(self, table: str) -> list[list[str]]:
        """A table's rows after its head, with single spaces."""
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[table][1:]]
