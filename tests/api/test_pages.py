"""Pages for people, on real services: who gets one, what is escaped, errors at their fields, and no other's job."""

from __future__ import annotations

import itertools
import json
import re
from html import unescape

import httpx
import pytest

from api.pages import wants_page
from jobs.database import open_database
from jobs.leases import LeaseRepository
from jobs.repository import JobRepository, NewJob
from jobs.scopes import SCOPES, Scope
from tests.api.conftest import SPEC

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
MOST_BYTES = 300_000
NASTY = '<script>alert(1)</script> & "x"'


@pytest.fixture
def people(service):
    """A browser of the open service; it does not follow, so that tests see where it is sent."""
    with httpx.Client(base_url=service.client.base_url, timeout=60, headers=HTML) as client:
        yield client


@pytest.fixture
def visitor(stranger):
    """One of the service with keys, who has not logged in."""
    stranger.headers.update(HTML)
    stranger.headers["Origin"] = str(stranger.base_url).rstrip("/")
    return stranger


@pytest.fixture
def member(visitor, keys):
    """One who logged in with a key of the tenant "ours" that may do everything."""

    def member(*scopes, tenant="ours"):
        _, token = keys.create(tenant, "browser", scopes or SCOPES)
        keys.set_limits(tenant, {"requests_per_minute": 1_000_000})
        assert visitor.post("/login", data={"key": token}).status_code == 303
        return visitor

    return member


def text_of(answer, status=200):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert len(answer.content) < MOST_BYTES
    return answer.text


@pytest.mark.parametrize(
    ("accept", "html"),
    [("text/html", True), (HTML["Accept"], True), ("text/html, */*", True), ("*/*", False), ("", False),
     ("application/json", False), ("application/json, text/html", False), ("text/html;q=0.5, application/json", False),
     ("application/json;q=0.5, text/html", True), ("text/html;q=0", False), ("text/htmlx", False), (";;,q=,", False)],
)  # fmt: skip
def test_a_page_is_for_who_names_html_and_prefers_it_to_json(accept, html):
    assert wants_page({"type": "http", "headers": [(b"accept", accept.encode())]}) is html


def test_who_asks_for_no_page_gets_the_api_as_ever(service, done):
    for accept in ("*/*", "application/json"):
        answer = service.client.get(f"/jobs/{done}", headers={"Accept": accept})
        assert answer.json()["id"] == done
        assert "Vary" not in answer.headers
        assert service.client.get("/", headers={"Accept": accept}).json()["code"] == "not_found"


@pytest.mark.parametrize("path", ["/", "/new", "/compare", "/keys", "/login", "/jobs/{done}", "/compare?job={done}"])
def test_pages_are_small_and_load_nothing_from_elsewhere(people, done, path):
    answer = people.get(path.format(done=done))
    page = text_of(answer)
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "same-origin", "else forms would come from the origin null"
    assert answer.headers["Vary"] == "Accept"
    assert not re.search(r'\s(style|on\w+)="', page)
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]+)"', page)
    assert loaded
    assert all(address.startswith("/static/") for address in loaded)
    sizes = [len(people.get(address).raise_for_status().content) for address in loaded]
    assert len(answer.content) + sum(sizes) < MOST_BYTES


def test_what_is_nowhere_is_said_on_a_page(people, visitor):
    assert "there is nothing at this address" in text_of(people.get("/no/such"), 404)
    assert people.get("/jobs").headers["location"] == "/"
    assert visitor.get("/no/such").headers["location"] == "/login?next=/no/such"


def test_the_list_shows_jobs_escaped_and_filters(people, service, done, example, data):
    spec = {**SPEC, "name": NASTY, "tags": {NASTY: NASTY}}
    job = service.submit(example / "checkpoint.pt", data, spec)
    page = text_of(people.get("/"))
    assert "<script>alert" not in page
    assert NASTY in unescape(page)
    assert f'href="/jobs/{job}"' in page
    assert f'href="/jobs/{done}"' in page
    assert "<script>alert" not in text_of(people.get(f"/jobs/{job}"))
    assert NASTY in unescape(text_of(people.get(f"/jobs/{job}")))
    assert people.post(f"/jobs/{job}/cancel").headers["location"] == f"/jobs/{job}"
    assert service.wait(job)["state"] == "cancelled"
    assert f'href="/jobs/{job}"' not in text_of(people.get("/?state=succeeded"))
    assert f'href="/jobs/{job}"' in text_of(people.get("/?state=cancelled&defense=aft"))
    assert "No job fits" in text_of(people.get("/?defense=<b>"))
    assert "not a cursor" in text_of(people.get("/?cursor=x"), 422)
    gone = people.post(f"/jobs/{job}/delete")
    assert (gone.status_code, gone.headers["location"]) == (303, "/")
    assert service.client.get(f"/jobs/{job}").status_code == 404


