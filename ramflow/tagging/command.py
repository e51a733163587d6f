"""``ramflow tag``: argument parsing."""

from __future__ import annotations

import argparse
from pathlib import Path

from ramflow.errors import UserError

BATCH = 32


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ramflow tag``."""
    parser.add_argument("images", nargs="+", metavar="IMAGE",
                        help="a file, a folder (all images below it), or an s3:// address of either")  # fmt: skip
    parser.add_argument("--model", required=True, metavar="DIR", help="output of train: local or s3://")
    parser.add_argument("--threshold", type=float, metavar="X",
                        help="say tags with a score above X, 0 to 1, in place of those calibrated by train, one a tag; "
                        "with --words the default is their median")  # fmt: skip
    parser.add_argument("--top", type=int, metavar="K",
                        help="the K best tags, whatever their thresholds; with --threshold those above it")  # fmt: skip
    language = parser.add_mutually_exclusive_group()
    language.add_argument("--chinese", action="store_true", help="Chinese names, where the tag list has them")
    language.add_argument("--both", action="store_true", help="both names")
    parser.add_argument("--tags", type=Path, metavar="TABLE",
                        help="the model's tag list with other thresholds or Chinese names")  # fmt: skip
    parser.add_argument("--words", metavar="WORDS",
                        help="say these words instead of the model's tags: 'cat,dog', or a file: a word a line, a tag "
                        'list, or descriptions, a JSON list of {"word": ["text", ...]}')  # fmt: skip
    parser.add_argument("--clip", help="for --words: the CLIP whose text encoder embed used, a folder or OWNER/NAME of "
                        "the hub")  # fmt: skip
    parser.add_argument("--template", action="append", default=[], metavar="TEXT",
                        help="for --words: a text with {} for the word; may be given more than once (default for words "
                        "without descriptions: 'a photo of a {}.')")  # fmt: skip
    parser.add_argument("--json", action="store_true",
                        help="a JSON object a line: image, and tags: id, name, chinese, score, threshold")  # fmt: skip
    parser.add_argument("--batch", type=int, default=BATCH, help=f"images at a time (default {BATCH})")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="auto (default) takes the GPU where there is one")  # fmt: skip
    parser.set_defaults(run=_run)


def _run(a: argparse.Namespace) -> None:
    _check(a)
    from ramflow.tagging.run import tag_pictures

    tag_pictures(a)


def _check(a: argparse.Namespace) -> None:
    """Raise for what does not go together."""
    for name, valid, wanted in (("threshold", lambda x: 0 <= x <= 1, "0 to 1"), ("top", lambda x: x >= 1, "1 or more"),
                                ("batch", lambda x: x >= 1, "1 or more")):  # fmt: skip
        value = getattr(a, name)
        if value is not None and not valid(value):
            raise UserError(f"--{name} {value}: a number of {wanted} is expected")
    if a.words is not None:
        if not a.clip:
            raise UserError("--words needs --clip: the CLIP whose text encoder made the model's tag embeddings")
        if a.tags:
            raise UserError("--tags and --words exclude each other: a tag list may be given as --words")
    elif a.clip or a.template:
        raise UserError(f"--{'clip' if a.clip else 'template'} goes with --words: the model's tags are encoded already")
    for template in a.template:
        if template.count("{}") != 1:
            raise UserError(f"--template {template!r}: one {{}} is expected, where the word goes")
