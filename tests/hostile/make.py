"""python -m tests.hostile.make FOLDER: writes the hostile corpus, one folder an entry, and codes.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.hostile.corpus import hostile


def main(arguments: list[str]) -> int:
    """Write all files; the codes that they must be refused with go into codes.json by name."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tests.hostile.make FOLDER\n")
        return 2
    root = Path(arguments[0])
    entries = hostile()
    for entry in entries:
        folder = root / entry.kind / entry.name
        folder.mkdir(parents=True, exist_ok=True)
        entry.write(folder / entry.filename)
    (root / "codes.json").write_text(json.dumps({entry.name: entry.code for entry in entries}, indent=1))
    sys.stdout.write(f"{len(entries)} files in {root}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
