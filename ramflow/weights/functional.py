"""What images say of an encoder: is it pretrained, and whole? (F01)

Two views of each image (``views.py``) are shown to the loaded encoder and to a freshly initialised one, and figures of
the mean token are compared. A fresh network passes on colours and brightness and little else, so that its features lie
along a few directions; what was trained tells images apart in many, and says of two views that they are one image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import linear

from ramflow.model.encoder import Swin
from ramflow.model.preprocessing import Preprocessing
from ramflow.settings import VerifySettings
from ramflow.verdict import Check, Severity, check
from ramflow.weights.features import TINY, directions, neighbours, same_class, separation
from ramflow.weights.numbers import STANDS_OUT, spectral_excess
from ramflow.weights.views import views_of

__all__ = ["Functional", "figures", "functional_checks", "look_at_images", "views_of"]

BATCH = 16
FEW_IMAGES = 32
"""With fewer, figures vary by half from one choice of images to another: they warn and do not refuse."""
CONSTANT = 1e-5
"""Features whose deviation is a smaller part of their size are taken to be constant."""

HEAD = "weights.class_head"
GATES = (
    ("agreement", "weights.agreement", True, "two views of an image agree {} times as well as"),
    ("neighbours", "weights.neighbours", False, "views of an image are nearest neighbours {} times as often as"),
    ("directions", "weights.variance", False, "features vary in {} times as many directions as"),
    ("same_class", HEAD, True,
     "the file's class head gives two views of an image one class {} times as often as"),
)  # fmt: skip
"""A figure, its check, whether that may refuse, and what it says."""


@dataclass(frozen=True)
class Functional:
    """Figures of one encoder over two views each of ``images`` images; 0 where features are constant or not finite.

    ``broken`` views have features that are not finite. ``agreement`` is :func:`separation`. ``neighbours`` is the share
    of views whose nearest other view is of the same image: 1 / (2 images - 1) by chance. ``directions`` is in how many
    directions features vary: their effective rank (Roy and Vetterli, 2007). ``variance`` is that of the mean token
    between views, over that of the tokens within one.

    With the file's class head: ``same_class`` is how many times as often, drawn by the head's probabilities, two views
    of one image get one class as two of different images do: 1 by chance. ``confidence`` is the mean highest
    probability. ``head_trained`` says that the head's own matrix does not look random.
    """

    images: int
    broken: int = 0
    agreement: float = 0.0
    neighbours: float = 0.0
    directions: float = 0.0
    variance: float = 0.0
    same_class: float | None = None
    confidence: float | None = None
    head_trained: bool = False


@torch.inference_mode()
def look_at_images(
    encoder: Swin, views: tuple[Tensor, Tensor], class_head: tuple[Tensor, Tensor] | None = None
) -> Functional:
    """Show every view to the encoder once.

    Args:
        encoder: in evaluation mode.
        views: first and second views, uint8 [images, 3, size, size] each.
        class_head: weight [classes, width] and bias [classes], float32, of the head that the encoder was trained with;
            one of other shapes, or of one class, is passed over.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    preprocessing = Preprocessing(encoder.image_size, encoder.mean, encoder.std)
    encoder.to(device)
    means, within = [], []
    for batch in torch.cat(views).split(BATCH):
        tokens = encoder(preprocessing.normalise(batch.to(device)))
        means.append(tokens[:, 0].double().cpu())
        within.append(tokens[:, 1:].var(dim=1).sum(dim=-1).double().cpu())
    encoder.cpu()
    return _measure(torch.cat(means), torch.cat(within), class_head)


