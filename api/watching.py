"""A job as its page shows it: read once for the page, and again and again for its stream."""

from __future__ import annotations

from collections import deque
from typing import Any

from markupsafe import Markup

from api import views
from jobs.repository import JobRepository
from jobs.states import FINAL
from jobs.tables import Job
from web.dashboard.curves import curves
from web.environment import render

LINES = 30
_EVENTS = 200
PIECES = ("state", "progress", "actions", "results", "training", "log")


class Watched:
    """What is known of a job; each look reads only what is new."""

    def __init__(self, job_id: str, jobs: JobRepository) -> None:
        self._job_id, self._jobs = job_id, jobs
        self._event = self._chunk = 0
        self._epochs: dict[int, dict[str, Any]] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._lines: deque[str] = deque(maxlen=LINES)
        self._chart = Markup("")
        self._files: dict[str, str] = {}
        self.job: Job

    def look(self) -> None:
        """Read what has happened since. Raises: JobNotFoundError."""
        known = len(self._epochs)
        self.job = self._jobs.job(self._job_id)  # first: once it is final, everything else has been written
        self._position = self._jobs.queue_position(self.job)
        while events := self._jobs.events(self._job_id, after=self._event, limit=_EVENTS):
            self._event = events[-1].id
            for event in events:
                self._note(event.type, event.data)
        for chunk in self._jobs.log(self._job_id, after=self._chunk):
            self._chunk = chunk.id
            self._lines.extend(chunk.text.splitlines())
        if len(self._epochs) > known:
            planned = int(self.job.progress.get("epochs") or 0)
            self._chart = curves([self._epochs[epoch] for epoch in sorted(self._epochs)], planned)
        if not self._files:
            uploads = {"checkpoint": self.job.checkpoint_upload, "data": self.job.data_upload}
            self._files = {name: self._jobs.upload(each).filename for name, each in uploads.items() if each}
        self._artifacts = self._jobs.artifacts(self._job_id, "output") if self.ended else {}

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.job.state in FINAL

    def shown(self) -> dict[str, Any]:
        """What the templates of the page and of its pieces name."""
        return {
            "job": views.job_detail(self.job, self._position),
            "results": self._results,
            "artifacts": [(name, item.size) for name, item in sorted(self._artifacts.items())],
            "chart": self._chart,
            "files": self._files,
            "log": "\n".join(self._lines),
        }

    def pieces(self, frame: dict[str, Any]) -> dict[str, str]:
        """The parts of the page that change, as markup by name."""
        shown = frame | self.shown()
        return {name: render(f"dashboard/job_{name}.html", **shown) for name in PIECES}

    def _note(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "epoch":
            self._epochs[data["epoch"]] = data
        elif kind == "result":
            self._results[data["side"]] = data
