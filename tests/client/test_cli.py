"""The command: what it prints, and the statuses that it ends with."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from temper import Client
from temper.cli import app
from temper.display import Live
from temper.events import Event
from temper.exits import HELP, Exit
from tests.client.test_retries import Unwilling

RUNNER = CliRunner()
SHARE = {"accuracy": 1.0, "correct": 9, "total": 9}


@pytest.fixture
def temper(url, monkeypatch):
    """Runs it; returns status, standard output and standard error."""
    monkeypatch.setenv("TEMPER_URL", url)

    def run(*arguments):
        result = RUNNER.invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


def test_a_job_is_watched(ran, done):
    assert ran.watched.exit_code == 0, ran.watched.output
    shown = ran.watched.stdout
    told = [line.removeprefix(f"{done}: ") for line in shown.splitlines() if line.startswith(f"{done}: ")]
    for state in ("queued", "running", "validating", "baseline", "training", "exporting", "evaluating", "succeeded"):
        assert state in told
    assert any(line.startswith("epoch 3/3: loss ") and "held-out training images: clean " in line for line in told)
    assert any(line.startswith("before hardening: clean ") and ", robust " in line for line in told)
    assert any("%  epoch " in line for line in told)
    assert "verdict: " in shown


def test_a_job_is_submitted(temper, example, data):
    arguments = ["--architecture", "fmnist-cnn", "--defense", "aft", "--eps", "8/255", "--norm", "l2", "--epochs", "2"]
    arguments += ["--name", "mine", "--set", "training.batch_size=64", "--set", "defense.steps=3"]
    status, shown, _ = temper("submit", example / "checkpoint.pt", "--data", data, *arguments, "--json")
    assert status == 0
    job = json.loads(shown)
    temper("cancel", job["id"])
    assert job["name"] == "mine"
    assert job["spec"]["threat"] == {"norm": "l2", "eps": 8 / 255}
    assert (job["spec"]["training"]["epochs"], job["spec"]["training"]["batch_size"]) == (2, 64)
    assert (job["spec"]["defense"]["name"], job["spec"]["defense"]["steps"]) == ("aft", 3)


def test_its_report_and_its_files(temper, done, tmp_path):
    status, shown, _ = temper("report", done, "--json")
    report = json.loads(shown)
    assert report["threat"] == {"norm": "linf", "eps": 0.1}
    status, shown, _ = temper("report", done, "--require-robust")
    assert status == Exit.NOT_ROBUST
    after = report["after"]["robust"]
    assert f"{after['accuracy']:.1%} [{after['ci95'][0]:.1%}" in shown

    target = tmp_path / "hardened.pt"
    assert temper("download", done, "-o", target) == (0, f"{target}\n", "")
    assert target.stat().st_size > 900_000
    target.write_bytes(b"mine")
    status, _, told = temper("download", done, "-o", target)
    assert (status, told) == (Exit.USAGE, f"temper: {target} is there already, and is another file\n")


def test_watching_one_that_ended(temper, done):
    status, shown, _ = temper("watch", done, "--json", "--require-robust")
    assert status == Exit.NOT_ROBUST
    events = [json.loads(line) for line in shown.splitlines()]
    assert events[0]["data"] == {"state": "queued"}
    assert [event for event in events if event["id"]][-1]["data"] == {"state": "succeeded"}
    status, shown, _ = temper("watch", done)
    assert status == 0
    assert f"{done}: succeeded" in shown


def test_jobs_that_fail_or_are_cancelled(temper, data, tmp_path):
    nothing = tmp_path / "nothing.pt"
    nothing.write_bytes(b"<html>not found</html>")
    arguments = ["submit", nothing, "--data", data, "--architecture", "fmnist-cnn", "--defense", "aft", "--eps", "0.1"]
    status, shown, _ = temper(*arguments, "--watch")
    assert status == Exit.JOB_FAILED
    assert "failure checkpoint_web_page: " in shown
    job = shown.splitlines()[0]
    status, _, told = temper("report", job)
    assert status == Exit.JOB_FAILED
    assert told.startswith("temper: there is no report: ")
    assert temper("cancel", job)[0] == Exit.REFUSED
    status, _, told = temper("download", job, "-o", tmp_path)
    assert (status, told) == (Exit.JOB_FAILED, f"temper: job {job} has no hardened checkpoint: it failed\n")
    assert temper("delete", job)[0] == Exit.JOB_FAILED, "nobody said yes"
    status, shown, _ = temper("delete", job, "--yes")
    assert (status, shown.startswith(f"{job} is gone; ")) == (0, True)
    assert temper("watch", job)[0] == Exit.REFUSED

    status, shown, _ = temper(*arguments, "--json")
    waiting = json.loads(shown)["id"]
    temper("cancel", waiting)
    if temper("watch", waiting)[0] == Exit.JOB_CANCELLED:  # unless it failed before
        assert temper("report", waiting)[0] == Exit.JOB_CANCELLED


def test_what_is_missing_is_told_in_words_of_the_command(temper, example, tmp_path):
    status, _, told = temper("submit", example / "checkpoint.pt", "--architecture", "fmnist-cnn", "--defense", "aft")
    assert (status, "--data FILE" in told, "curl" in told, "-F" in told) == (Exit.REFUSED, True, False, False)
    status, _, told = temper("submit", example / "checkpoint.pt", "--data", tmp_path)
    assert (status, f"tar -cf images.tar -C {tmp_path} ." in told) == (Exit.USAGE, True)


def test_the_server_s_sentences(temper, example):
    status, shown, told = temper("submit", example / "checkpoint.pt", "--architecture", "resnet", "--defense", "magic")
    assert (status, shown) == (Exit.REFUSED, "")
    assert "temper: model.architecture: 'resnet' is not known; allowed: fmnist-cnn, " in told
    assert "temper: or timm/NAME, torchvision/NAME, and for a module of your own " in told
    assert "temper: defense: 'magic' is not known; allowed: aft, " in told
    status, _, told = temper("watch", "no/pe")
    assert (status, told) == (Exit.REFUSED, "temper: there is nothing at /jobs/no/pe\n")
    status, _, told = temper("watch", "nope", "--json")
    assert status == Exit.REFUSED
    assert json.loads(told)["code"] == "job_not_found"


def test_what_is_wrong_here(temper, tmp_path):
    status, _, told = temper("submit", tmp_path / "nothing.pt")
    assert (status, told) == (Exit.USAGE, f"temper: {tmp_path / 'nothing.pt'}: No such file or directory\n")
    assert temper("submit", "--set", "training")[0] == Exit.USAGE
    assert temper("catalog", "weapons")[0] == Exit.USAGE
    assert temper("catalog", "defenses", "magic")[0] == Exit.USAGE
    status, _, told = temper("list", "--url", "http://127.0.0.1:1")
    assert status == Exit.NO_CONNECTION
    waits, gives_up = told.splitlines()
    assert waits.startswith("no answer from http://127.0.0.1:1: ")
    assert waits.endswith("; trying again")
    elsewhere = "another address is told by --url or TEMPER_URL"
    assert gives_up == f"temper: {waits.removesuffix('trying again')}{elsewhere}"
    status, _, told = temper("catalog", "defenses", "magic", "--json")
    assert (status, json.loads(told)["error"]) == (Exit.USAGE, "usage")


def test_lists(temper, done):
    status, shown, _ = temper("list", "--state", "succeeded")
    assert status == 0
    assert done in shown
    listed = json.loads(temper("list", "--json", "--limit", "1")[1])
    assert len(listed) == 1
    assert "Adversarial fine-tuning" in temper("catalog", "defenses")[1]
    assert "PGD steps" in temper("catalog", "defenses", "aft")[1]
    assert json.loads(temper("catalog", "attacks", "pgd", "--json")[1])["name"] == "pgd"
    assert "images.parquet" in temper("artifacts", done)[1]


def test_logs(temper, done, service):
    written = service.client.get(f"/jobs/{done}/logs").text
    assert temper("logs", done)[1] == written
    assert temper("logs", done, "--follow", "--tail", "2")[1].splitlines() == written.splitlines()[-2:]


def test_certificates(temper, url, done, tmp_path):
    certificate, weights, key = tmp_path / "certificate.json", tmp_path / "model.pt", tmp_path / "key.pem"
    temper("download", done, "-o", weights)
    temper("download", done, "--artifact", "certificate.json", "-o", certificate)
    status, shown, _ = temper("verify", certificate, weights)
    assert status == 0, shown
    assert f"job {done}, certified " in shown
    with Client(url) as client:
        key.write_text(client.signing_keys()[0]["public_key"])
    offline = ["--key", key, "--url", "http://127.0.0.1:1"]
    status, shown, _ = temper("verify", certificate, weights, *offline, "--json")
    assert status == 0
    assert json.loads(shown)["statement"]["predicate"]["job"] == done

    content = bytearray(weights.read_bytes())
    content[5000] ^= 1
    weights.write_bytes(content)
    status, shown, _ = temper("verify", certificate, weights, *offline)
    assert status == Exit.DAMAGED
    assert "WRONG: model.pt is not the certified " in shown
    key.write_text("no key")
    assert temper("verify", certificate, weights, *offline)[0] == Exit.USAGE


def test_in_a_terminal(url, done):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=150, color_system=None)
    with Client(url, progress=Live(console)) as client:
        client.job(done).wait()
    shown = screen.getvalue()
    assert re.search(r"epoch 3/3  clean [0-9.]+% robust [0-9.]+% after", shown)
    assert "100%" in shown
    assert "before hardening: clean" in shown


@pytest.mark.parametrize("width", [80, 150])
def test_the_live_line_has_room_for_its_numbers(done, url, width):
    """Once with all numbers that a running job has."""
    screen = io.StringIO()
    display = Live(Console(file=screen, force_terminal=True, width=width, color_system=None))
    with display.watch(done) as see:
        for kind, data in (
            ("state", {"state": "running"}),
            ("phase", {"phase": "validating"}),
            ("result", {"side": "before", "clean": SHARE, "robust": SHARE, "attacks": []}),
            ("progress", {"state": "running", "phase": "evaluating", "epoch": 19, "epochs": 100, "eta_seconds": 6000}),
        ):
            see(Event(kind, data))
    assert "epoch 19/100  clean 100.0% robust 100.0% before, 1 h 40 min left" in screen.getvalue()


def test_a_server_that_is_no_temper_is_told_so(temper, tmp_path):
    """A page of another server, with status 200, and JSON of another one."""
    for content_type, body in (("text/html", "<html>Log in</html>"), ("application/json", '{"jobs": []}')):
        with Unwilling(*[(200, {"Content-Type": content_type}, body)] * 9) as server:
            for arguments in (["list"], ["watch", "job_1"], ["report", "job_1"], ["catalog", "defenses"]):
                status, _, told = temper(*arguments, "--url", server.url)
                assert status == Exit.NO_CONNECTION, told
                assert "answers, but not as Temper does: is that its address?" in told
                assert told.count("\n") == 1


def test_downloads_tell_what_the_server_says(temper, done, tmp_path):
    """Though they begin with a HEAD, whose answer has no words."""
    status, _, told = temper("download", done, "--artifact", "magic")
    assert status == Exit.REFUSED
    assert "magic" in told
    assert "not as Temper does" not in told
    assert "there is no such job" in temper("download", "job_1")[2]
    status, _, told = temper("download", done, "-o", tmp_path / "none" / "x.pt")
    assert (status, told) == (Exit.USAGE, f"temper: {tmp_path / 'none'}: there is no such folder\n")
    status, _, told = temper("download", done, "-o", "/dev/zero")
    assert (status, told) == (Exit.USAGE, "temper: /dev/zero is there already, and is no file\n")
    status, _, told = temper("download", done, "-o", "/dev/full", "--force")
    assert status == Exit.USAGE


def test_tables_are_not_broken_where_nobody_said_how_wide_to_be(temper, done):
    [row] = [line for line in temper("list", "--state", "succeeded")[1].splitlines() if done in line]
    with Client(os.environ["TEMPER_URL"]) as client:
        outcome = client.job(done).info["outcome"]
    assert f"succeeded: {outcome['verdict']}" in row
    assert f"{outcome['after']['robust']['accuracy']:.1%}" in row


def test_completion_and_help_know_all_commands():
    command = Path(sys.executable).with_name("temper")
    environment = {**os.environ, "_TEMPER_COMPLETE": "complete_bash", "COMP_WORDS": "temper ", "COMP_CWORD": "1"}
    offered = subprocess.run([command], env=environment, capture_output=True, text=True, check=False).stdout.split()
    wanted = {
        "submit",
        "watch",
        "report",
        "download",
        "cancel",
        "pause",
        "resume",
        "delete",
        "logs",
        "list",
        "catalog",
        "verify",
    }
    assert wanted <= set(offered)
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for status in Exit:
        assert f"{status.value}  " in HELP
    assert 'not "robust"' in shown
