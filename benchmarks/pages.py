"""Pages for people while a job trains: bytes with all that they load, and how long until all is there."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Response, sync_playwright

from benchmarks.models import SPEC
from benchmarks.service import service, submit, wait

ROUNDS = 7


def main() -> None:
    """A table of all pages, in a Chromium that has cached nothing."""
    folder = Path(tempfile.mkdtemp(prefix="temper-benchmark-"))
    try:
        with service(folder) as (client, _), sync_playwright() as playwright:
            ended, _ = submit(client, {**SPEC, "evaluation": {"samples": 300}})
            wait(client, ended)
            runs, _ = submit(client, {**SPEC, "training": {"epochs": 500}})
            while client.get(f"/jobs/{runs}").json()["phase"] != "training":
                time.sleep(0.2)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            pages = ["/", "/new", f"/jobs/{runs}", f"/jobs/{ended}", f"/jobs/{ended}/report"]
            print("\npage                        KB   median ms   worst ms")
            for path in [*pages, f"/compare?job={ended}&job={runs}", "/keys"]:
                sizes, times = zip(*(load(browser, f"{client.base_url}{path}") for _ in range(ROUNDS)), strict=True)
                name = path.replace(ended, "ENDED").replace(runs, "RUNS")
                print(f"{name:24} {max(sizes) / 1000:6.0f} {statistics.median(times):11.0f} {max(times):10.0f}")
            browser.close()
            client.post(f"/jobs/{runs}/cancel")
    finally:
        shutil.rmtree(folder)


def load(browser: Browser, address: str) -> tuple[int, float]:
    """Bytes as sent, without streams, and milliseconds until the load event."""
    context = browser.new_context()
    page, answers = context.new_page(), list[Response]()
    page.on("response", lambda answer: answers.append(answer))
    page.goto(address, wait_until="load")
    took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    files = [answer.headers for answer in answers if answer.headers.get("content-type") != "text/event-stream"]
    size = sum(int(headers.get("content-length", 0)) for headers in files)
    context.close()
    return size, float(took)
