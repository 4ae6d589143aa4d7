"""Clients that poll one job, in a process of their own: python -m benchmarks.poll ADDRESS JOB CLIENTS SECONDS

With the key in TEMPER_API_KEY.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

PAUSE_SECONDS = 2.0


def poll(address: str, job: str, clients: int, seconds: float) -> tuple[list[float], list[str]]:
    """Each asks every two seconds over a connection of its own; milliseconds of all answers, and what went wrong."""
    took: list[float] = []
    errors: list[str] = []
    headers = {"Authorization": f"Bearer {os.environ['TEMPER_API_KEY']}"}
    ends = time.perf_counter() + seconds

    def ask_on(delay: float) -> None:
        time.sleep(delay)
        connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
        while time.perf_counter() < ends:
            started = time.perf_counter()
            try:
                connection.request("GET", f"/jobs/{job}", headers=headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    errors.append(str(answer.status))
            except (OSError, HTTPException) as error:
                errors.append(repr(error))
                connection.close()
            took.append(1000 * (time.perf_counter() - started))
            time.sleep(PAUSE_SECONDS)
        connection.close()

    threads = [threading.Thread(target=ask_on, args=(PAUSE_SECONDS * n / clients,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, errors


if __name__ == "__main__":
    answers, failures = poll(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    for milliseconds in answers:
        print(milliseconds)
    for failure in failures:
        print(failure, file=sys.stderr)
