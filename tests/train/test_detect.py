import json

import pytest

from ramflow.train.detect import Context, Detector
from tests.train import curves as c


@pytest.mark.parametrize("kind", c.CLEAN)
def test_nothing_is_found_on_clean_curves(kind: str) -> None:
    assert c.detected(c.clean(**c.CLEAN[kind])) == []


def test_the_mean_of_the_steps_is_read_where_a_row_has_it() -> None:
    """A plateau at a small batch, which single steps hide."""
    curve = c.flat(c.clean(46_000, batch=52), 0, 8000)
    single = Detector(Context(False, True, 416, 4_000_000, 0, len(curve)))
    rows = ({k: v for k, v in row.items() if not k.endswith("_mean")} for row in c.rows(curve))
    assert [f.event for f in c.detected(curve)] == ["plateau"]
    assert not [finding for row in rows for finding in single.see(row)]


def test_a_drift_by_half_is_no_plateau() -> None:
    assert [f.event for f in c.detected(c.drifting(c.clean(batch=52), 0, 6000, 0.5))] == ["drift"]


def test_drift_and_swing_are_found_once() -> None:
    planted = {
        "drift": c.drifting(c.clean(batch=52), 0, 6000, 1.0),
        "oscillation": c.swinging(c.clean(batch=52), 0, 6000, 600, 0.25),
    }
    for event, curve in planted.items():
        found = [f for f in c.detected(curve) if f.event == event]
        assert [f.what for f in found] == ["loss_tag"] and "likely cause" in found[0].sentence, event


def test_most_plateaus_of_long_runs_are_found_and_no_clean_run_has_one() -> None:
    found = 0
    for seed in range(6):
        curve = c.clean(46_000, seed)
        assert c.detected(curve) == []
        plateaus = [f for f in c.detected(c.flat(curve, 0, 8000)) if f.event == "plateau"]
        assert {f.what for f in plateaus} <= {"loss_tag"}
        found += bool(plateaus)
    assert found >= 5


def test_distillation_at_its_floor_names_the_missing_attestation() -> None:
    curve = c.clean(8000)
    curve.values[:, 2] = c.LEVELS[2] * 2.5
    found = c.detected(curve, Context(False, False, 416, 4_000_000, 0, 8000))
    assert [(f.event, f.what) for f in found] == [("plateau", "loss_distillation")]
    assert "attestation is missing" in found[0].sentence


def test_gradients_that_turn_around_are_an_oscillation() -> None:
    assert [f.what for f in c.detected(c.clean(4000), cosine_previous=-0.6)] == ["gradient"]
    assert c.detected(c.clean(4000), cosine_previous=-0.05) == []


def test_resume_finds_the_same() -> None:
    curve = c.swinging(c.clean(12_000, batch=52), 0, 4000, 600, 0.25)
    detector = Detector(Context(False, True, 52, 1000, 0, 12_000))
    events = []
    for number, row in enumerate(c.rows(curve)):
        if number % 100 == 0:
            state = json.loads(json.dumps(detector.state()))
            detector = Detector(detector.context)
            detector.load(state)
        events += detector.see(row)
    assert events == c.detected(curve, detector.context) != []