def _measure(features: Tensor, within: Tensor, class_head: tuple[Tensor, Tensor] | None) -> Functional:
    found = Functional(len(features) // 2, int((~features.isfinite().all(dim=1)).sum()))
    variance = float(features.var(dim=0).sum())
    size = float(features.square().sum(dim=1).mean())
    if class_head is not None and _fits(class_head, features.shape[1]):
        trained = spectral_excess(class_head[0]) >= STANDS_OUT
        found = replace(found, same_class=0.0, confidence=0.0, head_trained=trained)
    if found.broken or not variance > CONSTANT**2 * size:
        return found
    found = replace(
        found,
        agreement=separation(*features.chunk(2)),
        neighbours=neighbours(features),
        directions=directions(features),
        variance=variance / max(float(within.mean()), TINY),
    )
    if class_head is None or found.same_class is None:
        return found
    chances = linear(features, *(part.double() for part in class_head)).softmax(dim=-1)
    if not chances.isfinite().all():
        return found
    return replace(found, same_class=same_class(chances), confidence=float(chances.amax(dim=1).mean()))


def _fits(class_head: tuple[Tensor, Tensor], width: int) -> bool:
    weight, bias = class_head
    return weight.shape == (len(bias), width) and len(bias) > 1


def figures(loaded: Functional, fresh: Functional) -> dict[str, float]:
    """Figures of both encoders by name, for the attestation; ``ratio`` is that of the agreements.

    They have four digits: what another number of threads changes is beyond.
    """
    found = {"ratio": _ratio("agreement", loaded, fresh)}
    for name in ("agreement", "neighbours", "directions", "variance", "same_class", "confidence"):
        one, other = getattr(loaded, name), getattr(fresh, name)
        if one is not None and other is not None:
            found |= {name: one, f"{name}_fresh": other}
    return {name: float(f"{figure:.4g}") for name, figure in found.items()}


def functional_checks(loaded: Functional, fresh: Functional, settings: VerifySettings) -> list[Check]:
    """Gates on the figures: at least ``min_probe_ratio`` times those of the fresh encoder.

    Agreement and class head refuse where no figure at all is reached: a large fresh encoder, or images unlike those of
    the pretraining, leave a genuine one little room in a single figure. Neighbours and directions only ever warn: where
    images show a few kinds of things, an encoder that was trained to tell kinds apart loses these two to a fresh one.
    """
    judged = [gate for gate in GATES if _is_judged(gate[0], loaded, fresh)]
    ratios = {figure: _ratio(figure, loaded, fresh) for figure, *_ in judged}
    vouched = loaded.images < FEW_IMAGES or any(ratio >= settings.min_probe_ratio for ratio in ratios.values())
    checks = [_sound(loaded, fresh)]
    for figure, id, may_refuse, saying in judged:
        failed = not ratios[figure] >= settings.min_probe_ratio
        severity: Severity = "error" if may_refuse and not (failed and vouched) else "warning"
        one, other = getattr(loaded, figure), getattr(fresh, figure)
        advice = "; give the pretrained file, or lower verify.min_probe_ratio for images unlike those it was trained on"
        checks.append(check(
            id, severity, loaded.images if failed else 0, loaded.images,
            f"{saying.format(f'{ratios[figure]:.2f}')} with a fresh encoder ({one:.3g} against {other:.3g}), "
            f"at least {settings.min_probe_ratio:g} is expected of pretrained weights" + (advice if failed else ""),
        ))  # fmt: skip
    if loaded.same_class is not None and not loaded.head_trained:
        checks.append(check(HEAD, "info", 0, loaded.images, "the file's class head looks untrained"))
    return checks


def _is_judged(figure: str, loaded: Functional, fresh: Functional) -> bool:
    if figure == "same_class" and not loaded.head_trained:
        return False
    return getattr(loaded, figure) is not None and getattr(fresh, figure) is not None


def _sound(loaded: Functional, fresh: Functional) -> Check:
    views = 2 * loaded.images
    if loaded.broken:
        text = f"features of {loaded.broken} of {views} views are NaN or infinite: fetch the file again"
        return check("weights.features", "error", loaded.broken, views, text)
    if loaded.directions:
        return check("weights.features", "error", 0, views, f"features of {views} views are finite and differ")
    text = "features are the same for every image: fetch the file again"
    if not fresh.directions:
        text = "features are the same for every image, with a fresh encoder, too: give verify other images"
    return check("weights.features", "error", views, views, text)


def _ratio(figure: str, loaded: Functional, fresh: Functional) -> float:
    """A figure as a multiple of the fresh encoder's, or of what chance gives where that is more."""
    chance = {"agreement": fresh.images**-0.5, "neighbours": 1 / (2 * fresh.images - 1)}.get(figure, 1.0)
    return float(getattr(loaded, figure) / max(getattr(fresh, figure), chance))
