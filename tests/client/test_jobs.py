"""Jobs by the library, by its blocking calls and by the asynchronous ones that those run."""

from __future__ import annotations

import asyncio
import hashlib
import inspect

import pytest

from temper import AsyncClient, AsyncJob, Client, Job, JobCancelledError, NotReadyError, RefusedError
from temper.events import Event, parse
from temper.wire import iterate
from tests.client.conftest import HARDEN, SPEC


@pytest.fixture
def sources(client, example, data):
    return {"upload": client.upload(example / "checkpoint.pt")}, {"upload": client.upload(data)}


def test_the_example_of_the_readme_works_as_printed(ran, service):
    report = service.client.get(f"/jobs/{ran.job}/report").json()
    numbers = [report[side]["robust"]["accuracy"] for side in ("before", "after")]
    assert ran.printed.splitlines() == [f"{report['verdict']['kind']} {numbers[0]} {numbers[1]}", "fast-at.pt"]
    content = (ran.folder / "fast-at.pt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == report["output"]["sha256"]


def test_report_and_state(client, service, done):
    job = client.job(done)
    assert (job.id, job.state, job.failure) == (done, "succeeded", None)
    assert job.info == service.job(done)
    assert job.report() == service.client.get(f"/jobs/{done}/report").json()


def test_all_events_once_and_in_order_whatever_breaks(client, service, done, cutting):
    written = service.client.get(f"/jobs/{done}/events", params={"limit": 1000}).json()["items"]
    cutting.cuts.extend([("down", 4000), ("down", 900), ("down", 1500), ("down", 2500)])
    with Client(cutting.url) as through:
        job = through.job(done)
        seen = [event for event in job.events() if event.id is not None]
    assert cutting.broken == 4
    assert [(event.id, event.type, event.at, event.data) for event in seen] == [
        (item["id"], item["type"], item["at"], item["data"]) for item in written
    ]


def test_an_event_stream_can_be_left(client, done):
    for event in client.job(done).events():
        assert event == Event("state", {"state": "queued"}, event.id, event.at)
        break
    assert client.job(done).state == "succeeded"


def test_streams_are_read_as_their_standard_says():
    async def lines():
        for line in [": ping", "", "event:progress", 'data:{"a":', "data: 1}", "", "id: 9", "", "event: state"]:
            yield line

    assert list(iterate(parse(lines()))) == [Event("progress", {"a": 1})]


def test_wait_cancel_and_what_comes_after(client, sources, tmp_path):
    first = client.submit(sources[0], data=sources[1], spec=SPEC, **{**HARDEN, "epochs": 1000})
    second = client.submit(sources[0], data=sources[1], spec=SPEC, **HARDEN)
    with pytest.raises(NotReadyError, match=first.id):
        first.report()
    with pytest.raises(NotReadyError, match="it is not done yet"):
        first.download(tmp_path)
    second.cancel()  # it waited for the first
    assert second.state == "cancelled"
    for event in first.events():
        if event.type == "phase":
            break
    first.pause()
    while first.state == "running":
        first.refresh()
    assert first.state == "paused"
    first.resume()
    assert first.state in ("queued", "running")
    first.cancel()
    first.wait()
    assert first.state == "cancelled"
    with pytest.raises(JobCancelledError):
        first.report()
    with pytest.raises(JobCancelledError, match="it was cancelled"):
        first.download(tmp_path)
    with pytest.raises(RefusedError) as error:
        first.pause()
    assert error.value.code == "wrong_state"
    first.delete()
    assert first.id not in [job.id for job in client.jobs()]


def test_lists_go_over_pages(client, url, done):
    listed = {job.id: job.state for job in client.jobs()}
    assert listed[done] == "succeeded"
    assert done in [job.id for job in client.jobs(state="succeeded", defense="fast-at")]
    assert list(client.jobs(defense="no-such")) == []


def test_logs(client, service, done):
    written = service.client.get(f"/jobs/{done}/logs").text.splitlines()
    job = client.job(done)
    assert list(job.log_lines()) == written
    assert list(job.log_lines(tail=2)) == written[-2:]
    assert list(job.log_lines(tail=0)) == []
    assert list(job.log_lines(follow=True)) == written
    assert list(job.log_lines(follow=True, tail=1)) == written[-1:]


def test_the_asynchronous_client_does_the_same(url, ran, done, tmp_path, service):
    sent = ran.folder / "examples" / "fashion_mnist"

    async def ask():
        async with AsyncClient(url) as client:
            uploads = await asyncio.gather(client.upload(sent / "checkpoint.pt"), client.upload(sent / "data.npz"))
            job = await client.job(done)
            await job.wait()
            report, path, kinds = await asyncio.gather(job.report(), job.download(tmp_path), client.catalog("defenses"))
            events = [event async for event in job.events() if event.id is not None]
            listed = [job.id async for job in client.jobs()]
            lines = [line async for line in job.log_lines(tail=1)]
            return uploads, report, path, kinds, events, listed, lines

    uploads, report, path, kinds, events, listed, lines = asyncio.run(ask())
    job = service.job(done)
    assert uploads == [job["checkpoint"]["upload"], job["data"]["upload"]]
    assert report["output"]["sha256"]
    assert path.read_bytes() == service.client.get(f"/jobs/{done}/checkpoint").content
    assert "aft" in [kind["name"] for kind in kinds]
    assert events[-1].data == {"state": "succeeded"}
    assert done in listed
    assert len(lines) == 1


@pytest.mark.parametrize(("blocking", "other"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_both_clients_have_the_same_calls(blocking, other):
    def calls(kind):
        return {name: member for name, member in vars(kind).items() if not name.startswith("_")}

    assert calls(blocking).keys() | {"info"} == calls(other).keys() | {"info"}
    for name, member in calls(blocking).items():
        if callable(member):
            assert inspect.signature(member) == inspect.signature(calls(other)[name])
            assert member.__doc__
