"""The batch that losses and steps imply, against the losses themselves and the figures of the public code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ramflow.doctor.magnitudes import alignment_loss_per_image, implied_batch, negative, tag_loss_per_image
from ramflow.model.losses import asymmetric_loss
from tests.doctor.conftest import ids
from tests.doctor.logs import console

AT_ZERO = np.zeros(1)


def test_the_formulas_are_the_losses():
    logits = torch.linspace(-3, 3, 13, dtype=torch.float64)
    for gamma in (7.0, 4.0):
        want = asymmetric_loss(logits, torch.zeros(13, dtype=torch.bool), gamma)
        np.testing.assert_allclose(negative(gamma, logits.numpy()), want, rtol=1e-5)


def test_the_known_figures():
    assert tag_loss_per_image(AT_ZERO, 4585, 10)[0] == pytest.approx(17.15, abs=0.01)
    assert 52 * tag_loss_per_image(AT_ZERO, 4585, 10)[0] == pytest.approx(892, abs=1)
    assert [n * alignment_loss_per_image(AT_ZERO, np.array([n]))[0] for n in (52, 26)] == pytest.approx(
        [101, 34], abs=0.6
    )


@pytest.mark.parametrize("batch", [8, 26, 52, 104])
@pytest.mark.parametrize("logit", [-0.8, -0.2, 0.0, 0.4, 1.0])
def test_the_range_holds_the_batch(batch, logit):
    """Every image has another logit, every tag a little another one, and as many tags as it happens to have."""
    rng = torch.Generator().manual_seed(batch)
    image = logit + 0.2 * torch.randn(batch, 1, generator=rng)
    tags = image + 0.06 * torch.randn(batch, 4585, generator=rng)
    targets = torch.rand(batch, 4585, generator=rng) < 10.8 / 4585
    captions = image + 0.06 * torch.randn(batch, batch, generator=rng)
    loss_tag = asymmetric_loss(tags, targets, 7).sum().item()
    loss_alignment = asymmetric_loss(captions, torch.eye(batch, dtype=torch.bool), 4).sum().item()
    low, high = implied_batch(loss_tag, loss_alignment, 4585, 10.8)
    assert low <= batch <= high
    if batch == 26:
        assert high < 40 and low > 8  # never taken for 52


def test_nonsense_implies_nothing():
    assert implied_batch(1e-3, 5e3, 4585, 10.8) is None


def test_first_losses_of_the_facts_tell_26_and_leave_52(look, tmp_path):
    half = console(tmp_path / "half.txt", [{"loss_tag": 446.0, "loss_alignment": 34.0}], head=False)
    (finding,) = look(log=half).findings
    assert finding.id == "batch.unlike" and finding.certainty == "likely"
    whole = console(tmp_path / "whole.txt", [{"loss_tag": 892.0, "loss_alignment": 101.0}], head=False)
    assert ids(look(log=whole)) == []


def test_a_log_that_starts_later_tells_no_batch(look, tmp_path):
    rows = [{"loss_tag": 446.0, "loss_alignment": 34.0}]
    answer = look(log=console(tmp_path / "later.txt", rows, first=50, head=False))
    assert ids(answer) == []
    assert any("batch" in untold.question for untold in answer.untold)


def test_images_over_steps(look, tmp_path):
    rows = [{"loss_tag": 300.0, "loss_alignment": 90.0}]
    path = console(tmp_path / "log.txt", rows, steps=18605, first=50, samples=3_870_000, world=8)
    answer = look(log=path)
    assert [finding.id for finding in answer.findings] == ["batch.unlike"]
    assert "batch 26 a GPU" in " ".join(answer.findings[0].evidence)
    path = console(tmp_path / "right.txt", rows, steps=9302, first=50, samples=3_870_000, world=8)
    assert ids(look(log=path)) == []
