"""The same mathematics as the public code, on its own figures.

In double precision, so that the answer is the mathematics and not the rounding of one processor: in float32 single
logits differ by 2e-5 from one kind of processor to the next. The figures themselves are of float32.
"""

import numpy as np
import pytest
import torch

from ramflow.metrics import at_thresholds, average_precisions, mean_average_precision_public
from ramflow.model.losses import asymmetric_loss
from ramflow.weights.ledger import BUFFERS
from ramflow.weights.upstream import ramflow_name, upstream_state
from tests.model import golden


@pytest.fixture(scope="module")
def figures():
    return golden.load()


@pytest.fixture(scope="module")
def trained(figures):
    """The model after one backward pass over the plain sum of the public code's losses (sums over the batch)."""
    model, batch = golden.model(figures).eval().double(), golden.inputs(figures)
    losses = model.losses(model.tokens(batch["images"]), golden.wanted(figures), torch.ones(12, dtype=torch.bool))
    (losses.tag + losses.alignment + losses.distillation / 4).backward()
    return model, losses


def test_losses(figures, trained):
    _, losses = trained
    expected = figures["expected"]
    assert losses.tag.item() == pytest.approx(expected["loss_tag"], rel=1e-5)
    assert losses.alignment.item() == pytest.approx(expected["loss_alignment"], rel=1e-5)
    assert losses.distillation.item() / 4 == pytest.approx(expected["loss_dis"], rel=1e-5)


def test_logits_and_tokens(figures, trained):
    model, images = trained[0], golden.inputs(figures)["images"]
    with torch.no_grad():
        logits, tokens = model(images), model.encoder(images)
        class_token = model.image_projection(tokens)[0, 0, :8]
    expected = figures["expected"]
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-5, atol=1e-5)
    assert list(tokens.shape) == expected["encoder_tokens_shape"]
    np.testing.assert_allclose(tokens[0, 1, :8], expected["encoder_token_1_image0_first8"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(class_token, expected["class_token_image0_first8"], rtol=1e-4, atol=1e-5)


def test_every_gradient_norm(figures, trained):
    parameters = dict(trained[0].named_parameters())
    expected = figures["expected"]["grad_norm"]
    assert {ramflow_name(k) for k in expected} == set(parameters)
    for key, norm in expected.items():
        actual = parameters[ramflow_name(key)].grad.norm().item()
        if key.endswith("self.key.bias"):  # zero but for rounding: a constant added to every key changes no attention
            assert max(actual, norm) < 1e-3, key
        else:
            assert actual == pytest.approx(norm, rel=1e-5), key


def test_keys(figures, trained):
    """Exactly the public model's keys and shapes, and what its Swin computes besides."""
    state = upstream_state(trained[0])
    parameters = [[key, list(tensor.shape)] for key, tensor in state.items() if not key.endswith(BUFFERS)]
    assert parameters == sorted(figures["keys"])
    depths = sum(figures["model"]["depths"])
    assert sum(key.endswith("relative_position_index") for key in state) == depths
    assert len(state) == len(parameters) + depths + sum(key.endswith("attn_mask") for key in state)


def test_asymmetric_loss(figures):
    expected = figures["asymmetric_loss"]["expected"]
    targets = torch.from_numpy(np.random.RandomState(22).random_sample((5, 7)) < 0.3)
    for gamma in (7, 4):
        logits = torch.from_numpy(3 * np.random.RandomState(21).standard_normal((5, 7))).float().requires_grad_()
        loss = asymmetric_loss(logits, targets, gamma).sum()
        loss.backward()
        want = expected[f"gamma_neg_{gamma}"]
        assert loss.item() == pytest.approx(want["loss"], rel=1e-5)
        assert logits.grad.norm().item() == pytest.approx(want["grad_norm"], rel=1e-5)
        np.testing.assert_allclose(logits.grad[0], want["grad_row0"], rtol=1e-4, atol=1e-7)


def test_metrics(figures):
    want = figures["metrics"]["expected_public_code"]
    scores = np.random.RandomState(11).random_sample((60, 6))
    targets = np.random.RandomState(12).random_sample((60, 6)) < 0.3
    targets[:, -1] = False
    ap = average_precisions(scores, targets)
    np.testing.assert_allclose(np.nan_to_num(ap), want["AP"], rtol=1e-6)
    assert mean_average_precision_public(ap) == pytest.approx(want["mAP"], rel=1e-6)
    at = at_thresholds(scores, targets, np.array(figures["metrics"]["thresholds"]))
    np.testing.assert_allclose(at.precision, want["P"], rtol=1e-6)
    np.testing.assert_allclose(at.recall, want["R"], rtol=1e-6)
