"""Text of others for a terminal: names and sentences may hold what moves its cursor, hides or rewrites lines."""

from __future__ import annotations


def plain(text: object) -> str:
    """In one line, with nothing that steers a terminal or turns the direction of letters."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in str(text))
