"""Tests mirror the source. Torch runs on one thread here: the work is tiny, and test processes share the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
