"""What others named is shown as text: it moves no cursor and writes no line of its own."""

from __future__ import annotations

from rich.console import Console
from typer.testing import CliRunner

from temper import tables
from temper.cli import app
from temper.course import Course
from temper.events import Event
from temper.exits import Exit
from temper.plain import plain
from tests.client.test_certificate import Shipped
from tests.web.test_report_page import content

HOSTILE = "x\x1b[2K\x1b[1A\r\nok: all is well\x9b8m\u202e.pt"


def test_only_what_can_be_seen():
    assert plain("caf\u00e9 \u4e2d\u00a0\u202fx\ty") == "caf\u00e9 \u4e2d  x y"
    assert plain(HOSTILE) == "x\ufffd[2K\ufffd[1A  ok: all is well\ufffd8m\ufffd.pt"


def test_a_name_in_a_certificate_steers_no_terminal(tmp_path):
    """Of a file that was sent, in the sentence that says that another one is not it."""
    shipped = Shipped(tmp_path, trains=False, sent=HOSTILE)
    key = shipped.write("key.pem", shipped.signer.public_pem.encode())
    other = shipped.write("other.pt", b"other")
    arguments = ["verify", str(shipped.certificate), str(other), "--key", str(key)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == Exit.DAMAGED
    assert "WRONG: other.pt is not " in result.stdout
    assert not [line for line in result.stdout.splitlines() if line.startswith("ok: all")]
    assert result.stdout.replace("\n", "").isprintable()


def test_tables_and_the_course_of_a_job():
    console = Console(width=1000, highlight=False, color_system=None)
    job = {"id": "job_1", "name": HOSTILE, "defense": "aft", "state": "queued", "phase": None, "progress": {}}
    with console.capture() as captured:
        console.print(tables.of_jobs([{**job, "created_at": None}]))
        verdict = {"kind": "unverified", "reasons": ["it is " + HOSTILE], "remedies": ["leave " + HOSTILE]}
        console.print(tables.of_report({**content("evaluated"), "verdict": verdict, "notes": [HOSTILE]}))
    shown = captured.get()
    assert shown.replace("\n", "").isprintable()
    assert "\n- it is " in shown
    assert "\n-> to know: leave " in shown
    failure = {"code": "x", "detail": HOSTILE, "hint": ""}
    told = Course().see(Event(id=1, type="failure", at=None, data=failure))
    assert told.isprintable()
