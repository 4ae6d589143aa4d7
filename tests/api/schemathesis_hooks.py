"""Half of the generated requests are aimed at what is there: a valid job, and the ids of jobs that exist."""

from __future__ import annotations

import json
import os

import schemathesis
from schemathesis.generation import GenerationMode

JOBS = os.environ["TEMPER_TEST_JOBS"].split(",")
SPEC = json.loads(os.environ["TEMPER_TEST_SPEC"])
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
_numbers = {"POST /jobs": 0, "job_id": 0}


def _every_second(name: str) -> bool:
    _numbers[name] += 1
    return _numbers[name] % 2 == 0


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = case.operation.label
    valid = case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE
    # in place of one that is to be refused it would make the request a good one
    if operation == "POST /jobs" and case.media_type == "application/json" and valid and _every_second(operation):
        case.body = dict(SPEC)
    if "job_id" in (case.path_parameters or {}) and not operation.startswith("DELETE") and _every_second("job_id"):
        case.path_parameters["job_id"] = JOBS[_numbers["job_id"] // 2 % len(JOBS)]
