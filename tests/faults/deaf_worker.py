"""A worker whose Celery takes no message until it is begun again: python deaf_worker.py worker"""

from __future__ import annotations

import os

from kombu.transport.virtual import QoS

from temperd.__main__ import app

if os.environ.setdefault("TEMPER_TEST_HEARS", "no") == "no":
    os.environ["TEMPER_TEST_HEARS"] = "yes"  # what is begun again has the same environment
    QoS.can_consume = lambda _self: False
app()
