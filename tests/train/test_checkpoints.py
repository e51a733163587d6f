"""Checkpoints in a folder: of the moment, whole or not there, newest and best kept, whatever the disk does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ramflow.errors import UserError
from ramflow.storage import sha256_tree
from ramflow.train.checkpoint import Checkpoints, optimizer_tensors, restore_optimizer
from tests.train.checkpoint_runs import cut, flip, loaded, names, saved
from tests.train.saving import check, save, tensors_of


def test_a_new_process_finds_what_was_saved(folder, log):
    assert saved(folder, log, [1, 2, 3]).failures() == []
    assert loaded(folder) == (3, [])
    state = json.loads((folder / "step-00000003" / "state.json").read_text())
    assert set(state["files"]) == {"model.safetensors", "optimizer.safetensors", "metrics.jsonl"}


def test_there_is_none_at_first(folder):
    assert Checkpoints(folder, 2).load() is None


def test_equal_runs_leave_equal_bytes(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name, tmp_path / name / "metrics.jsonl", [1, 2, 3])
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_it_is_of_the_moment_of_the_save(folder, log):
    """The optimiser changes tensors in place right after; the trainer its state and its logs."""
    checkpoints = Checkpoints(folder, 2)
    for step in (1, 2):
        tensors, state = tensors_of(step, 300_000), {"best_step": -1, "square": step * step}
        with log.open("a") as file:
            file.write(f"{step}\n")
        checkpoints.save(step, tensors, state, [log])
        state["square"] = -1
        for group in tensors.values():
            for tensor in group.values():
                tensor.zero_()
    log.write_text("later")
    check(checkpoints, checkpoints.load(), 300_000)


def test_the_newest_are_kept_with_the_best_that_each_names(folder, log):
    saved(folder, log, range(1, 8), keep=2)
    assert names(folder) == ["best-00000006.safetensors", "step-00000006", "step-00000007"]
    saved(folder, log, [8, 9], keep=2)
    assert names(folder) == ["best-00000006.safetensors", "best-00000009.safetensors", "step-00000008", "step-00000009"]


def test_the_best_is_there_before_a_checkpoint_names_it(folder, log):
    """And one that was left behind by a kill, named by none, is not taken for it."""
    checkpoints = saved(folder, log, range(1, 6))
    checkpoints.save_best(6, tensors_of(0)["model"])
    checkpoints.wait()
    assert "best-00000006.safetensors" in names(folder)
    assert loaded(folder) == (5, [])
    again = Checkpoints(folder, 2)
    again.load()
    save(again, 6, log)
    again.wait()
    assert loaded(folder) == (6, [])


def test_a_rewind_gets_the_newest_before(folder, log):
    checkpoints = saved(folder, log, [1, 2, 3], keep=3)
    assert [checkpoints.load(at_most).step for at_most in (9, 3, 2, 1)] == [3, 3, 2, 1]
    assert checkpoints.load(0) is None


def replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


DAMAGE = [
    (cut, "model.safetensors", "model.safetensors has other bytes than were written"),
    (flip, "optimizer.safetensors", "optimizer.safetensors has other bytes than were written"),
    (flip, "metrics.jsonl", "metrics.jsonl has other bytes than were written"),
    (Path.unlink, "model.safetensors", "model.safetensors: no such file or directory"),
    (Path.unlink, "state.json", "state.json: no such file or directory"),
    (cut, "state.json", None),
    (lambda path: path.write_text('{"files": '), "state.json", "state.json is damaged"),
    (lambda path: path.write_text("[]"), "state.json", "state.json is damaged"),
    (lambda path: replace(path, '"model', '"../model'), "state.json", "state.json is damaged"),
    (lambda path: replace(path, '"step": 5', '"step": 4'), "state.json", "state.json is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "name", "says"), DAMAGE)
def test_a_damaged_one_is_passed_over_named_and_replaced(folder, log, damage, name, says):
    saved(folder, log, [1, 2, 3, 4, 5])
    damage(folder / "step-00000005" / name)
    expected = [f"checkpoint of step 5: {says}; the one before is used"] if says else []
    checkpoints = Checkpoints(folder, 2)
    found = checkpoints.load()
    check(checkpoints, found)
    assert (found.step, checkpoints.failures()) == (4 if says else 5, expected)
    log.write_text("1\n2\n3\n4\n")
    save(checkpoints, 5, log)
    checkpoints.wait()
    assert loaded(folder) == (5, []) and names(folder)[1:] == ["step-00000004", "step-00000005"]


def test_a_damaged_one_does_not_count_among_the_newest(folder, log):
    saved(folder, log, range(1, 6), keep=2)
    flip(folder / "step-00000005" / "model.safetensors")
    saved(folder, log, [6], keep=2)
    assert [name for name in names(folder) if "step" in name] == ["step-00000004", "step-00000006"]


def test_without_its_best_weights_one_is_the_last_choice(folder, log):
    saved(folder, log, [1, 2, 3, 4], keep=3)
    flip(folder / "best-00000003.safetensors")
    found = Checkpoints(folder, 3).load()
    assert found.step == 2 and found.state["best_step"] == -1
    shutil.rmtree(folder / "step-00000002")
    checkpoints = Checkpoints(folder, 3)
    found = checkpoints.load()
    assert found.step == 4 and found.state == {"best_step": -1, "square": 16}
    assert "best-00000003.safetensors has other bytes" in checkpoints.failures()[0]


def test_the_best_weights_are_verified_when_they_are_read(folder, log):
    checkpoints = saved(folder, log, [1, 2, 3])
    assert checkpoints.best(3).keys() == tensors_of(3)["model"].keys()
    flip(folder / "best-00000003.safetensors")
    with pytest.raises(UserError, match=r"best-00000003\.safetensors has other bytes"):
        checkpoints.best(3)


def test_one_that_only_lacks_its_name_is_found(folder, log):
    """A kill between the last file and the rename; and between the two renames of a replacement."""
    saved(folder, log, [1, 2])
    (folder / "step-00000002").rename(folder / "step-00000002.partial")
    shutil.copytree(folder / "step-00000001", folder / "step-00000003.partial")
    assert loaded(folder) == (2, []) and names(folder) == ["step-00000001", "step-00000002"]


FULL = """
import sys
from pathlib import Path
from ramflow.errors import UserError
from ramflow.train.checkpoint import Checkpoints
from tests.train.saving import check, save, tensors_of
disk = Path(sys.argv[1])
checkpoints, log = Checkpoints(disk / "checkpoints", 3, most_failed=4), disk / "metrics.jsonl"
for step in (1, 2):
    save(checkpoints, step, log)
