"""Tiny inputs of every stage, made by the tests of the stages."""

from tests.embed.conftest import embed, texts, tiny_clip  # noqa: F401
from tests.train.conftest import inputs  # noqa: F401
from tests.train.conftest import trained as finished  # noqa: F401
from tests.weights.conftest import save, state, trained  # noqa: F401
