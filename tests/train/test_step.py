"""A step: however the batch is cut, the same gradient; nothing bad is learnt; what came of it is told."""

from __future__ import annotations

import json
import math
import multiprocessing

import pytest
import torch
from safetensors.torch import load_file

from ramflow.errors import UserError
from ramflow.train.guard import VALUES
from ramflow.train.samples import Batch
from ramflow.train.step import Reading
from tests.train import engine_rank, engines
from tests.train.engines import OPEN, WEIGHTS


def step(engine, batch, number=0, limits=OPEN, **options):
    return engine.step(batch, number, 1e-3, limits, WEIGHTS, **options)


@pytest.fixture(scope="module")
def whole() -> tuple[dict, dict]:
    """Gradients and values of 52 images at once, in one process."""
    engine = engines.engine(engines.settings())
    values = step(engine, engines.batch(52)).read()
    return engines.gradients(engine), values


@pytest.mark.parametrize("micro_batch", [26, 13, 20, 1])
def test_micro_batches_make_the_gradient_of_the_whole_batch(whole, micro_batch):
    engine = engines.engine(engines.settings(micro_batch=micro_batch))
    values = step(engine, engines.batch(52)).read()
    engines.close(engines.gradients(engine), whole[0])
    for name in VALUES:
        assert values[name] == pytest.approx(whole[1][name], rel=1e-5), name


