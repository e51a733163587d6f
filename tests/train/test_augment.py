"""Augmentation: a function of (seed, epoch, sample); its law and its pictures are those of upstream's recipe."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import RandomResizedCrop

from ramflow.settings import AugmentSettings
from ramflow.train import augment
from ramflow.train.augment import OPERATIONS, Plan, draw, generator, random_crop, views
from tests.train import reference

SIZES = ((640, 480), (375, 500), (333, 100))
WHOLE = (0, 0, 160, 120)


@cache
def picture(width: int = 160, height: int = 120, number: int = 0) -> Image.Image:
    """Soft noise with shapes on it: it has contrast, edges and more than one scale."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(40, 200, (height // 8, width // 8, 3), dtype=np.uint8))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = random.integers(0, (width, height)).tolist()
        pen.ellipse((x, y, x + width // 5, y + height // 5), fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


def view(plan: Plan, size: int = 96) -> np.ndarray:
    return views(np.array(picture()), plan, [size])[0].permute(1, 2, 0).numpy().astype(int)


def test_augmentation_is_a_function_of_seed_epoch_and_sample():
    def made(*key):
        plan = draw(160, 120, AugmentSettings(), generator(*key))
        return views(np.array(picture()), plan, [32])[0].numpy().tobytes()

    assert len({made(*key) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}) == 4
    assert made(0, 0, 0) == made(0, 0, 0)


def test_crops_keep_their_share_and_aspect():
    for seed in range(200):
        left, top, right, bottom = random_crop(60, 40, 0.3, np.random.default_rng(seed))
        assert 0 <= left < right <= 60 and 0 <= top < bottom <= 40
        assert 0.28 <= (right - left) * (bottom - top) / 2400 <= 1.01
        assert 0.70 <= (right - left) / (bottom - top) <= 1.40


def test_a_picture_too_long_for_any_draw_is_cropped_in_its_middle():
    assert random_crop(400, 4, 1.0, np.random.default_rng(0)) == (197, 0, 202, 4)


# The law of what is drawn. Distances are Kolmogorov and Smirnov's, between two samples.

DRAWS = 12_000
SAME_LAW = 1.95 * (2 / DRAWS) ** 0.5  # of two samples of one law, 1 in 1000 is further apart


def boxes(crop: Callable[[], tuple[int, int, int, int]], width: int, height: int) -> dict[str, np.ndarray]:
    left, top, right, bottom = np.array([crop() for _ in range(DRAWS)], dtype=float).T
    w, h = right - left, bottom - top
    return {"area": w * h, "aspect": w / h, "left": left, "top": top, "width": w, "height": h}


def ours(width: int, height: int, min_scale: float = 0.2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return boxes(lambda: random_crop(width, height, min_scale, random), width, height)


@cache
def torchvisions(width: int, height: int) -> dict[str, np.ndarray]:
    image = torch.empty(3, height, width)

    def crop() -> tuple[int, int, int, int]:
        top, left, h, w = RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3])
        return left, top, left + w, top + h

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return boxes(crop, width, height)


def furthest(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    distances = []
    for name in a:
        places = np.union1d(a[name], b[name])
        shares = [np.searchsorted(np.sort(x[name]), places, side="right") / len(x[name]) for x in (a, b)]
        distances.append(np.abs(shares[0] - shares[1]).max())
    return max(distances)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_crops_have_the_law_of_torchvisions(width, height):
    assert furthest(ours(width, height), torchvisions(width, height)) < SAME_LAW


def test_a_tenth_more_of_the_smallest_scale_or_of_an_aspect_is_another_law(monkeypatch):
    same = torchvisions(*SIZES[0])
    assert furthest(ours(*SIZES[0], min_scale=0.22), same) > SAME_LAW
    monkeypatch.setattr(augment, "RATIOS", (3 / 4, 1.1 * 4 / 3))
    assert furthest(ours(*SIZES[0]), same) > SAME_LAW


def test_operations_are_drawn_evenly_and_carried_out_half_of_the_time():
    random = np.random.default_rng(0)
    plans = [draw(64, 64, AugmentSettings(), random) for _ in range(DRAWS)]
    carried_out = [operation for plan in plans for operation in plan.operations]
    assert {abs(strength) for _, strength in carried_out} == {0.5}
    assert np.mean([plan.flip for plan in plans]) == pytest.approx(0.5, abs=0.015)
    assert len(carried_out) / (2 * DRAWS) == pytest.approx(0.5, abs=0.01)
    assert np.mean([strength > 0 for _, strength in carried_out]) == pytest.approx(0.5, abs=0.015)
    for name in OPERATIONS:
        assert sum(name == n for n, _ in carried_out) / DRAWS == pytest.approx(0.1, abs=0.009), name
    both = np.mean([len(plan.operations) == 2 for plan in plans])
    assert both == pytest.approx(0.25, abs=0.015)


def test_settings_turn_flip_and_operations_off():
    settings = AugmentSettings(flip=False, operations=0, min_scale=1.0)
    plans = [draw(64, 64, settings, generator(0, 0, n)) for n in range(50)]
    assert not any(plan.flip or plan.operations for plan in plans)


# What is drawn, carried out: the same picture as with Pillow's own operations, one after another.

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def close(name: str) -> float:
    """Pixels on the border of a moved picture are mixed with the grey beside it, as OpenCV does; Pillow's are not."""
    return 0.25 if name in MOVES else 0.01


def differs(name: str, strength: float, reference_strength: float) -> float:
    """Mean distance of a view from the reference's, of 255."""
    own = view(Plan(WHOLE, False, ((name, strength),)))
    plain = np.asarray(reference.carry_out(picture(), Plan(WHOLE, False, ((name, reference_strength),)), 96))
    return float(np.abs(own - plain).mean())


@pytest.mark.parametrize("box", [WHOLE, (13, 7, 110, 90), (40, 30, 72, 61), (0, 100, 20, 120)])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_resized_as_pillow_resizes_them(box, flip):
    plan = Plan(box, flip, ())
    distance = np.abs(view(plan) - np.asarray(reference.carry_out(picture(), plan, 96)))
    assert distance.max() <= 1 and distance.mean() < 0.05


@pytest.mark.parametrize("strength", [0.5, -0.5, 0.8, -0.2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows(name, strength):
    assert differs(name, strength, strength) < close(name)


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ("identity", "auto_contrast", "equalize")])
def test_an_operation_a_tenth_stronger_is_seen(name):
    assert differs(name, 0.88, 0.8) > close(name)


def test_auto_contrast_stretches_a_channel_to_the_whole_range():
    """The public code turns a channel whose minimum is not 0 all white (F47)."""
    ramp = torch.arange(50, 151, dtype=torch.uint8).expand(3, 101, 101).contiguous()
    (stretched,) = OPERATIONS["auto_contrast"]([ramp], 0.5)
    assert stretched.min() == 0 and stretched.max() == 255 and 120 < stretched.float().mean() < 135


def public_table(plane: np.ndarray) -> np.ndarray:
    """The public code's, which works on bytes."""
    high, low = plane.max(keepdims=True)[0], plane.min(keepdims=True)[0]
    scale = 255 / (high - low)
    return (np.arange(256) * scale + -low * scale).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("darkest", [0, 1, 50])
def test_public_auto_contrast_is_that_of_the_public_code(darkest):
    ramp = torch.arange(darkest, 151, dtype=torch.uint8).repeat(3, 151 - darkest, 1)
    box, pixels = (0, 0, 151 - darkest, 151 - darkest), ramp.permute(1, 2, 0).numpy()
    plans = [Plan(box, False, operations) for operations in ((), (("public_auto_contrast", 0.5),))]
    plain, made = (views(pixels, plan, [151 - darkest])[0][0].numpy() for plan in plans)
    assert plain.min() == darkest
    assert np.array_equal(made, public_table(plain)[plain])
    assert (made == 255).all() == (darkest > 0)


def test_the_public_auto_contrast_is_drawn_only_on_request_and_nothing_else_changes():
    correct, public = (
        [draw(64, 64, AugmentSettings(auto_contrast=kind), generator(0, 0, n)) for n in range(300)]
        for kind in ("correct", "public")
    )
    names = {name for plan in correct for name, _ in plan.operations}
    assert names == set(OPERATIONS)
    for ours, theirs in zip(correct, public, strict=True):
        swapped = [("public_auto_contrast" if n == "auto_contrast" else n, s) for n, s in ours.operations]
        assert (theirs.box, theirs.flip, list(theirs.operations)) == (ours.box, ours.flip, swapped)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_take_a_picture_of_one_colour(name):
    plain = torch.full((3, 16, 16), 77, dtype=torch.uint8)
    (result,) = OPERATIONS[name]([plain], -0.8)
    assert result.shape == (3, 16, 16) and result.dtype == torch.uint8


# Student and teacher.


def shrunk(large: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.avg_pool2d(large.float(), 2).numpy()


@pytest.mark.parametrize("name", OPERATIONS)
def test_both_sizes_show_the_same_picture(name):
    pixels = np.array(picture())
    plan = Plan((20, 10, 150, 110), True, ((name, 0.5), ("rotate", -0.5)))
    large, small = views(pixels, plan, [128, 64])
    assert large.shape == (3, 128, 128) and small.shape == (3, 64, 64)
    assert np.abs(shrunk(large) - small.numpy()).mean() < 3
    for other in ((name, -0.5), ("rotate", -0.5)), ((name, 0.5), ("rotate", 0.5)):
        _, wrong = views(pixels, Plan(plan.box, True, other), [128, 64])
        if other != plan.operations and not torch.equal(wrong, small):
            assert np.abs(shrunk(large) - wrong.numpy()).mean() > 3, other


def test_equal_sizes_are_one_view():
    assert len(views(np.array(picture()), Plan(WHOLE, False, ()), [64, 64])) == 1


# The augmented images as a whole: moments, histogram and spectrum, ours and the reference's, each drawn on its own.

VIEWS = 400
SIZE = 48
FAR = 4.5  # standard errors between two means of one law: not once in thousands of figures


def figures(pixels: np.ndarray) -> np.ndarray:
    """Of a view [size, size, 3]: mean and deviation a channel, a histogram of 8 bins, log power in 4 bands."""
    grey = pixels.mean(axis=2)
    power = np.abs(np.fft.rfft2(grey - grey.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    bands = [power[(frequency >= low) & (frequency < low + 0.12)].mean() for low in (0.02, 0.14, 0.26, 0.38)]
    histogram = np.histogram(pixels, bins=8, range=(0, 256))[0] / pixels.size
    return np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1)), histogram, np.log(np.array(bands) + 1e-3)])


def own_views(change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels) -> np.ndarray:
    result = []
    for number in range(VIEWS):
        pixels = np.array(picture(160, 120, number % 4))
        plan = draw(160, 120, AugmentSettings(), generator(0, 0, number))
        (made,) = views(pixels, plan, [SIZE])
        result.append(figures(change(made.permute(1, 2, 0).numpy().astype(float))))
    return np.array(result)


@cache
def reference_views() -> np.ndarray:
    random = np.random.default_rng(99)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        plans = [reference.draw(160, 120, 0.2, random) for _ in range(VIEWS)]
    made = [reference.carry_out(picture(160, 120, n % 4), plan, SIZE) for n, plan in enumerate(plans)]
    return np.array([figures(np.asarray(image).astype(float)) for image in made])


def standard_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))


def test_augmented_images_have_the_moments_histogram_and_spectrum_of_the_reference():
    assert standard_errors(own_views(), reference_views()).max() < FAR


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: (1.1 * pixels).clip(0, 255),
        lambda pixels: (pixels.mean() + 1.1 * (pixels - pixels.mean())).clip(0, 255),
        lambda pixels: 0.9 * pixels + 0.05 * (np.roll(pixels, 1, 0) + np.roll(pixels, -1, 0)),
    ],
    ids=["brighter", "more contrast", "softer"],
)
def test_a_tenth_of_brightness_contrast_or_blur_is_seen(change):
    assert standard_errors(own_views(change), reference_views()).max() > FAR
