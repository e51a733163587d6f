"""The table of where a step's time goes."""

import re
import time
from contextlib import nullcontext

import pytest
import torch

from ramflow.train.profiling import Expected, StepProfile, measured_peak

CPU = torch.device("cpu")


def run(profile: StepProfile, steps: int) -> None:
    """Steps of 20 ms, 5 of them in no phase."""
    for _ in range(steps):
        with profile.phase("data wait", host=True):
            time.sleep(0.005)
        for _ in range(2):
            with profile.phase("teacher"):
                time.sleep(0.005)
        time.sleep(0.005)
        profile.step_done(4)


def test_phases_add_up_to_the_step():
    profile = StepProfile(CPU, warm_up=1)
    run(profile, 5)
    times = profile.milliseconds()
    assert list(times) == ["data wait", "teacher", "rest", "step"]
    assert times["data wait"] >= 5 and times["teacher"] >= 10 and times["rest"] >= 5
    assert sum(times.values()) == pytest.approx(2 * times["step"])


def test_steps_that_warm_up_do_not_count():
    profile = StepProfile(CPU, warm_up=1)
    with profile.phase("teacher"):
        time.sleep(0.2)
    profile.step_done(4)
    run(profile, 3)
    assert profile.milliseconds()["teacher"] < 100


def test_off_it_measures_nothing():
    profile = StepProfile(CPU, on=False)
    assert isinstance(profile.phase("teacher"), nullcontext)
    run(profile, 1)
    assert list(profile.milliseconds()) == ["rest", "step"] and profile.steps == 0


def test_phases_within_one_another_are_a_mistake():
    profile = StepProfile(CPU)
    with profile.phase("teacher"), pytest.raises(AssertionError, match="within another"), profile.phase("optimiser"):
        pass


def test_an_error_in_a_phase_leaves_the_profile_usable():
    profile = StepProfile(CPU, warm_up=0)
    with pytest.raises(ValueError), profile.phase("teacher"):
        raise ValueError
    run(profile, 1)
    assert "data wait" in profile.milliseconds()


def test_the_table_sets_what_was_reached_beside_what_is_expected():
    profile = StepProfile(CPU, warm_up=1)
    run(profile, 4)
    table = profile.table(Expected({"teacher": 1e6}, utilisation=0.5, memory=1.0, products="float32"))
    assert table.startswith("3 steps of 4 images on ")
    teacher = next(line for line in table.splitlines() if line.startswith("teacher")).split()
    ms, rate = float(teacher[1]), float(teacher[3]) * 1e12
    assert rate == pytest.approx(4 * 1e6 / ms * 1000, rel=0.02)
    waiting = next(line for line in table.splitlines() if line.startswith("data wait")).split()
    assert len(waiting) == 4  # nothing is expected of it
    assert re.search(r"images/s a process; memory is measured on GPUs$", table)


def test_the_peak_of_this_machine_is_measured():
    assert measured_peak(CPU, "float32") > 1e9
