"""Bringing a file of embeddings made elsewhere into ramflow's layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ramflow import storage
from ramflow.data.vectors import TAGS_FILE
from ramflow.embed.defects import defects
from ramflow.embed.files import read_embeddings
from ramflow.embed.gates import one_row_check
from ramflow.errors import UserError
from ramflow.progress import say
from ramflow.tags import read_tags


def import_embeddings(file: Path, tags: Path, out: Path) -> None:
    """Write ``out/tags.safetensors`` with the digest of the tag list; rows stay as they are, faults are said.

    The encoder is recorded as not known ({}), unless the file says which it was.

    Raises:
        UserError: unreadable, not of so many tags, or made for another tag list.
    """
    table = read_tags(tags)
    vectors = read_embeddings(file, len(table))
    if vectors.tag_digest not in ("", table.digest):
        raise UserError(f"{file} was made for another tag list than {tags}, or for another order of it: give its own")
    with storage.whole_directory(out, marker=TAGS_FILE) as partial:
        replace(vectors, tag_digest=table.digest).write(partial)
    count, rows, width = vectors.embeddings.shape
    say(f"written to {out}: {count} tags, {rows} rows each, {width} wide")
    for fault in defects(vectors):
        say(f"  {'info' if fault.harmless else 'warning'}: {fault.message} ({fault.evidence})")
    one_row = one_row_check(vectors)
    if not one_row.passed:
        say(f"  warning: {one_row.message}")
    say(f"prove that the rows belong to their tags: ramflow embeddings check {out} --tags {tags} --clip CLIP")
