"""What each verb of ``ramflow tags`` does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ramflow import storage
from ramflow.errors import UserError
from ramflow.progress import say
from ramflow.tag_lists import edit, upstream
from ramflow.tag_lists.describe import alike, as_text, describe
from ramflow.tag_lists.mapping import Changes, compare_tables, plural
from ramflow.tag_lists.remap import Remapped, remap, write_changes
from ramflow.tags import TagTable, read_tags


def run_show(a: argparse.Namespace) -> None:
    """Print what a list holds."""
    found = describe(read_tags(a.table))
    print(json.dumps(found, indent=1, ensure_ascii=False) if a.json else as_text(found))


def run_import(a: argparse.Namespace) -> None:
    """Make a table of upstream's files."""
    table = upstream.read_upstream(a.names, a.chinese, a.thresholds, a.descriptions)
    _check_out(a.out, a.names, table)
    _write(table, a.out)
    filled = ", ".join(["id", "name", *describe(table)["columns"]])
    say(f"tags: {plural(len(table), 'tag')} imported ({filled}); written to {a.out}")
    _warn_of_names(table)


def run_export(a: argparse.Namespace) -> None:
    """Write upstream's files of a table."""
    table = read_tags(a.table)
    with storage.whole_directory(a.out, marker=upstream.NAMES_FILE) as partial:
        files = upstream.write_upstream(table, partial)
    dropped = f", {len(table.dropped)} of them dropped, whose lines stay" if table.dropped else ""
    say(f"tags: {plural(len(table), 'tag')} exported{dropped}; {', '.join(files)} written to {a.out}")


def run_add(a: argparse.Namespace) -> None:
    """Add tags, or use dropped ones again."""
    names = _names(a)
    table = read_tags(a.table)
    if a.threshold is not None and not 0 <= a.threshold <= 1:
        raise UserError(f"--threshold {a.threshold:g}: a number of 0 to 1 is expected")
    new = edit.add(
        table,
        names,
        threshold=a.threshold,
        chinese=upstream.read_column(a.chinese, len(names)) if a.chinese else (),
        descriptions=upstream.read_texts(a.descriptions, names) if a.descriptions else (),
    )
    _check_out(a.out, a.table, new)
    _write_changed(compare_tables(table, new), a.out)
    _warn_of_names(new)


def run_drop(a: argparse.Namespace) -> None:
    """Mark tags as dropped."""
    table = read_tags(a.table)
    changes = compare_tables(table, edit.drop(table, _names(a)))
    _check_out(a.out, a.table, changes.new)
    if _wants_annotations(a):
        _remap(changes, a.annotations, a.annotations_out, remove=changes.new.dropped)
    _write_changed(changes, a.out)


def run_reorder(a: argparse.Namespace) -> None:
    """Put a list into another order."""
    table = read_tags(a.table)
    changes = compare_tables(table, edit.reorder(table, read_tags(a.like).names))
    _check_out(a.out, a.table, changes.new)
    wanted = _wants_annotations(a)
    if changes.moved and not wanted and not a.renumber:
        raise UserError(
            f"{plural(len(changes.moved), 'id')} would move, and annotations made for {a.table} be wrong: rewrite them "
            "at once with --annotations and --annotations-out, or give --renumber and use `ramflow tags remap` later"
        )
    if wanted:
        _remap(changes, a.annotations, a.annotations_out)
    _write_changed(changes, a.out)
    if changes.moved:
        say("tags: embeddings and models made for the old order are refused from now on: make them again")


def run_diff(a: argparse.Namespace) -> None:
    """Print what is different between two lists."""
    changes = compare_tables(read_tags(a.old), read_tags(a.new))
    print(json.dumps(changes.describe(), ensure_ascii=False) if a.json else changes.summary())


def run_remap(a: argparse.Namespace) -> None:
    """Rewrite annotation files for another list."""
    changes = compare_tables(read_tags(a.old), read_tags(a.new))
    if not changes.moved and not changes.gone:
        raise UserError(f"every id of {a.old} means the same in {a.new}: the annotations need no remapping")
    _remap(changes, a.annotations, a.out, anyway=a.anyway)
    say(f"tags: {changes.summary()}")


def _names(a: argparse.Namespace) -> list[str]:
    lists = [Path(name[1:]) if name.startswith("@") else None for name in a.names]
    names = [n for name, file in zip(a.names, lists, strict=True) for n in (read_tags(file).names if file else [name])]
    names += read_tags(a.file).names if a.file else []
    if not names:
        raise UserError("which tags: give names, @LIST, or --file LIST")
    return names


def _wants_annotations(a: argparse.Namespace) -> bool:
    if bool(a.annotations) != bool(a.annotations_out):
        raise UserError("--annotations and --annotations-out belong together: give both, or none")
    return bool(a.annotations)


def _remap(
    changes: Changes, annotations: Sequence[str], out: Path, remove: Sequence[int] = (), anyway: bool = False
) -> None:
    done = remap(changes, annotations, out, remove=remove, anyway=anyway)
    say(f"tags: {_sum(done)}; written to {out}")


def _sum(done: Sequence[Remapped]) -> str:
    records, changed = sum(each.records for each in done), sum(each.changed for each in done)
    removed, emptied = sum(each.removed.total() for each in done), sum(each.emptied for each in done)
    return (
        f"ids of {changed} of {plural(records, 'record')} rewritten, {plural(removed, 'id')} taken out, "
        f"{plural(emptied, 'record')} left without tags"
    )


def _write_changed(changes: Changes, out: Path) -> None:
    _write(changes.new, out)
    with storage.whole_file(out.with_name(out.stem + ".changes.json")) as temporary:
        write_changes(changes.describe(), temporary)
    say(f"tags: {changes.summary()}; written to {out}")


def _check_out(out: Path, source: Path, table: TagTable) -> None:
    """A table is replaced by its own change only: what was dropped in another one would be forgotten."""
    if out.suffix != ".csv":
        raise UserError(f"--out {out}: a table is CSV, name it so; `ramflow tags export` writes plain lists")
    if out.exists() and not out.samefile(source) and read_tags(out) != table:
        raise UserError(f"--out {out} is there and holds another table: give a new name, or remove it")


def _write(table: TagTable, out: Path) -> None:
    with storage.whole_file(out) as temporary:
        table.write(temporary)


def _warn_of_names(table: TagTable) -> None:
    if twice := table.duplicates():
        say(f"tags: {plural(len(twice), 'name')} on several lines, as {twice[0]!r}: scores by name are ambiguous")
    if pairs := alike(table):
        say(f"tags: {plural(len(pairs), 'group')} of names differ in case only, as {', '.join(map(repr, pairs[0]))}")
