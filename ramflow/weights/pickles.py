"""What reading a pickle would call and build, found out without reading it.

The steps of the pickle are followed on symbols only. What may be called is a short list: what rebuilds tensors, and
names for which a harmless stand-in is put, so that arguments and settings beside the tensors of public checkpoints do
not make them unreadable. A tensor may not claim more than its storage holds: copied, it would fill the memory.
"""

from __future__ import annotations

import math
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ramflow.errors import UserError
from ramflow.weights.stand_ins import STAND_INS

MAX_PICKLE = 4 << 20
"""Bytes, enough for thirty thousand tensors; what a pickle builds can be 60 times as large."""

ITEM_BYTES = {
    "Double": 8, "Long": 8, "ComplexFloat": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2,
    "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
STORAGES = {f"torch.{name}Storage": size for name, size in ITEM_BYTES.items()}
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
BYTES = "_codecs.encode"
DICT = "collections.OrderedDict"
KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
PLAIN = {
    *TENSORS, *STORAGES, *(f"torch.{kind}" for kind in KINDS), BYTES, DICT,
    "torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter", "torch.device",
}  # fmt: skip
"""What torch's own safe reader builds; of all that it would, the part that weights need."""


@dataclass(frozen=True)
class _Name:
    """A global of the pickle."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Bytes of numbers that tensors are cut from."""

    item_bytes: int
    count: int


@dataclass
class Contents:
    """What a pickle builds: the storages that its tensors are cut from, by key, in bytes."""

    storages: dict[str, int] = field(default_factory=dict)
    encoded: int = 0


def examine(data: bytes, path: object) -> tuple[Contents, int]:
    """Follow the first pickle in ``data``; returns what it would build, and where it ends.

    Raises:
        UserError: it would call what is not on the list, or build a tensor larger than its storage.
        ValueError: it is no whole pickle, or no sound one.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    contents = Contents()
    try:
        for opcode, argument, place in pickletools.genops(data):
            _step(opcode.name, argument, stack, marks, memo, contents, path)
            if opcode.name == "STOP":
                return contents, (place or 0) + 1
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its pickle is not sound: {type(error).__name__}") from None
    raise ValueError("its pickle has no end")


def _step(
    step: str, argument: Any, stack: list[Any], marks: list[int], memo: dict[int, Any], contents: Contents, path: object
) -> None:
    if step == "MARK":
        marks.append(len(stack))
    elif step in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ"):
        stack.append(_allowed(step, argument, stack, path))
    elif step.endswith("PUT"):
        memo[argument] = stack[-1]
    elif step == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif step.endswith("GET"):
        stack.append(memo[argument])
    elif step in _POPS:
        _POPS[step](stack, marks)
    elif step in ("REDUCE", "NEWOBJ"):
        arguments, called = stack.pop(), stack.pop()
        stack.append(_call(called, arguments, contents, path))
    elif step == "BINPERSID":
        stack.append(_storage(stack.pop(), contents))
    elif step in _LITERALS:
        stack.append(argument if argument is not None else _EMPTY.get(step))
    elif step not in ("PROTO", "FRAME", "STOP"):
        raise UserError(
            f"{path} is refused: its pickle has the step {step}, which torch.save does not write; save its state dict "
            "alone with torch.save"
        )


def _tuple(count: int) -> Callable[[list[Any], list[int]], None]:
    def build(stack: list[Any], marks: list[int]) -> None:
        stack[-count:] = [tuple(stack[-count:])]

    return build


def _marked_tuple(stack: list[Any], marks: list[int]) -> None:
    first = marks.pop()
    stack[first:] = [tuple(stack[first:])]


def _drop(count: int) -> Callable[[list[Any], list[int]], None]:
    def drop(stack: list[Any], marks: list[int]) -> None:
        del stack[-count:]

    return drop


def _drop_marked(stack: list[Any], marks: list[int]) -> None:
    del stack[marks.pop() :]


_POPS: Mapping[str, Callable[[list[Any], list[int]], None]] = {
    "TUPLE": _marked_tuple, "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3), "APPEND": _drop(1),
    "SETITEM": _drop(2), "BUILD": _drop(1), "APPENDS": _drop_marked, "SETITEMS": _drop_marked,
}  # fmt: skip
_LITERALS = {
    "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "BININT", "BININT1", "BININT2",
    "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING", "LONG1",
}  # fmt: skip
_EMPTY: Mapping[str, Any] = {"EMPTY_TUPLE": ()}


def _allowed(step: str, argument: Any, stack: list[Any], path: object) -> _Name:
    if step == "GLOBAL":
        module, _, name = argument.partition(" ")
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        wanted = f"{module}.{name}"
        if wanted in PLAIN or wanted in STAND_INS:
            return _Name(wanted)
    elif step == "STACK_GLOBAL":
        wanted = ".".join(str(part) for part in stack[-2:])
    else:
        wanted = str(argument).replace(" ", ".")
    raise UserError(
        f"{path} is refused: beside tensors it holds {wanted[:200]}, which could run code when read; save its state "
        "dict alone"
    )


def _storage(identity: Any, contents: Contents) -> _Storage:
    kind, name, key, _, count = identity[:5]
    if kind != "storage" or count < 0:
        raise ValueError("its pickle refers to something that is no storage")
    found = _Storage(STORAGES[name.name], count)
    contents.storages[str(key)] = found.item_bytes * count
    return found


def _call(called: Any, arguments: Any, contents: Contents, path: object) -> Any:
    name = called.name
    if name in TENSORS:
        storage, offset, shape, strides = arguments[:4]
        if min((offset, *shape, *strides)) < 0 or len(shape) != len(strides):
            raise ValueError("a tensor has a negative size")
        if offset + math.prod(shape) > storage.count:
            raise UserError(
                f"{path} is refused: a tensor of {' x '.join(map(str, shape))} claims more numbers than the file holds "
                f"for it ({storage.count}); save its state dict again, each tensor made contiguous"
            )
    elif name == BYTES:
        contents.encoded += len(arguments[0])
        if arguments[1] != "latin1" or contents.encoded > MAX_PICKLE:
            raise ValueError("its pickle encodes text")
    elif name == DICT and arguments != ():
        raise ValueError("its pickle fills a dictionary when making it")
    return None
