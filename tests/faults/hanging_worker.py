"""A worker whose Celery does not end: python hanging_worker.py worker"""

from __future__ import annotations

import time

from celery.concurrency.prefork import TaskPool

from temperd.__main__ import app

TaskPool.on_stop = lambda _self: time.sleep(1000)
app()