def test_a_job_that_ended_shows_its_curves_its_results_and_its_files(people, service, done):
    page = text_of(people.get(f"/jobs/{done}"))
    report = service.client.get(f"/jobs/{done}/report", headers={"Accept": "application/json"}).json()
    for side in ("before", "after"):
        assert f"{100 * report[side]['robust']['accuracy']:.1f}%" in page
    assert "After epoch 2 of 2" in page
    assert f"Verdict: </span>{report['verdict']['kind']}" in page, "no number without it"
    measured = [f"{100 * report['after'][name]['accuracy']:.1f}% {name}" for name in ("robust", "clean")]
    listed = text_of(people.get("/?state=succeeded"))
    assert f"Verdict: </span>{report['verdict']['kind']}" in listed
    assert ", ".join(measured) in listed
    for artifact in service.client.get(f"/jobs/{done}/artifacts").json()["items"]:
        assert f'href="{artifact["href"]}"' in page
    assert f'href="/jobs/{done}/report"' in page
    assert "epoch 2: lr" in page
    assert "<dd>checkpoint.pt<br>" in page
    assert "<dd>data.npz<br>" in page
    refused = people.post(f"/jobs/{done}/pause")
    assert "only a running job can be paused" in text_of(refused, 409)


@pytest.fixture
def at_work(ours):
    """A job of "ours" that this test works at, as a worker does, and the leases to do it with."""
    engine = open_database(f"sqlite:///{ours.folder / 'temper.db'}")
    tenant, leases = ours.keys.find(ours.key).tenant_id, LeaseRepository(engine)
    spec = {"data": {"dataset": "mnist"}, "training": {"epochs": 3}}
    new = NewJob(spec, "tests", "aft", "streamed", {}, 3, ours.upload, None)  # a queue that no service serves
    job = JobRepository(engine, tenant).create(new).id
    yield job, leases
    engine.dispose()


def test_the_stream_of_a_job_brings_what_changes_and_ends_with_it(member, at_work):
    us, (job, leases) = member(), at_work
    pieces = stream(us, f"/live/jobs/{job}")
    first = dict(itertools.islice(pieces, 6))
    assert "queued" in first["state"]
    assert "number 1 in the queue" in first["state"]
    assert "Curves appear with the first finished epoch" in first["training"]
    claim = leases.claim("tests", 600, ["tests"])
    leases.add_event(claim, "phase", {"phase": "training"})
    leases.set_progress(claim, {"epoch": 0, "epochs": 3, "fraction": 0.5, "eta_seconds": 90.0})
    assert "training, epoch 1 of 3" in until(pieces, "state", "epoch 1")
    assert "about 1 min 30 s left" in until(pieces, "progress", "left")
    curve = {"held_out_clean": 0.9, "held_out_robust": 0.5, "train_loss": 1.0, "lr": 0.01}
    leases.add_log(claim, "one <line>\n\revent: done\r\ndata: x\n\n")
    assert "one &lt;line&gt;\n" in until(pieces, "log", "one")
    leases.add_event(claim, "epoch", {"epoch": 1, **curve})
    assert "After epoch 1 of 3" in until(pieces, "training", "<svg")
    listed = stream(us, "/live/jobs")
    assert "training" in until(listed, job, "running")
    leases.fail(claim, {"code": "bad_data", "blame": "user", "detail": "no <images>", "hint": "send some"}, {})
    assert "failed" in until(listed, job, "failed")
    rest = list(pieces)
    assert "no &lt;images&gt;" in dict(rest)["results"]
    assert "Delete this job" in dict(rest)["actions"]
    assert rest[-1][0] == "done"
    assert us.post(f"/jobs/{job}/delete").status_code == 303
    assert next(event for event, _ in listed if event == "changed")


