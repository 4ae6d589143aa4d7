"""Shared fixtures: a watched process."""

from __future__ import annotations

import pytest

from tests.hostile.watched import Watched


@pytest.fixture(scope="session")
def watched(tmp_path_factory):
    """One process for all entries of a test worker."""
    with Watched(tmp_path_factory.mktemp("watched")) as watched:
        yield watched
