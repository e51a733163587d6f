"""``python -m benchmarks.call MODULE:FUNCTION ARGUMENTS``: call it, print what it returns as the last line."""

import importlib
import json
import sys

if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))), flush=True)
