"""Out of memory: how the kernel tells, and that a child that it killed is told so."""

from __future__ import annotations

from worker import oom


def test_the_count_of_the_own_group(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/old\n0::/temper/worker\n")
    group = tmp_path / "groups" / "temper" / "worker"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert oom.kills(own, tmp_path / "groups") == 2


def test_the_older_version_counts_elsewhere(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/temper\n0::/\n")
    group = tmp_path / "memory" / "temper"
    group.mkdir(parents=True)
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert oom.kills(own, tmp_path) == 5


def test_where_nobody_counts(tmp_path):
    own = tmp_path / "cgroup"
    assert oom.kills(own, tmp_path) == 0
    own.write_text("4:memory:/old\n")
    assert oom.kills(own, tmp_path) == 0
    own.write_text("0::/\n")
    assert oom.kills(own, tmp_path) == 0
