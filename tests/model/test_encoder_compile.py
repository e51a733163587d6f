"""``torch.compile`` of the encoder, by ``encoder.compile()``: same names, same values, no more memory."""

import pytest
import torch

from benchmarks.activations import saved_bytes
from ramflow.model import window_attention
from ramflow.model.execution import Execution
from tests.model.test_encoder_memory import RECOMPUTE, images, outcome, same, swin


def check(backend: str, recompute: str, **options) -> None:
    torch._dynamo.reset()
    encoder = swin(torch.float32, **options)
    x, names, execution = images(encoder, 2), list(encoder.state_dict()), Execution(recompute=recompute)
    plain = outcome(encoder, x, execution)
    kept = saved_bytes(lambda: encoder(x), encoder.parameters(), encoder.buffers())
    encoder.compile(backend=backend, fullgraph=True)
    same(outcome(encoder, x, execution), plain, 1e-6, 1e-4)
    assert saved_bytes(lambda: encoder(x), encoder.parameters(), encoder.buffers()) <= 1.05 * kept
    assert list(encoder.state_dict()) == names


@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("kernel", [True, False], ids=["torch's kernel", "closed form"])
def test_the_whole_encoder_is_one_graph(recompute, kernel, monkeypatch):
    monkeypatch.setattr(window_attention, "uses_kernel", lambda x: kernel)
    check("aot_eager", recompute, depths=[1, 1])


def test_the_default_compiler_gives_the_same():
    check("inductor", "none", depths=[1], num_heads=[1])
