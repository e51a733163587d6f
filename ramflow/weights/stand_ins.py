"""Harmless things put in the place of what public checkpoints hold beside tensors, so that they can be read.

Their settings are of classes (argparse, yacs, ruamel, numpy scalars) that a safe reader must not build.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class Settings(dict[Any, Any]):
    """Stands for a namespace of settings, or a thing of which nothing is kept. Runs nothing."""

    def __new__(cls, *_: object) -> Settings:
        """Empty, whatever was asked for."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Keep the attributes of a namespace as items; leave out what else there is."""
        if isinstance(state, dict):
            self.update(state)


class _Dictionary:
    """Stands for mappings; torch's reader fills plain dictionaries only."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


class _List(list[Any]):
    """Stands for sequences."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass


_NAMES = {
    Settings: (
        "argparse.Namespace", "types.SimpleNamespace", "pathlib.PosixPath", "pathlib.WindowsPath",
        "pathlib._local.PosixPath", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
        "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray",
        "ruamel.yaml.comments.Comment", "ruamel.yaml.comments.Format", "ruamel.yaml.comments.LineCol",
        "ruamel.yaml.comments.Anchor", "ruamel.yaml.anchor.Anchor", "ruamel.yaml.scalarfloat.ScalarFloat",
        "ruamel.yaml.scalarint.ScalarInt", "ruamel.yaml.scalarbool.ScalarBoolean", "builtins.int", "builtins.float",
        "builtins.list", "builtins.dict",
    ),
    _Dictionary: (
        "yacs.config.CfgNode", "fvcore.common.config.CfgNode", "easydict.EasyDict", "addict.addict.Dict",
        "collections.defaultdict", "ruamel.yaml.comments.CommentedMap", "ruamel.yaml.comments.CommentedOrderedMap",
        "ruamel.yaml.compat.ordereddict",
    ),
    _List: ("ruamel.yaml.comments.CommentedSeq",),
}  # fmt: skip
STAND_INS: dict[str, type] = {name: stand_in for stand_in, names in _NAMES.items() for name in names}
"""What public checkpoints hold beside tensors, and what is put in its place."""
