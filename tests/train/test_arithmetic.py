"""Operations as torch counts them, memory as autograd keeps it, and what follows for cards."""

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.activations import saved_bytes
from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.model.execution import Execution
from ramflow.model.losses import Wanted
from ramflow.model.ram_plus import RamPlus
from ramflow.model.teacher import Teacher
from ramflow.settings import HeadSettings, read_settings
from ramflow.train import arithmetic
from ramflow.train.cards import CARDS, card, card_of
from ramflow.train.footprint import Types, encoder_saved, footprint, head_slice_saved
from ramflow.train.operations import ModelShape, encoder_shape, operations
from tests.train import artifacts

ENCODER = "swin_tiny_patch4_window7_224"
SMALL = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]}
LARGE, BASE = "swin_large_patch4_window7_224", "swin_base_patch4_window7_224"
LARGER = {"img_size": 384, "window_size": 12}
TAGS, DESCRIPTIONS, WIDTH, CAPTIONS, IMAGES = 60, 3, 32, 7, 3
RECIPE = Path(__file__).parents[2] / "recipes" / "ram_plus_swin_l_4m_8xa100_40g.yaml"
RECOMPUTE = ("none", "selective", "blocks")


class NoModules:
    """Instead of the counter's tracker of modules, which does not bear a gradient within a forward pass."""

    parents = frozenset({"Global"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def counted(function):
    """What the function returns, and its multiply-adds an image."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()
    with counter:
        result = function()
    return result, counter.get_total_flops() / 2 / IMAGES


def small(heads: int, dropout: float = 0.1) -> tuple[RamPlus, ModelShape]:
    torch.manual_seed(0)
    head = HeadSettings(hidden=96, layers=2, heads=heads, feed_forward=192, dropout=dropout)
    vectors = torch.nn.functional.normalize(torch.randn(TAGS, DESCRIPTIONS, WIDTH), dim=-1)
    model = RamPlus(Swin(ENCODER, SMALL), head, vectors, torch.ones(TAGS, DESCRIPTIONS, dtype=torch.bool))
    return model, ModelShape(
        encoder_shape(model.encoder), head, tags=TAGS, descriptions=DESCRIPTIONS, clip_width=WIDTH
    )


def shape(name: str, **options) -> ModelShape:
    with torch.device("meta"):
        return ModelShape(encoder_shape(Swin(name, options)), HeadSettings())


@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("heads", [1, 4], ids=["folded", "not folded"])
def test_operations_are_those_that_torch_counts(heads, recompute):
    model, of = small(heads)
    model.execution = execution = Execution(recompute=recompute, slice=25)
    wanted = Wanted(
        torch.rand(IMAGES, TAGS) > 0.8, torch.randn(IMAGES, WIDTH), torch.ones(IMAGES, dtype=torch.bool),
        torch.arange(1, IMAGES + 1), torch.randn(CAPTIONS, WIDTH), torch.arange(1, CAPTIONS + 1),
    )  # fmt: skip
    tokens, forward = counted(lambda: model.tokens(torch.randn(IMAGES, 3, 64, 64)))
    losses, head = counted(lambda: model.losses(tokens, wanted, torch.ones(TAGS, dtype=torch.bool)))
    _, backward = counted(lambda: (losses.tag + losses.alignment + losses.distillation).backward())
    expected = operations(of, CAPTIONS, execution)
    assert of.folds() == (heads == 1)
    assert expected.encoder == pytest.approx(forward, rel=0.01)
    assert expected.head == pytest.approx(head, rel=0.01)
    assert expected.backward + expected.recomputed == pytest.approx(backward, rel=0.01)


@pytest.mark.parametrize(
    ("name", "options", "giga"),
    [(LARGE, {}, 34.5), (BASE, {}, 15.4), ("swin_large_patch4_window12_384", {}, 103.9), (LARGE, LARGER, 103.9)],
)
def test_encoders_have_their_published_operations(name, options, giga):
    assert shape(name, **options).encoder.operations / 1e9 == pytest.approx(giga, rel=0.005)


def test_parameters_are_counted():
    model, of = small(4)
    assert of.parameters == sum(p.numel() for p in model.parameters())
    assert shape(LARGE).parameters / 1e6 == pytest.approx(209.6, abs=0.05)
    teacher = shape(LARGE).teacher
    assert teacher.operations / 1e9 == pytest.approx(17.56, abs=0.01)
    assert teacher.parameters / 1e6 == pytest.approx(86.19, abs=0.01)


@pytest.mark.parametrize("residual", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_what_the_encoder_keeps_is_what_autograd_keeps(recompute, precision, residual):
    execution, autocast = Execution(recompute=recompute, residual=residual), precision == "bfloat16"
    with torch.device("meta"):
        encoder = Swin(ENCODER, SMALL, drop_path=0.2)
    of = ModelShape(encoder_shape(encoder), HeadSettings())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        encoder = encoder.to_empty(device="cpu")
        encoder.execution = execution
        images = torch.randn(IMAGES, 3, 64, 64)
        kept = saved_bytes(lambda: encoder(images), encoder.parameters(), encoder.buffers()) / IMAGES
    expected = encoder_saved(of, Types.of(precision, execution), execution)
    if autocast and recompute != "blocks":  # a GPU's autocast takes the first norm in float32, the CPU's does not
        expected -= 2 * of.encoder.stages[0].tokens * of.encoder.stages[0].width
    assert expected == pytest.approx(kept, rel=0.05)


def test_what_a_slice_of_the_head_keeps_is_what_autograd_keeps():
    """Without dropout, whose masks are smaller on a GPU than here."""
    model, of = small(1, dropout=0.0)
    tokens = model.tokens(torch.randn(IMAGES, 3, 64, 64)).detach()
    sides = [tuple(t.detach().requires_grad_() for t in side) for side in model.head.image_sides(tokens, fold=True)]
    queries = torch.randn(IMAGES, TAGS, WIDTH, requires_grad=True)
    excluded = model.parameters(), [tensor for side in sides for tensor in side]
    kept = saved_bytes(lambda: model.head(queries, sides), *excluded) / IMAGES / TAGS
    assert head_slice_saved(of, Types(4, 4)) == pytest.approx(kept, rel=0.05)


def test_a_mode_that_recomputes_more_needs_less_memory_and_more_time():
    of = shape(LARGE)
    modes = [Execution(recompute=recompute) for recompute in RECOMPUTE]
    peaks = [footprint(of, "bfloat16", mode, 52, ema=False).peak(52) for mode in modes]
    assert peaks == sorted(peaks, reverse=True) and peaks[2] < 0.8 * peaks[0]
    work = [operations(of, 416, mode).total for mode in modes]
    assert work == sorted(work) and work[1] < 1.05 * work[0] < work[2]


def test_the_largest_micro_batch_is_the_last_that_fits():
    need = footprint(shape(LARGE), "bfloat16", Execution(), 52, ema=True)
    most = need.largest(39.4)
    room = (39.4 * 2**30 - 1.5 * 2**30) * 0.94
    assert need.peak(most) <= room < need.peak(most + 1)
    assert need.largest(3) == 0
    assert need.peak(1) - footprint(shape(LARGE), "bfloat16", Execution(), 52, ema=False).peak(1) == pytest.approx(
        4 * shape(LARGE).parameters
    )


def test_cards_are_told_by_the_names_that_torch_gives():
    assert card_of("NVIDIA A100-SXM4-40GB", 39.4) is CARDS["a100-40g"]
    assert card_of("NVIDIA A100 80GB PCIe", 79.1) is CARDS["a100-80g"]
    assert card_of("NVIDIA H100 PCIe", 79.1) is CARDS["h100-pcie"]
    assert card_of("NVIDIA H100 80GB HBM3", 79.1) is CARDS["h100"]
    assert card_of("NVIDIA GeForce RTX 4090", 23.6) is CARDS["rtx-4090"]
    assert card_of("Tesla V100-SXM2-16GB", 15.8) is None
    with pytest.raises(UserError, match="a100-40g"):
        card("a100")


def test_hours_follow_from_work_peak_and_utilisation():
    settings = read_settings(RECIPE)
    found = arithmetic.cost(settings, shape(LARGE), card("a100-40g"), 8, 3_874_000)
    short, long = found.hours
    flops = 2 * found.operations.total * 3_874_000 * 5
    assert short == pytest.approx(flops / (8 * 312e12 * 0.45) / 3600)
    assert long == pytest.approx(short * 0.45 / found.utilisation[0])
    assert found.steps == 5 * 9313
    half = arithmetic.cost(settings, shape(LARGE), card("a100-40g"), 4, 3_874_000)
    assert half.hours[0] == pytest.approx(2 * short) and half.micro_batch == 2 * found.micro_batch


def test_the_command_wants_to_know_how_many_images(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {batch: 8}\n")
    with pytest.raises(SystemExit) as ended:
        arithmetic.main([str(recipe)])
    assert ended.value.code == 2 and "--images" in capsys.readouterr().err


def test_what_is_expected_of_a_run_follows_its_own_model_and_teacher(tmp_path):
    """The teacher's operations are those that torch counts."""
    clip = Teacher(artifacts.write_clip(tmp_path / "clip"))
    clip.tower.set_attn_implementation("eager")  # the counter does not know the CPU's attention kernel
    model, of = small(1)
    settings = artifacts.settings(batch=8)
    found = arithmetic.expected(model, clip, settings, micro_batch=4, ranks=2)
    _, teacher = counted(lambda: clip(torch.zeros(IMAGES, 3, 32, 32, dtype=torch.uint8)))
    width = clip.tower.config.hidden_size * (clip.width - WIDTH)  # this model's vectors are wider than this teacher's
    assert found.flops["teacher"] / 2 + width == pytest.approx(teacher, rel=0.01)
    whole = operations(of, 8, Execution()).flops
    assert found.flops["encoder backward"] == whole["encoder backward"] and found.products == "float32"
