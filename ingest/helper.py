"""python -m ingest.helper JOBS RESULTS: does a part of another process's work, told through two descriptors."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from ingest.pool import serve


def main(arguments: list[str]) -> None:
    """The first message is the work, pickled by who is under the same rules; then come jobs."""
    jobs, results = map(int, arguments)
    incoming = Connection(jobs, writable=False)
    serve(incoming.recv(), incoming, Connection(results, readable=False))


if __name__ == "__main__":
    main(sys.argv[1:])
