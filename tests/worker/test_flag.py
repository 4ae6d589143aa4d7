"""A flag that processes share, and that nobody can leave locked."""

from __future__ import annotations

import os
import signal
import threading

from worker.flag import SharedFlag


def test_a_fork_shares_it():
    flag = SharedFlag()
    assert not flag.is_set()
    pid = os.fork()
    if pid == 0:
        flag.set()
        os._exit(0)
    os.waitpid(pid, 0)
    assert flag.is_set()


def test_a_process_killed_while_it_asks_leaves_nothing_locked():
    for _ in range(20):
        flag = SharedFlag()
        pid = os.fork()
        if pid == 0:
            while True:
                flag.is_set()
        threading.Event().wait(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        setter = threading.Thread(target=flag.set, daemon=True)
        setter.start()
        setter.join(10)
        assert not setter.is_alive()