def stream(client, path):
    """Server-sent events as (event, markup), as they come."""
    with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event, lines = "", []
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                event = value
            elif field == "data":
                lines.append(value)
            elif not line and event:
                yield event, "\n".join(lines)
                event, lines = "", []


def until(pieces, event, words):
    """The first markup of an event that has these words."""
    return next(markup for name, markup in pieces if name == event and words in markup)


def test_nobody_sees_another_tenants_job_or_who_is_not_logged_in(member, ours):
    theirs = member(tenant="theirs")
    assert ours.done not in text_of(theirs.get("/"))
    for address, status in (("/jobs/{}", 404), ("/compare?job={}", 200)):
        other, unknown = theirs.get(address.format(ours.done)), theirs.get(address.format("job_unknown"))
        assert "there is no such job" in text_of(other, status)
        assert other.text.replace(ours.done, "") == unknown.text.replace("job_unknown", "")
    assert theirs.get(f"/live/jobs/{ours.done}").status_code == 404
    for verb in ("cancel", "pause", "resume", "delete"):
        assert theirs.post(f"/jobs/{ours.done}/{verb}").status_code == 404


def test_strangers_are_asked_to_log_in_and_come_back(visitor, keys, ours):
    sent = visitor.get(f"/jobs/{ours.done}?x=1")
    assert (sent.status_code, sent.headers["location"]) == (303, f"/login?next=/jobs/{ours.done}%3Fx%3D1")
    assert visitor.get("/live/jobs").status_code == 401
    form = text_of(visitor.get(sent.headers["location"]))
    action = unescape(re.search(r'action="(/login[^"]*)"', form)[1])
    assert 'id="wrong"' in text_of(visitor.post(action, data={"key": "tmp_x"}), 401)
    _, token = keys.create("ours", "browser", {Scope.READ})
    back = visitor.post(action, data={"key": token})
    assert (back.status_code, back.headers["location"]) == (303, f"/jobs/{ours.done}?x=1")
    assert visitor.cookies
    page = text_of(visitor.get(back.headers["location"]))
    assert "Log out" in page
    assert "/new" not in page, "this key may not submit"
    assert visitor.get("/new").status_code == 403
    out = visitor.post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert visitor.get("/").headers["location"].startswith("/login")


@pytest.mark.parametrize(
    "after", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "\\/x"]
)
def test_the_login_leads_to_no_other_host(visitor, keys, after):
    _, token = keys.create("ours", "browser", {Scope.READ})
    answer = visitor.post("/login", params={"next": after}, data={"key": token})
    assert answer.headers["location"] == "/"


def test_a_link_from_elsewhere_is_asked_for_again_with_the_cookie(visitor, ours):
    answer = visitor.get(f"/jobs/{ours.done}", headers={"Sec-Fetch-Site": "cross-site"})
    assert f'content="0; url=/jobs/{ours.done}"' in text_of(answer)


