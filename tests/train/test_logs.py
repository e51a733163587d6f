"""Logs: whole lines, the same after going on as never stopped, and TensorBoard that shows each step once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ramflow.errors import UserError
from ramflow.train.logs import Logs, NoLogs

TRAIN = {"loss": 2.0, "accepted": True, "update_ratio": {"encoder.stage0": 1e-3}}


def rows(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def shown(folder: Path, name: str) -> list[tuple[int, float]]:
    board = EventAccumulator(str(folder))
    board.Reload()
    return [(event.step, round(event.value, 6)) for event in board.Scalars(name)]


def write(logs: Logs, steps: range, speed: float) -> None:
    """A row of train and of speed a step; a validation after every second one."""
    for step in steps:
        logs.row(step, "train", TRAIN | {"loss": 10.0 - step})
        logs.speed(step, {"images_per_second": speed})
        if step % 2:
            logs.row(step + 1, "validation", {"mAP": (step + 1) / 10})


def test_rows_hold_step_and_epoch_and_strict_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = Logs(tmp_path, None, 3)
    logs.row(4, "train", {"loss": float("nan"), "update_ratio": {"head.logit": float("inf"), "head.project": 0.5}})
    logs.event(4, "skip", {"sentence": "a spike", "limits": {"grad_norm": float("inf")}, "samples": ["a", "b"]})
    logs.event(5, "checkpoint", "disk full")
    logs.close()
    assert rows(tmp_path / "metrics.jsonl") == [
        {"step": 4, "epoch": 1.3333, "kind": "train", "loss": None,
         "update_ratio": {"head.logit": None, "head.project": 0.5}},
    ]  # fmt: skip
    assert [row["detail"] for row in rows(tmp_path / "events.jsonl")] == [
        {"sentence": "a spike", "limits": {"grad_norm": None}, "samples": ["a", "b"]},
        "disk full",
    ]
    assert "step 4: skip: a spike" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "metrics.jsonl"]


def test_going_on_gives_the_rows_of_a_run_never_stopped(tmp_path: Path) -> None:
    straight = Logs(tmp_path / "a", tmp_path / "a.logs", 10)
    write(straight, range(8), 5.0)
    straight.close()

    broken = Logs(tmp_path / "b", tmp_path / "b.logs", 10)
    write(broken, range(4), 5.0)
    kept = {path.name: Path(shutil.copy(path, tmp_path / f"kept-{path.name}")) for path in broken.files()}
    write(broken, range(4, 7), 9.0)
    broken.event(6, "skip", "is forgotten")
    broken.close()
    with (tmp_path / "b.logs" / "speed.jsonl").open("a") as file:
        file.write('{"step": 2, "cut o')

    again = Logs(tmp_path / "b", tmp_path / "b.logs", 10)
    again.restore(kept, 4)
    again.event(4, "out_of_memory", {"micro_batch": 4})  # the first to open TensorBoard
    (tmp_path / "b" / "events.jsonl").write_text("")
    write(again, range(4, 8), 5.0)
    again.close()
    for name in ("a/metrics.jsonl", "a/events.jsonl", "a.logs/speed.jsonl"):
        assert (tmp_path / name.replace("a", "b", 1)).read_bytes() == (tmp_path / name).read_bytes(), name
    for name in ("train/loss", "train/update_ratio/encoder.stage0", "validation/mAP", "speed/images_per_second"):
        a, b = (shown(tmp_path / f"{run}.logs" / "tensorboard", name) for run in "ab")
        assert a == b and len(a) >= 4, name


def test_going_on_elsewhere_shows_the_whole_run(tmp_path: Path) -> None:
    first = Logs(tmp_path / "out", tmp_path / "lost", 10)
    write(first, range(4), 5.0)
    first.close()
    kept = {path.name: Path(shutil.copy(path, tmp_path / f"kept-{path.name}")) for path in first.files()}
    again = Logs(tmp_path / "new", tmp_path / "new.logs", 10)
    again.restore(kept, 4)
    write(again, range(4, 6), 5.0)
    again.close()
    assert shown(tmp_path / "new.logs" / "tensorboard", "train/loss") == [(step, 10.0 - step) for step in range(6)]


def test_without_a_checkpoint_all_begins_anew(tmp_path: Path) -> None:
    Logs(tmp_path, None, 10).row(0, "train", TRAIN)
    again = Logs(tmp_path, None, 10)
    again.restore({}, 0)
    assert [path.read_bytes() for path in again.files()] == [b"", b""]


def test_a_full_disk_is_one_line_and_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = Logs(tmp_path, None, 10)
    logs.row(0, "train", TRAIN)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from ramflow.train.logs import Logs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 20}, resource.RLIM_INFINITY))\n"
        "Logs(Path(sys.argv[1]), None, 10).row(1, 'train', {'loss': 1.0, 'text': 'x' * 100})"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "UserError" in ended.stderr and "metrics.jsonl cannot be written" in ended.stderr
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(UserError, match="logs cannot be written"):
        Logs(tmp_path / "out", tmp_path / "logs", 10)


def test_tensorboard_is_imported_only_where_it_is_used(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ramflow.train.logs import Logs\n"
        "logs = Logs(Path(sys.argv[1]), None, 10); logs.row(0, 'train', {'loss': 1.0}); logs.close()\n"
        "assert 'tensorboard' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logs = NoLogs()
    logs.row(0, "train", TRAIN)
    logs.event(0, "skip", "x")
    logs.speed(0, {"images_per_second": 1.0})
    logs.restore({}, 0)
    logs.close()
    assert logs.files() == [] and list(tmp_path.iterdir()) == []
