"""Keys: found by whoever has them, told once, and of no use once they are revoked."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from jobs.errors import KeyUnknownError, TenantUnknownError
from jobs.keys import KEY, SESSION_SECONDS, KeyRepository
from jobs.limits import Limits
from jobs.scopes import Scope
from jobs.tables import ApiKey, BrowserSession

READ = frozenset({Scope.READ})


@pytest.fixture
def keys(engine):
    return KeyRepository(engine)


def test_a_key_is_found_and_only_its_digest_is_kept(keys, engine):
    key_id, token = keys.create("vision", "ci", READ)
    assert KEY.fullmatch(token)
    found = keys.find(token)
    assert (found.key_id, found.scopes) == (key_id, READ)
    assert found.tenant_id == keys.find(keys.create("vision", "laptop", READ)[1]).tenant_id
    assert found.tenant_id != keys.find(keys.create("speech", "ci", READ)[1]).tenant_id
    with engine.connect() as connection:
        row = connection.execute(select(ApiKey.__table__).where(ApiKey.id == key_id)).one()
    assert token[12:] not in repr(row)


def test_what_is_nearly_a_key_is_none(keys):
    _, token = keys.create("vision", "ci", READ)
    other = "A" if token[-1] != "A" else "B"
    for wrong in (token[:-1] + other, token[:12], token[:-1], token + "A", token.upper(), "", "tmp_" + "A" * 43):
        assert keys.find(wrong) is None


def test_revoked_and_expired(keys, pass_time):
    key_id, token = keys.create("vision", "ci", READ)
    keys.revoke(key_id)
    keys.revoke(key_id)
    assert keys.find(token) is None
    assert not keys.is_live(key_id)
    short_id, short = keys.create("vision", "short", READ, seconds=30)
    assert keys.find(short) is not None
    pass_time(31)
    assert keys.find(short) is None
    assert not keys.is_live(short_id)
    with pytest.raises(KeyUnknownError):
        keys.revoke("key_x")


def test_the_last_use_is_written_once_a_minute(keys):
    key_id, _ = keys.create("vision", "ci", READ)
    keys.used(key_id)
    (first,) = [key.last_used_at for key, _ in keys.every()]
    keys.used(key_id)
    assert [key.last_used_at for key, _ in keys.every()] == [first]


def test_a_session_lives_as_long_as_its_key_and_no_longer_than_its_user_wants(keys, engine, pass_time):
    key_id, _ = keys.create("vision", "ci", READ)
    first, second = keys.log_in(key_id), keys.log_in(key_id)
    assert keys.find_session(first).key_id == key_id
    with engine.connect() as connection:
        assert first not in repr(connection.execute(select(BrowserSession.__table__)).all())
    browser = keys.find_session(first).session
    assert keys.is_live(key_id, browser)
    keys.log_out(first)
    assert not keys.is_live(key_id, browser)
    assert keys.is_live(key_id)
    assert keys.find_session(first) is None
    assert keys.find_session(second) is not None
    keys.revoke(key_id)
    assert keys.find_session(second) is None
    short_id, _ = keys.create("vision", "short", READ, seconds=30)
    token = keys.log_in(short_id)
    pass_time(31)
    assert keys.find_session(token) is None


def test_a_session_ends_after_a_week(keys, pass_time):
    key_id, _ = keys.create("vision", "ci", READ)
    token = keys.log_in(key_id)
    browser = keys.find_session(token).session
    pass_time(SESSION_SECONDS - 60)
    assert keys.find_session(token) is not None
    assert keys.is_live(key_id, browser)
    pass_time(120)
    assert keys.find_session(token) is None
    assert not keys.is_live(key_id, browser)
    assert keys.is_live(key_id)


def test_a_key_has_so_many_sessions_and_the_oldest_gives_way(keys, pass_time):
    (mine, _), (theirs, _) = keys.create("vision", "ci", READ), keys.create("vision", "other", READ)
    other, first = keys.log_in(theirs), keys.log_in(mine)
    for _ in range(49):
        pass_time(1)
        last = keys.log_in(mine)
    assert keys.find_session(first) is not None
    keys.log_in(mine)
    assert keys.find_session(first) is None
    assert keys.find_session(last) is not None
    assert keys.find_session(other) is not None


def test_limits_of_a_tenant_go_before_those_of_the_settings(keys):
    _, token = keys.create("vision", "ci", READ)
    usual = Limits(10, 1000, 100, 60)
    assert usual.of(keys.find(token).limits) == usual
    keys.set_limits("vision", {"max_queued": 0, "max_bytes": 5})
    assert usual.of(keys.find(token).limits) == Limits(0, 5, 100, 60)
    keys.set_limits("vision", {"max_queued": None})
    assert usual.of(keys.find(token).limits) == Limits(10, 5, 100, 60)
    with pytest.raises(TenantUnknownError):
        keys.set_limits("nobody", {})
