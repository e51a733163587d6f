import json
import math

import numpy as np
import pytest

from ramflow.settings import GuardSettings
from ramflow.train.guard import Guard
from tests.train import curves as c

SETTINGS = GuardSettings()


@pytest.mark.parametrize("kind", c.CLEAN)
def test_clean_curves_lose_at_most_one_step_in_20000(kind: str) -> None:
    assert sum(d.kind != "accept" for d in c.guarded(c.clean(**c.CLEAN[kind]), SETTINGS)) <= 1


@pytest.mark.parametrize(("value", "times"), [(0, 5), (1, 5), (2, 5), (3, 20)])
def test_single_spikes_are_skipped_one_by_one(value: int, times: float) -> None:
    steps = list(range(680, 6000, 310))
    decisions = c.guarded(c.spiked(c.clean(6000, 1, 26), value, times, steps), SETTINGS)
    assert [step for step, d in enumerate(decisions) if d.kind == "skip" and d.reason == "spike"] == steps


def test_a_new_level_rewinds_and_then_stops() -> None:
    steps = list(range(5000, 8000))
    decisions = c.guarded(c.spiked(c.clean(8000, 0, 416), 0, 50, steps), SETTINGS)
    rewinds = [d for d in decisions if d.kind == "rewind"]
    assert [d.before for d in rewinds] == [5000, 5005, 5010]
    assert decisions[-1].kind == "stop" and "train.guard.max_rewinds" in decisions[-1].sentence


def test_repeated_spikes_are_bounded() -> None:
    steps = list(range(1000, 8000, 50))
    decisions = c.guarded(c.spiked(c.clean(8000, 0, 416), 0, 9, steps), SETTINGS)
    assert len(decisions) == steps[SETTINGS.max_skipped_steps] + 1 and "max_skipped_steps" in decisions[-1].sentence
    assert not any(d.kind == "rewind" for d in decisions)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_is_left_out_from_the_first_step(bad: float) -> None:
    curve = c.clean(300)
    curve.values[[0, 120], [1, 3]] = bad
    decisions = c.guarded(curve, SETTINGS)
    assert [step for step, d in enumerate(decisions) if d.reason == "non_finite"] == [0, 120]


def test_resume_goes_on_to_the_same_limits_and_decisions() -> None:
    curve = c.spiked(c.clean(1200, 3, 26), 0, 50, [30, *range(400, 405), *range(407, 410), 600, 900])
    guard = Guard(SETTINGS)
    for step, values in enumerate(map(tuple, curve.values.tolist())):
        other = Guard(SETTINGS)
        other.load(json.loads(json.dumps(guard.state())))
        limits = guard.limits(step)
        assert other.limits(step) == limits == tuple(float(np.float32(limit)) for limit in limits)
        decision = guard.judge(step, values, limits)
        assert other.judge(step, values, limits) == decision and other.state() == guard.state()


def test_recorded_run_is_let_through() -> None:
    assert all(d.kind == "accept" for d in c.guarded(c.recorded("healthy")[0], SETTINGS))
