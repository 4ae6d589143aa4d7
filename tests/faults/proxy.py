"""A small TCP proxy on loopback that can fail like a network does."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time


class Proxy:
    """Stands before a port. ``cut``: connections break and are refused; ``freeze``: nothing comes through any more."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listening.getsockname()[1])
        self._mode = "open"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ended = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def open(self) -> None:
        self._mode = "open"

    def freeze(self) -> None:
        self._mode = "frozen"

    def cut(self) -> None:
        self._mode = "cut"
        for pair in self._pairs:
            _close(*pair)
        self._pairs.clear()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        _close(self._listening)  # ends the accepting thread
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self._mode == "cut":
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # it is down, and so are we
                _close(client)
                continue
            self._pairs.append((client, server))
            self._threads.append(threading.Thread(target=self._forward, args=(client, server), daemon=True))
            self._threads[-1].start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while not self._ended:
                if self._mode == "frozen":
                    time.sleep(0.05)
                    continue
                readable, _, _ = select.select([client, server], [], [], 0.1)
                if self._mode == "frozen":
                    continue
                for source in readable:
                    data = source.recv(1 << 16)
                    if not data:
                        raise OSError
                    (server if source is client else client).sendall(data)
        _close(client, server)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
