"""Logs as they are found: cut off, coloured, with bars and other text between, several runs in one file."""

from __future__ import annotations

import json

import pytest

from ramflow.doctor.log_file import read_log
from ramflow.errors import UserError
from tests.doctor.logs import row

VALUES = {"lr": 1e-4, "loss_tag": 812.441, "loss_dis": 0.2954, "loss_alignment": 88.1021}


def written(tmp_path, *lines, end="\n"):
    path = tmp_path / "log.txt"
    path.write_bytes(("\n".join(lines) + end).encode())
    return path


def test_a_console_row(tmp_path):
    (run,) = read_log(written(tmp_path, row(0, 50, 9303, VALUES))).runs
    (found,) = run.rows
    assert (found.epoch, found.step, found.steps) == (0, 50, 9303)
    assert found.values == pytest.approx(VALUES)


def test_rows_as_the_public_code_prints_them(tmp_path):
    line = ("Train Epoch: [2]  [   0/9303]  eta: 5:12:33  lr: 0.000081  loss_tag: 412.1234  loss_dis: 0.2812  "
            "loss_alignment: 60.9876  time: 2.0123  data: 1.0001  max mem: 36012")  # fmt: skip
    log = read_log(written(tmp_path, line, "Train Epoch: [2] Total time: 1:00:00 (0.38 s / it)"))
    assert log.last.rows[0].values == {
        "lr": 8.1e-5,
        "loss_tag": 412.1234,
        "loss_dis": 0.2812,
        "loss_alignment": 60.9876,
    }
    assert log.damaged_lines == 0


def test_noise_between(tmp_path):
    bar = "\r 12%|#2        | 120/1000 [00:10<01:20,  9.8it/s]\r"
    lines = ["\x1b[32mINFO\x1b[0m something {odd}", bar + row(0, 0, 10, VALUES), "[default0]: " + row(0, 5, 10, VALUES),
             '{"a": 1}', "UserWarning: x", "number of training samples: 3870000",
             "| distributed init (rank 0, word 8): env://"]  # fmt: skip
    log = read_log(written(tmp_path, *lines))
    assert [r.step for r in log.last.rows] == [0, 5]
    assert (log.samples, log.world) == (3870000, 8)


def test_the_last_line_is_cut(tmp_path):
    cut = row(0, 100, 9303, VALUES)
    path = written(tmp_path, row(0, 50, 9303, VALUES), cut[: cut.index("loss_dis: ") + 12], end="")
    log = read_log(path)
    assert len(log.last.rows) == 1 and log.damaged_lines == 1
    path = written(tmp_path, '{"train_loss_tag": "12.0", "epoch": 0}', '{"train_loss_tag": "11.', end="")
    log = read_log(path)
    assert log.last.means("loss_tag") == [12.0] and log.damaged_lines == 1


def test_runs_appended_to_one_file(tmp_path):
    first = [row(0, s, 100, VALUES) for s in (0, 50)] + [row(1, s, 100, VALUES) for s in (0, 50)]
    second = [row(0, s, 100, VALUES | {"loss_tag": 1.0}) for s in (0, 50)]
    log = read_log(written(tmp_path, *first, *second))
    assert [len(run.rows) for run in log.runs] == [4, 2]
    assert log.last.series("loss_tag") == [1.0, 1.0]


def test_a_resumed_run_is_one_run(tmp_path):
    rows = [row(0, 0, 100, VALUES), row(0, 50, 100, VALUES), row(1, 0, 100, VALUES), row(1, 50, 100, VALUES)]
    log = read_log(
        written(tmp_path, *rows, "resume checkpoint from x", row(1, 0, 100, VALUES), row(1, 50, 100, VALUES))
    )
    assert len(log.runs) == 1 and log.resumed
    assert [(r.epoch, r.step) for r in log.last.rows] == [(0, 0), (0, 50), (1, 0), (1, 50)]


def test_console_and_log_txt_in_one(tmp_path):
    lines = []
    for epoch in range(2):
        lines += [
            row(epoch, 0, 10, VALUES),
            f"Averaged stats: lr: 0.0001  loss_tag: {500.1234 - epoch}  loss_dis: 0.2811",
        ]
    figures = {"train_lr": "0.000", "train_loss_dis": "0.281"}
    objects = [json.dumps({**figures, "train_loss_tag": f"{500.123 - e:.3f}", "epoch": e}) for e in range(2)]
    log = read_log(written(tmp_path, *lines, *objects))
    assert len(log.runs) == 1
    assert log.last.means("loss_tag") == [500.1234, 499.1234]


def test_ramflows_own(tmp_path):
    figures = {"learning_rate": 1e-3, "loss_distillation": 0.2, "distillation_relative": 0.9, "scale": 2.6}
    rows = [{"step": s, "epoch": 0, "kind": "train", "loss_tag": 9.0 - s / 10, **figures} for s in range(30)]
    rows.insert(10, {"step": 10, "epoch": 0, "kind": "validation", "mAP": 0.4, "loss_tag": 8.0, "images": 4})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for path in (tmp_path, tmp_path / "metrics.jsonl"):
        log = read_log(path)
        assert log.writer == "ramflow" and len(log.last.rows) == 30
        assert log.last.series("loss_dis")[0] == 0.2 and log.last.series("lr")[0] == 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a log of training"), (b"hello\nworld\n", "not a log of training"), (b"\x89PNG\0\0\0", "binary"),
     (b'{"train_loss_tag": ', "not a log of training")],
)  # fmt: skip
def test_what_is_no_log(tmp_path, content, message):
    path = tmp_path / "log.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_log(path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="no such log"):
        read_log(tmp_path / "none.txt")
    with pytest.raises(UserError, match="no such log"):
        read_log(tmp_path)
