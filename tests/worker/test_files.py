"""What a child names is not believed: neither the files that it has stored, nor where the next attempt finds them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.storage import Storage
from jobs.tables import Artifact, Job
from worker.files import AttemptFiles, StrayFileError


@pytest.fixture
def files(tmp_path):
    """Of an attempt whose child is not to be believed."""
    for folder in ("output", "state", "store"):
        (tmp_path / folder).mkdir()
    (tmp_path / "spec.json").write_text("{}")
    storage = Storage(f"file://{tmp_path / 'store'}")
    claim = SimpleNamespace(job_id="job_1", attempt=1)
    settings = SimpleNamespace(silence_seconds=1)
    return AttemptFiles(claim, tmp_path, None, storage, settings, heed=lambda: None)


@pytest.mark.parametrize(
    "name", ["../spec.json", "/etc/passwd", "link", "", ".", "..", "a/b", "a\0b", "a\nb", "x" * 101, 7, None]
)
def test_a_child_has_no_file_stored_that_it_may_not_read_itself(name, files, tmp_path):
    (tmp_path / "output" / "link").symlink_to("/etc/passwd")
    with pytest.raises(StrayFileError):
        files.store_outputs([name])


@pytest.mark.parametrize("slot", ["/etc/passwd", "../../secret", "..", "", None])
def test_a_child_says_not_where_the_next_attempt_has_its_state(slot, files, tmp_path):
    (tmp_path / "state" / "mine").write_text("mine")
    with pytest.raises(StrayFileError):
        files.store_state({"file": "mine", "slot": slot, "epoch": 0, "step": 1})
    assert not [*(tmp_path / "store").rglob("*mine*")]


def test_a_state_of_another_name_is_not_fetched(files, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    theirs = Artifact(key="theirs", sha256="0" * 64, size=1, created_at=0)
    job = Job(id="job_1", spec={}, checkpoint_upload=None, data_upload=None)
    files._leases = SimpleNamespace(job=lambda _: job, states=lambda _: {str(secret): theirs, "../../secret": theirs})
    files._settings = SimpleNamespace(dataset_folders=[], silence_seconds=1)
    for folder in ("output", "state"):
        (tmp_path / folder).rmdir()
    files.prepare()
    assert secret.read_text() == "secret"
    assert [*(tmp_path / "state").iterdir()] == []


@pytest.mark.parametrize("made", ["link", "folder", "pipe"])
def test_what_became_of_a_file_after_it_was_looked_at_is_not_stored(made, files, tmp_path, monkeypatch):
    path = tmp_path / "output" / "file"
    {"link": lambda: path.symlink_to("/etc/passwd"), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[made]()
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)  # the moment before
    with pytest.raises(StrayFileError):
        files.store_outputs(["file"])
