"""The adversary's strength over the run."""

from __future__ import annotations

import numpy as np
import pytest

from core.eps_schedules import EPS_SCHEDULES
from core.eps_schedules.decay import Decay
from core.eps_schedules.ramp import Ramp


@pytest.mark.parametrize("name", EPS_SCHEDULES.names())
def test_strength_is_a_share(name):
    schedule = EPS_SCHEDULES[name].model_validate({"name": name})
    assert all(0 <= schedule.factor(share) <= 1 for share in np.linspace(0, 1, 101))


def test_ramp_holds_then_rises_then_stays():
    ramp = Ramp(hold=0.2, full=0.6)
    assert [ramp.factor(share) for share in (0, 0.2, 0.3, 0.4, 0.6, 0.99)] == pytest.approx([0, 0, 0.25, 0.5, 1, 1])
    assert Ramp(full=0.5).factor(0.25) == pytest.approx(0.5)


def test_decay_is_the_papers_over_60_epochs():
    """Hou et al.: linearly 2 -> 0.5 (/255) over the first 50, the last 10 clean only."""
    strength = [2 * Decay().factor(epoch / 60) for epoch in (0, 25, 49.99, 50, 59)]
    assert strength == pytest.approx([2, 1.25, 0.5, 0, 0], abs=1e-3)
