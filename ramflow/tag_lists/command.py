"""``ramflow tags``: argument parsing."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

NAMES_HELP = "a name, id:NUMBER, or @LIST for all names of a file, one a line"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ramflow tags``."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_forms(verbs)
    _add_changes(verbs)
    _add_comparisons(verbs)


def _add_forms(verbs: Any) -> None:
    show = _verb(verbs, "show", "size, digests, columns, dropped tags and duplicate names of a tag list")
    _table(show)
    show.add_argument("--json", action="store_true", help="as JSON")

    take = _verb(verbs, "import", "make one table of upstream's files")
    take.add_argument("--names", type=Path, required=True, help="ram_tag_list.txt: a name a line; or a table to add to")
    take.add_argument("--chinese", type=Path, help="ram_tag_list_chinese.txt: a name a line")
    take.add_argument("--thresholds", type=Path, help="ram_tag_list_threshold.txt: a number of 0 to 1 a line")
    take.add_argument("--descriptions", type=Path, help="JSON: a list of {name: [description, ...]}")
    _out(take, "table to write")

    give = _verb(verbs, "export", "write a table as upstream's files")
    _table(give)
    _out(give, "folder to write")


def _add_changes(verbs: Any) -> None:
    add = _verb(verbs, "add", "put tags at the end of a list, or use dropped ones again; no id moves")
    _table(add)
    _names(add)
    add.add_argument("--threshold", type=float, help="of the new tags; needed where the list has thresholds")
    add.add_argument("--chinese", type=Path, help="Chinese names of the new tags, one a line")
    add.add_argument("--descriptions", type=Path, help="descriptions of the new tags, JSON as for import")
    _out(add, "table to write; what changed goes beside it, NAME.changes.json")

    drop = _verb(verbs, "drop", "mark tags as no longer used; they keep their ids, and no other tag gets them")
    _table(drop)
    _names(drop)
    _annotations(drop, "also write these annotation files without the ids of the dropped tags")
    _out(drop, "table to write; what changed goes beside it, NAME.changes.json")

    order = _verb(verbs, "reorder", "put a list into another order: ids move, and annotations must follow")
    _table(order)
    order.add_argument("--like", type=Path, required=True, metavar="LIST", help="the order wanted, with the same names")
    order.add_argument("--renumber", action="store_true", help="yes, move ids, though no annotations are given")
    _annotations(order, "rewrite these annotation files, whose ids point into TABLE, for the new order")
    _out(order, "table to write; what changed goes beside it, NAME.changes.json")


def _add_comparisons(verbs: Any) -> None:
    diff = _verb(verbs, "diff", "what is different between two lists: added, gone, dropped, moved")
    diff.add_argument("old", type=Path, metavar="OLD")
    diff.add_argument("new", type=Path, metavar="NEW")
    diff.add_argument("--json", action="store_true", help="as JSON, with the map from old to new ids")

    remap = _verb(verbs, "remap", "rewrite annotation files whose ids point into one list for another one")
    remap.add_argument("--from", dest="old", type=Path, required=True, metavar="OLD", help="list that the ids are of")
    remap.add_argument("--to", dest="new", type=Path, required=True, metavar="NEW", help="list that they shall be of")
    remap.add_argument("--annotations", nargs="+", required=True, metavar="[SPLIT=]FILE", help="upstream's JSON lists")
    remap.add_argument("--anyway", action="store_true", help="though captions say that the ids are of NEW already")
    _out(remap, "folder for the files, under their names, and changes.json")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A verb, carried out by the function of its name in ``ramflow.tag_lists.verbs``."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)

    def run(a: argparse.Namespace) -> None:
        verb: Callable[[argparse.Namespace], None] = getattr(import_module("ramflow.tag_lists.verbs"), f"run_{name}")
        verb(a)

    parser.set_defaults(run=run)
    return parser


def _table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, metavar="TABLE", help="a table (tags.csv), or a plain list, a name a line")


def _names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES_HELP)
    parser.add_argument("--file", type=Path, metavar="LIST", help="more names, one a line")


def _annotations(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--annotations", nargs="+", metavar="[SPLIT=]FILE", help=text)
    parser.add_argument("--annotations-out", type=Path, metavar="DIR", help="folder for them, and for changes.json")


def _out(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--out", type=Path, required=True, help=text)
