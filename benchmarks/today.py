"""What a user does today with annotations: ``json.load`` of all files into one list of dicts, in every process."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

from benchmarks.measure import private_memory


def load(*files: str) -> list[dict[str, Any]]:
    """All records of the files in one list."""
    records: list[dict[str, Any]] = []
    for path in files:
        with open(path) as file:
            records += json.load(file)
    return records


def count(*files: str) -> dict[str, float]:
    """Load the files; returns the number of records and the seconds it took."""
    start = time.perf_counter()
    records = load(*files)
    return {"records": len(records), "seconds": time.perf_counter() - start}


def loader_process(*files: str) -> dict[str, float]:
    """Private memory, in bytes, of a forked loader process once it has read every record, and the number of records.

    That is what a loader process has after an epoch or a few: reading a Python object writes its reference count, and
    so copies the page it is on.
    """
    records = load(*files)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        order = random.Random(0).sample(range(len(records)), len(records))
        for number in order:
            _read(records[number])
        os.write(writer, str(private_memory()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        memory = int(pipe.read())
    os.waitpid(child, 0)
    return {"bytes": memory, "records": len(records)}


def _read(record: dict[str, Any]) -> None:
    """Touch what a training sample needs of its record: path, tags, one caption and its tags."""
    path, tags = record["image_path"], list(record["union_label_id"])
    captions = record["caption"]
    if captions:
        place = len(path) % len(captions)
        parsed = record["parse_label_id"]
        _ = path, tags, captions[place], list(parsed[place]) if place < len(parsed) else None