def test_another_sites_page_does_nothing_by_the_session(member, ours):
    us = member()
    for verb in ("cancel", "delete"):
        refused = us.post(f"/jobs/{ours.paused}/{verb}", headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403
    assert us.post("/keys", data={"tenant": "x", "label": "x"}, headers={"Origin": "null"}).status_code == 403
    assert us.get(f"/jobs/{ours.paused}", headers={"Accept": "application/json"}).json()["state"] == "paused"


def test_an_admin_makes_a_key_that_is_shown_once_and_revokes_it(member, keys):
    us = member()
    page = text_of(us.post("/keys", data={"tenant": "new team", "label": NASTY[:5], "scopes": "jobs:read"}), 422)
    assert "letters, digits" in page
    assert 'value="new team"' in page
    made = {"tenant": "new team", "label": "shown once", "scopes": ["jobs:read", "jobs:write"], "days": "30"}
    page = text_of(us.post("/keys", data=made))
    token = re.search(r"tmp_[A-Za-z0-9_-]{43}", page)[0]
    assert keys.find(token).scopes == {Scope.READ, Scope.WRITE}
    assert token not in text_of(us.get("/keys"))
    key_id = keys.find(token).key_id
    assert us.post(f"/keys/{key_id}/revoke").headers["location"] == "/keys"
    assert keys.find(token) is None
    assert us.post("/keys/key_unknown/revoke").status_code == 404


def test_keys_are_for_admins_and_nobody_gives_more_than_they_have(member):
    reader = member(Scope.READ, Scope.WRITE)
    assert reader.get("/keys").status_code == 403
    assert reader.post("/keys", data={"tenant": "x", "label": "x", "scopes": "jobs:read"}).status_code == 403
    monitor = member(Scope.ADMIN)
    assert monitor.post("/keys", data={"tenant": "x", "label": "x", "scopes": "admin"}).status_code == 403
    admin = member(Scope.ADMIN, Scope.WRITE)
    refused = admin.post("/keys", data={"tenant": "x", "label": "x", "scopes": "jobs:read"})
    assert "jobs:read" in text_of(refused, 403)


def test_the_form_has_each_defense_with_its_paper_its_cost_and_its_defaults(people, service):
    for defense in service.client.get("/defenses").json()["items"]:
        page = unescape(text_of(people.get("/new", params={"defense.name": defense["name"]})))
        assert defense["title"] in page
        assert defense["paper"] in page
        for field in set(defense["defaults"]) - {"name", "attack", "goal"}:
            assert f'name="defense.{field}"' in page
    chosen = {
        "defense.name": "aft",
        "defense.steps": "4",
        "training.epochs": "3",
        "model.architecture.name": "fmnist-cnn",
    }
    assert "Cost: 15 forward and backward passes" in text_of(people.get("/new", params=chosen))
    assert "<b>x" not in text_of(people.get("/new", params={"defense.name": "<b>x", "threat.eps": '"><b>x'}))


def test_the_form_says_how_long_it_takes_once_a_job_ran_on_the_data(people, service, done):
    upload = service.job(done)["data"]["upload"]
    chosen = {"defense.name": "aft", "model.architecture.name": "fmnist-cnn", "data_from": f"upload:{upload}"}
    page = text_of(people.get("/new", params=chosen))
    assert f'<a href="/jobs/{done}">a job</a> with the same network and data' in page
    assert re.search(r"All in all about [\d.]+ (s|min)", page)
    for other in ({"model.architecture.name": "small-cnn"}, {"data_from": "upload:up_00000000000000000000"}):
        assert "All in all" not in text_of(people.get("/new", params=chosen | other))


def send(people, values, *files, **headers):
    """The form as browsers send it: a file field that nobody filled in is a part with an empty file name."""
    fields = {"defense.name": "aft", "model.architecture.name": "fmnist-cnn", **values}
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    paths = dict(zip(("checkpoint", "data"), files, strict=False))
    for name in ("checkpoint", "data"):
        path = paths.get(name)
        parts.append((f'name="{name}"; filename="{path.name if path else ""}"', path.read_bytes() if path else b""))
    lines = [
        b"--limit\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (head.encode(), body) for head, body in parts
    ]
    kind = {"Content-Type": "multipart/form-data; boundary=limit"}
    return people.post("/new", content=b"".join([*lines, b"--limit--\r\n"]), headers=kind | headers)


def control(page, name):
    return re.search(rf'<(?:input|select)[^>]*\sname="{re.escape(name)}"[^>]*>', page)[0]


def test_errors_stand_at_their_field_and_nothing_has_to_be_sent_again(people, service, example, data):
    before = service.client.get("/jobs").json()["items"]
    values = {"training.epochs": "0", "defense.steps": "many", "name": NASTY, "training.optimizer.name": "sgd"}
    page = text_of(send(people, values, example / "checkpoint.pt", data), 422)
    for name in ("training.epochs", "defense.steps"):
        assert 'aria-invalid="true"' in control(page, name)
        assert f'aria-describedby="wrong-{name} hint-{name}"' in control(page, name)
        assert f'id="wrong-{name}"' in page
    assert "<script>alert" not in page
    assert unescape(control(page, "name")).count(NASTY) == 1
    assert 'name="training.optimizer.momentum"' in page
    assert service.client.get("/jobs").json()["items"] == before
    kept = dict(re.findall(r'<option value="(upload:[^"]+)" selected>(\S+)', page))
    assert sorted(kept.values()) == ["checkpoint.pt", "data.npz"]
    by_name = {name: upload for upload, name in kept.items()}
    again = {**values, "training.epochs": "1", "defense.steps": "1", "name": "by the form", "tags": "team=vision",
             "training.samples": "100", "training.held_out": "20", "training.batch_size": "50",
             "evaluation.samples": "20", "evaluation.diagnose": "no",
             "checkpoint_from": by_name["checkpoint.pt"], "data_from": by_name["data.npz"]}  # fmt: skip
    sent = send(people, again)
    assert sent.status_code == 303, sent.text
    job = service.job(sent.headers["location"].removeprefix("/jobs/"))
    assert (job["name"], job["tags"], job["defense"]) == ("by the form", {"team": "vision"}, "aft")
    spec = job["spec"]
    assert (spec["training"]["optimizer"]["name"], spec["training"]["epochs"]) == ("sgd", 1)
    assert spec["evaluation"]["diagnose"] is False
    assert people.post(f"/jobs/{job['id']}/cancel").status_code == 303


@pytest.mark.parametrize(
    ("values", "at", "words"),
    [
        ({}, "checkpoint", "choose a file, or what to start from"),
        ({}, "data", "choose a file, or what is there already"),
        ({"checkpoint_from": "random"}, "model.num_classes", ""),
        ({"checkpoint_from": "upload:up_unknown", "data_from": "dataset:mnist"}, "", "there is no such upload"),
        ({"checkpoint_from": "job:job_unknown", "data_from": "dataset:mnist"}, "", "there is no such job"),
        ({"model.architecture.name": ""}, "model.architecture.name", "Field required"),
        ({"defense.name": "nonsense"}, "defense.name", "is not known"),
        ({"threat.eps": "wide"}, "threat.eps", ""),
        ({"mean": "1"}, "", "no such form field"),
        ({"model.mean": "0.5"}, "", "mean and std go together"),
    ],
)
def test_what_is_wrong_is_said_in_the_servers_words(people, values, at, words):
    answer = send(people, values)
    page = unescape(text_of(answer, 422))
    assert words in page
    if at and at != "model.num_classes":
        assert f'id="wrong-{at}"' in page
        assert 'aria-invalid="true"' in control(page, at)


def test_htmx_is_told_where_the_job_is(people, service, done):
    data = f"upload:{service.job(done)['data']['upload']}"
    values = {"defense.name": "none", "checkpoint_from": f"job:{done}", "data_from": data}
    answer = send(people, values, **{"HX-Request": "true", "Accept": "*/*"})
    assert answer.status_code == 200, answer.text
    assert service.job(answer.headers["HX-Redirect"].removeprefix("/jobs/"))["defense"] == "none"
    assert people.post(f"{answer.headers['HX-Redirect']}/cancel").status_code == 303


def test_a_comparison_shows_each_report_once(people, service, done):
    page = text_of(people.get("/compare", params={"job": [done, done]}))
    report = service.client.get(f"/jobs/{done}/report", headers={"Accept": "application/json"}).json()
    assert page.count("<tr>") == 2
    assert f"<b>{100 * report['after']['robust']['accuracy']:.1f}%</b>" in page
    assert 'id="pareto-title"' in page


def test_a_comparison_names_what_has_no_report(member, ours):
    page = text_of(member().get("/compare", params={"job": ours.paused}))
    assert "has no report: it is paused" in page


def test_a_comparison_leaves_out_what_is_gone(people, done):
    page = text_of(people.get("/compare", params={"job": [done, "job_gone"]}))
    assert "job_gone: there is no such job, or no longer" in page
    assert "One job alone" in page
    assert page.count("<tr>") == 2


def test_the_dashboard_asks_with_what_the_pages_config_allows(people):
    config = json.loads(unescape(re.search(r"htmx-config\" content='([^']*)'", text_of(people.get("/")))[1]))
    assert not config["allowEval"]
    assert not config["allowScriptTags"]
    assert not config["includeIndicatorStyles"]
