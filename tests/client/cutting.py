"""A real connection that breaks: a TCP proxy that cuts the ones it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque


class Cutting:
    """Passes bytes on between its own port and another one, and counts them.

    ``cuts``: for the connections to come, in order: ("up" | "down", bytes after which both sides are reset), or None.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts: deque[tuple[str, int] | None] = deque()
        self.passed = {"up": 0, "down": 0}
        self.broken = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Cutting:
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            cut = self.cuts.popleft() if self.cuts else None
            thread = threading.Thread(target=self._connect, args=(near, cut))
            self._threads.append(thread)
            thread.start()

    def _connect(self, near: socket.socket, cut: tuple[str, int] | None) -> None:
        most = dict([cut]) if cut else {}
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            down = threading.Thread(target=self._pass, args=("down", far, near, most.get("down")))
            down.start()
            self._pass("up", near, far, most.get("up"))
            down.join()

    def _pass(self, name: str, source: socket.socket, target: socket.socket, most: int | None) -> None:
        try:
            while most is None or most > 0:
                content = source.recv(min(most or 1 << 14, 1 << 14))
                if not content:
                    break
                with self._lock:
                    self.passed[name] += len(content)
                target.sendall(content)
                if most is not None:
                    most -= len(content)
            else:
                with self._lock:
                    self.broken += 1
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
