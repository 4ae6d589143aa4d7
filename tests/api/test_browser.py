"""The dashboard in a real browser: by mouse and keyboard, on a phone and a desk, in the light and in the dark."""

from __future__ import annotations

import re

import pytest

from jobs.scopes import SCOPES
from tests.api.browser import check, chromium, needs_chromium, tab, unfold
from tests.api.conftest import SPEC
from tests.web.test_report_page import KINDS, content, everything, shown

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_pages_have_no_fault_of_accessibility(browser, service, done, width, scheme):
    pages = ("/", "/new", f"/jobs/{done}", f"/jobs/{done}/report", f"/compare?job={done}", "/keys", "/login")
    with tab(browser, str(service.client.base_url), width=width, scheme=scheme) as page:
        for path in pages:
            page.goto(path)
            unfold(page)
            check(page)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_reports_have_no_fault_of_accessibility(browser, kind, tmp_path):
    """As a file that is sent around, on a phone."""
    saved = tmp_path / "report.html"
    saved.write_text(everything() if kind == "hardened" else shown(content(kind)))
    with tab(browser, saved.as_uri(), width=390) as page:
        page.goto(saved.as_uri())
        unfold(page)
        check(page)


def test_login_and_keys_by_keyboard(browser, keyed, keys):
    _, token = keys.create("ours", "keyboard", SCOPES)
    with tab(browser, str(keyed.client.base_url), width=390) as page:
        page.goto("/keys")
        assert page.evaluate("document.activeElement.id") == "key"
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"^[^?]*/keys$"))
        check(page)
        page.fill("#tenant", "by keyboard")
        page.fill("#label", "made in a browser")
        page.keyboard.press("Enter")
        made = page.input_value("#token")
        assert keys.find(made) is not None
        check(page)
        row = page.locator("tr", has_text="made in a browser")
        row.locator("summary").click()
        row.get_by_role("button", name="Revoke for good").click()
        page.wait_for_function("!document.querySelector('#token')")
        assert keys.find(made) is None
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")


def test_the_form_follows_what_is_chosen_and_keeps_what_was_unfolded(browser, service):
    with tab(browser, str(service.client.base_url)) as page:
        page.goto("/new")
        page.click("#advanced > summary")
        page.fill("[name='threat.eps']", "4/255")
        page.select_option("[name='defense.name']", "trades")
        page.wait_for_selector("[name='defense.beta']")
        assert page.input_value("[name='threat.eps']") == "4/255"
        assert page.locator("#advanced[open]").count() == 1
        before = page.inner_text("#cost")
        page.focus("[name='training.optimizer.name']")
        page.select_option("[name='training.optimizer.name']", "sgd")
        page.wait_for_selector("[name='training.optimizer.momentum']")
        assert page.evaluate("document.activeElement.name") == "training.optimizer.name", "the keyboard stays there"
        page.select_option("[name='defense.name']", "free-at")
        page.wait_for_selector("[name='defense.replays']")
        assert page.inner_text("#cost") != before


@pytest.mark.long
def test_submit_watch_read_cancel_and_compare(browser, service, example, data):
    with tab(browser, str(service.client.base_url)) as page:
        first = submitted(page, example, data, "first <of> two", epochs=0)
        page.wait_for_selector("[role=status] >> text=running")
        page.wait_for_selector("figcaption >> text=/After epoch [123] of 3/")
        check(page)
        page.wait_for_selector("figcaption >> text=After epoch 3 of 3")
        page.click("text=Read the report")
        assert "verdict" in page.content().lower()
        assert page.url.endswith("/report")

        second = submitted(page, example, data, "second", epochs=1)
        page.wait_for_selector("[role=status] >> text=succeeded")

        third = submitted(page, example, data, "third", epochs=500)
        page.wait_for_selector("[role=status] >> text=training")
        page.click("text=Pause")
        page.wait_for_selector("[role=status] >> text=paused")
        page.click("text=Resume")
        page.wait_for_selector("[role=status] >> text=running")
        page.goto("/")
        state = page.locator("tr", has_text="third").locator(".live")
        state.locator("text=running").wait_for()
        page.goto(third)
        page.click("text=Cancel")
        page.wait_for_selector("[role=status] >> text=cancelled")

        page.goto("/")
        check(page)
        for job in (first, second):
            page.check(f"[value='{job.rpartition('/')[2]}']")
        page.click("text=Compare those ticked")
        page.wait_for_selector("#picture-head")
        assert page.locator("tbody tr").count() == 2
        assert page.locator(".interval").count() == 4
        check(page)

        page.goto(third)
        page.click("text=Delete this job")
        page.click("text=Delete for good")
        page.wait_for_url(re.compile(r"/$"))
        assert page.locator("tr", has_text="third").count() == 0


def test_a_stream_that_is_lost_is_told_until_it_is_back(browser, service, example, data):
    with tab(browser, str(service.client.base_url), expected=r"ERR_FAILED|\[object Event\]") as page:
        submitted(page, example, data, "lost", epochs=200)
        lost = page.locator(".lost")
        page.wait_for_selector("[role=status] >> text=running")
        assert not lost.is_visible()
        page.route("**/live/**", lambda route: route.abort())
        page.reload()
        lost.wait_for(state="visible")
        check(page)
        page.unroute("**/live/**")
        lost.wait_for(state="hidden")
        page.click("#do-cancel")


def submitted(page, example, data, name, *, epochs):
    """Submit by the form, and first in a wrong way if ``epochs`` is 0; returns the job's address."""
    page.goto("/new")
    page.set_input_files("#checkpoint", example / "checkpoint.pt")
    page.set_input_files("#data", data)
    page.select_option("[name='model.architecture.name']", "fmnist-cnn")
    page.click("#advanced > summary")
    values = {
        "name": name,
        "threat.eps": "0.1",
        "training.epochs": str(epochs),
        "training.batch_size": "50",
        "training.held_out": str(SPEC["training"]["held_out"]),
        "defense.steps": "2",
        "evaluation.samples": "60",
    }
    for field, value in values.items():
        page.fill(f"[name='{field}']", value)
    page.select_option("[name='evaluation.diagnose']", "no")
    page.click("#send")
    if not epochs:
        page.wait_for_selector("#errors")
        assert page.evaluate("document.activeElement.id") == "errors"
        assert page.get_attribute("[name='training.epochs']", "aria-invalid") == "true"
        check(page)
        page.fill("[name='training.epochs']", "3")
        page.click("#send")
    page.wait_for_url("**/jobs/job_*")
    return page.url