def test_two_processes_make_the_gradient_of_the_whole_batch(whole, tmp_path):
    """26 images each, at once and in micro-batches of 7; DDP brings them together."""
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "meeting", tmp_path)
    processes = [context.Process(target=engine_rank.rank, args=(n, *arguments)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    for name in ("whole", "micro"):
        first, second = (load_file(tmp_path / f"{name}-{n}.safetensors") for n in range(2))
        engines.close({n: t for n, t in first.items() if n not in VALUES}, whole[0])
        assert all(torch.equal(first[n], second[n]) for n in first)
        for value in VALUES:
            assert first[value].item() == pytest.approx(whole[1][value], rel=1e-5), value
    said = [(tmp_path / f"said-{n}.txt").read_text().splitlines() for n in range(2)]
    assert said[0] == said[1] == ["nothing moved", "all finite", "micro-batch 7", "told", "empty share"]


def distinct(images: int) -> Batch:
    """A batch in which every image has a caption of its own."""
    batch = engines.batch(images)
    random = torch.Generator().manual_seed(images)
    batch.captions[:] = torch.nn.functional.normalize(torch.randn(images, engines.WIDTH, generator=random), dim=-1)
    batch.caption_ids[:] = torch.arange(1, images + 1)
    return batch


def test_losses_per_image_do_not_change_with_the_batch():
    """The same images twice over: the same losses per image; negatives count as in the batch that is imitated (F15)."""
    once, twice = engines.batch(20), engines.batch(20).mapped(lambda tensor: torch.cat([tensor, tensor]))
    values = [step(engines.engine(engines.settings(batch=n)), b).read() for n, b in ((20, once), (40, twice))]
    for name in ("loss_tag", "loss_distillation"):
        assert values[0][name] == pytest.approx(values[1][name], rel=1e-5)
    batch = distinct(208)
    parts = [batch.mapped(lambda tensor, n=n: tensor[n::8]) for n in range(8)]
    few = [step(engines.engine(engines.settings(batch=26)), part).read()["loss_alignment"] for part in parts]
    many = step(engines.engine(engines.settings(batch=208)), batch).read()["loss_alignment"]
    assert many == pytest.approx(sum(few) / 8, rel=0.03)


def test_masked_tags_leave_no_gradient_and_smoothed_ones_do():
    batch = engines.batch(8)
    batch.targets[:, 4] = False
    moved = []
    for masked, floor in (([4], None), ([], None), ([], torch.tensor([0.0] * 4 + [0.1] + [0.0] * 4))):
        engine = engines.engine(engines.settings(batch=8), masked, floor)
        engine.model.embeddings.requires_grad_(True)
        values = step(engine, batch).read()
        moved.append(values["loss_tag"])
    assert moved[0] < moved[1] < moved[2]


def parameters(engine):
    return {name: p.detach().clone() for name, p in engine.model.named_parameters()}


@pytest.mark.parametrize("fault", ["nan_weight", "loss", "norm"])
def test_a_bad_step_changes_nothing(fault):
    engine = engines.engine(engines.settings(batch=8))
    step(engine, engines.batch(8))
    limits = list(OPEN)
    if fault == "nan_weight":
        engine.model.head.logit.weight.data[0, 3] = float("nan")
    else:
        limits[VALUES.index({"loss": "loss_tag", "norm": "grad_norm"}[fault])] = 1e-3
    before, state = parameters(engine), {k: v.clone() for s in engine.optimizer.state.values() for k, v in s.items()}
    values = step(engine, engines.batch(8), 1, tuple(limits)).read()
    assert not values["good"]
    for name, value in parameters(engine).items():
        assert torch.equal(value.nan_to_num(7), before[name].nan_to_num(7)), name
    after = {k: v for s in engine.optimizer.state.values() for k, v in s.items()}
    assert all(torch.equal(after[k], state[k]) for k in state)


def test_a_good_step_is_clipped_and_changes_all():
    engine = engines.engine(engines.settings(batch=8, clip_norm=1e-3))
    before = parameters(engine)
    values = step(engine, engines.batch(8)).read()
    assert values["good"] and values["grad_norm"] > 1e-3
    moved = {name for name, value in parameters(engine).items() if not torch.equal(value, before[name])}
    assert {name for name in before if "key.bias" not in name} <= moved
    norm = torch.stack([p.grad.norm() for p in engine.parameters]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-4)


def test_a_step_without_an_image_is_no_update():
    engine = engines.engine(engines.settings(batch=8))
    before = parameters(engine)
    values = step(engine, engines.batch(8).mapped(lambda tensor: tensor[:0])).read()
    assert values["images"] == 0 and not values["good"]
    assert all(torch.equal(value, before[name]) for name, value in parameters(engine).items())


def short_of_memory(engine, fits: int) -> None:
    """Let passes of more than ``fits`` images run out of memory, as a card does."""
    forward = engine.forward.forward

    def limited(pixels, wanted, negatives):
        if len(pixels) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(pixels, wanted, negatives)

    engine.forward.forward = limited


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_gradient(whole, capsys):
    engine = engines.engine(engines.settings())
    short_of_memory(engine, 15)
    step(engine, engines.batch(52))
    assert engine.micro_batch == 13
    engines.close(engines.gradients(engine), whole[0])
    assert "micro-batches of 13 from here on" in capsys.readouterr().err


def test_a_micro_batch_that_fits_is_found_before_the_first_step():
    engine = engines.engine(engines.settings())
    short_of_memory(engine, 7)
    before = parameters(engine)
    engine.fit(engines.batch(2))
    assert engine.micro_batch == 7
    assert all(torch.equal(value, before[name]) for name, value in parameters(engine).items())


def test_one_image_that_does_not_fit_is_one_line():
    engine = engines.engine(engines.settings(batch=4))
    short_of_memory(engine, 0)
    with pytest.raises(UserError, match=r"one image does not fit.*train\.recompute"):
        step(engine, engines.batch(4))


def test_gradients_of_each_loss_are_those_of_plain_autograd():
    engine = engines.engine(engines.settings(batch=8))
    values = step(engine, engines.batch(8), monitored=True).read()
    grads = []
    for number in range(3):
        alone = engines.engine(engines.settings(batch=8))
        weights = tuple(w if n == number else 0.0 for n, w in enumerate(WEIGHTS))
        alone.step(engines.batch(8), 0, 0.0, OPEN, weights)
        grads.append(torch.cat([p.grad.flatten() for p in alone.encoder]))
    names = ("tag", "alignment", "distillation")
    for a in range(3):
        for b in range(a):
            cosine = torch.nn.functional.cosine_similarity(grads[a], grads[b], dim=0).item()
            assert values[f"cosine_{names[b]}_{names[a]}"] == pytest.approx(cosine, abs=1e-4)
    unclipped = engines.engine(engines.settings(batch=8, clip_norm=1e9))
    unclipped.step(engines.batch(8), 0, 0.0, OPEN, (WEIGHTS[0], 0.0, 0.0))
    norm = torch.stack([p.grad.norm() for p in unclipped.encoder]).norm().item()
    assert values["grad_norm_tag"] == pytest.approx(norm, rel=1e-4)
    assert all(ratio >= 0 for name, ratio in values.items() if name.startswith("update_ratio."))


def test_the_cosine_to_the_gradients_before_is_one_for_a_step_repeated():
    engine = engines.engine(engines.settings(batch=8, clip_norm=1e9))
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    first = step(engine, engines.batch(8), 0, monitored=True).read()
    assert math.isnan(first["cosine_previous"])
    again = step(engine, engines.batch(8), 1, monitored=True).read()
    assert again["cosine_previous"] == pytest.approx(1, abs=1e-5)


def test_a_reading_survives_a_checkpoint():
    engine = engines.engine(engines.settings(batch=8))
    reading = step(engine, engines.batch(8), monitored=True, stop=True)
    again = Reading.of(json.loads(json.dumps(reading.state())))
    assert json.dumps(again.state()) == json.dumps(reading.state())
    assert again.limits == reading.limits == OPEN and reading.read()["stop"] == again.read()["stop"] == 1


def unreadable(batch: Batch, rows: int) -> Batch:
    return batch.mapped(lambda tensor: tensor[rows:])


def test_images_that_are_left_out_do_not_lower_the_losses_of_the_others():
    some = step(engines.engine(engines.settings(batch=8)), unreadable(engines.batch(8), 3)).read()
    alone = step(engines.engine(engines.settings(batch=5)), unreadable(engines.batch(8), 3)).read()
    assert some["loss_tag"] == pytest.approx(alone["loss_tag"], rel=1e-6)
    assert some["images"] == 5
