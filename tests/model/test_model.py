"""Properties of the model that training relies on."""

import math

import pytest
import torch
from torch.nn import functional as F

from ramflow.errors import UserError
from ramflow.model.encoder import Swin
from ramflow.model.head import TaggingHead
from ramflow.model.losses import Wanted, alignment_target, asymmetric_loss, asymmetric_sum, tag_loss
from ramflow.model.preprocessing import Preprocessing
from ramflow.model.ram_plus import RamPlus
from ramflow.model.reweighting import MAX_SCALE, Reweighting
from ramflow.settings import HeadSettings

OPTIONS = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))), dim=-1)


def reweighted(image: torch.Tensor, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    reweighting = Reweighting()
    return reweighting(reweighting.direction(image), embeddings, mask)


def test_queries_never_see_one_another():
    torch.manual_seed(0)
    head = TaggingHead(width=8, hidden=16, layers=2, heads=2, feed_forward=32, dropout=0.0)
    queries, tokens = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    sides = head.image_sides(tokens)
    together = head(queries, sides)
    alone = torch.cat([head(queries[:, i : i + 1], sides) for i in range(5)], dim=1)
    torch.testing.assert_close(together, alone)


def test_reweighting_equals_the_loop_over_images():
    image, embeddings = torch.randn(3, 8), unit(4, 5, 8)
    mask = torch.ones(4, 5, dtype=torch.bool)
    batched = reweighted(image, embeddings, mask)
    for b in range(3):
        for t in range(4):
            logits = embeddings[t] @ F.normalize(image[b], dim=0) / 0.07
            torch.testing.assert_close(batched[b, t], logits.softmax(0) @ embeddings[t], rtol=1e-5, atol=1e-6)


def test_masked_descriptions_have_no_weight():
    image, embeddings = torch.randn(3, 8), unit(4, 5, 8)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[:, 3:] = False
    other = embeddings.clone()
    other[:, 3:] = unit(4, 2, 8)
    torch.testing.assert_close(reweighted(image, embeddings, mask), reweighted(image, other, mask))


def test_the_scale_is_bounded():
    reweighting = Reweighting()
    reweighting.scale.data.fill_(50.0)
    image, embeddings, mask = torch.randn(1, 8), unit(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)
    bounded = reweighting(reweighting.direction(image), embeddings, mask)
    reweighting.scale.data.fill_(MAX_SCALE)
    torch.testing.assert_close(bounded, reweighting(reweighting.direction(image), embeddings, mask))


def captioned(*ids: int) -> Wanted:
    numbers = torch.tensor(ids)
    nothing = torch.zeros(len(ids), 0)
    return Wanted(nothing.bool(), nothing, torch.ones(len(ids), dtype=torch.bool), numbers, nothing, numbers)


def test_equal_captions_are_positives():
    target = alignment_target(captioned(5, 3, 5))
    assert target.positive.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert target.counts.all()


def test_images_without_a_caption_do_not_count_in_the_alignment():
    target, logits = alignment_target(captioned(1, 2, 0)), torch.randn(3, 3)
    changed = logits.clone()
    changed[2], changed[:, 2] = 9.0, -9.0
    assert asymmetric_sum(logits, target) == asymmetric_sum(changed, target)
    changed[0, 0] += 1
    assert asymmetric_sum(logits, target) != asymmetric_sum(changed, target)


def test_tag_loss_does_not_change_with_the_batch():
    logits, targets = torch.randn(4, 6), torch.rand(4, 6) < 0.3
    mask = torch.ones(6, dtype=torch.bool)
    twice = tag_loss(logits.repeat(2, 1), targets.repeat(2, 1), mask)
    torch.testing.assert_close(twice, tag_loss(logits, targets, mask))


def test_loss_at_initialisation_is_what_arithmetic_says():
    """p = 0.5: 10 positives cost ln 2 each, negatives weight 0.45^7; upstream-facts: 892 for a batch of 52."""
    targets = torch.zeros(1, 4585, dtype=torch.bool)
    targets[0, :10] = True
    loss = 52 * asymmetric_loss(torch.zeros(1, 4585), targets, 7.0).sum()
    by_hand = 52 * (10 * math.log(2) - 4575 * 0.45**7 * math.log(0.55))
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert loss.item() == pytest.approx(892, abs=1)


@pytest.mark.parametrize("logit", [-120.0, 120.0])
def test_losses_stay_finite_at_extreme_logits_in_half_precision(logit):
    logits = torch.full((2, 3), logit, dtype=torch.bfloat16, requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor([[True, False, True]] * 2), 7.0).sum()
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and logits.grad.isfinite().all()


def test_the_first_token_is_the_mean_of_the_others():
    torch.manual_seed(0)
    tokens = Swin("swin_tiny_patch4_window7_224", OPTIONS).eval()(torch.randn(2, 3, 32, 32))
    assert tokens.shape == (2, 1 + 16, 16)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))


def test_embeddings_are_not_part_of_the_weights():
    model = RamPlus(Swin("swin_tiny_patch4_window7_224", OPTIONS), HeadSettings(hidden=8, heads=2, feed_forward=8),
                    unit(3, 2, 8), torch.ones(3, 2, dtype=torch.bool))  # fmt: skip
    assert not any("embeddings" in name or name == "mask" for name in model.state_dict())


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet50", {}), ("swin_imaginary", {}), ("swin_tiny_patch4_window7_224", {"embed_dims": 3})],
)
def test_other_encoders_are_one_line(name, options):
    with pytest.raises(UserError, match=name):
        Swin(name, options)


def test_normalisation_is_that_of_the_encoder():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    images = Preprocessing(8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).normalise(pixels)
    torch.testing.assert_close(images[0, 1], (pixels[0, 1] / 255 - 0.4) / 0.3)
    with pytest.raises(AssertionError, match="is not 4 pixels"):
        Preprocessing(4, (0.5,) * 3, (0.5,) * 3).normalise(pixels)