(disk / "other").write_bytes(bytes(300_000))
for step in range(3, 7):
    save(checkpoints, step, log)
checkpoints.wait()
print(*checkpoints.failures(), sep="\\n")
print(*sorted(path.name for path in (disk / "checkpoints").iterdir()))
try:
    save(checkpoints, 7, log)
except UserError as error:
    print(error)
found = checkpoints.load()
log.write_bytes(found.logs["metrics.jsonl"].read_bytes())
check(checkpoints, found)
print(found.step)
(disk / "other").unlink()
again = Checkpoints(disk / "checkpoints", 3)
for step in (3, 4):
    save(again, step, log)
again.wait()
assert again.failures() == []
check(again, again.load())
"""


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """On a real file system of 400 KiB; in the end there is room again."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk (unshare -rm)")
    script = 'mount -t tmpfs -o size=400k tmpfs "$0" && exec "$@"'
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, str(tmp_path), *command],
                          cwd=Path(__file__).parents[2], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    *lines, left, error, step = done.stdout.splitlines()
    place = f"{tmp_path}/checkpoints"
    full = "No space left on device"
    assert lines[0] == f"best weights of step 3 not written to {place}: {full}"
    assert [line for line in lines if line.startswith("checkpoint")] == [
        f"checkpoint of step {n} not written to {place}: {full}" for n in range(3, 7)
    ]
    assert left == "step-00000001 step-00000002" and step == "2"
    assert error.startswith(f"train: the last 4 checkpoints could not be written to {place}: ")


def test_a_bug_in_the_writing_thread_is_not_swallowed(folder, log):
    checkpoints = Checkpoints(folder, 2)
    checkpoints.save(1, {"model": {"w": torch.zeros(1)}}, {"best_step": 1}, [])
    with pytest.raises(AssertionError, match="save_best comes before"):
        checkpoints.wait()


# Optimiser


@pytest.mark.parametrize("fused", [True, False])
def test_the_optimiser_comes_back_bit_for_bit(folder, fused):
    def steps(model, optimizer, first, last):
        for step in range(first, last):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(4, 3, 8, 8)).square().sum().backward()
            optimizer.step()

    def build():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        model[0].to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), 1e-2, fused=fused)

    model, optimizer = build()
    steps(model, optimizer, 0, 3)
    checkpoints = Checkpoints(folder, 1)
    tensors = {"model": model.state_dict(), "optimizer": optimizer_tensors(model, optimizer)}
    checkpoints.save(3, tensors, {"best_step": -1}, [])
    steps(model, optimizer, 3, 6)
    again, its_optimizer = build()
    steps(again, its_optimizer, 7, 9)
    found = checkpoints.load()
    again.load_state_dict(found.tensors["model"])
    restore_optimizer(again, its_optimizer, found.tensors["optimizer"])
    assert all(state["step"].item() == 3 for state in its_optimizer.state.values())
    steps(again, its_optimizer, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    mine, its = optimizer_tensors(model, optimizer), optimizer_tensors(again, its_optimizer)
    assert mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)


def test_an_optimiser_without_state_comes_back_without(folder):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(folder, 1)
    tensors = {"model": model.state_dict(), "optimizer": optimizer_tensors(model, optimizer)}
    checkpoints.save(0, tensors, {"best_step": -1}, [])
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    restore_optimizer(model, optimizer, checkpoints.load().tensors["optimizer"])
    assert optimizer_tensors(model, optimizer) == {}
