"""What the fork server of the reading processes imports once, for all of them to share."""

import gc

import ramflow.train.samples  # noqa: F401

gc.freeze()  # the collector would write to every object, and each process have a copy of its own
