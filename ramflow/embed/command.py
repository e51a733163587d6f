"""``ramflow embeddings``: argument parsing."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ramflow embeddings``."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_import(verbs.add_parser("import", help="bring a file of embeddings into ramflow's layout"))
    _add_export(verbs.add_parser("export", help="write the public code's .pth"))
    _add_check(verbs.add_parser("check", help="say whether the rows of a file belong to their tags, and what is wrong"))


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the public code's .pth, or a RAM++ checkpoint")
    parser.add_argument("--tags", type=Path, required=True, help="the tag list that the rows are in the order of")
    parser.add_argument("--out", type=Path, required=True, help="folder to make, with tags.safetensors in it")
    parser.set_defaults(run=_import)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="output of embed, or of `ramflow embeddings import`")
    parser.add_argument("--out", type=Path, required=True, help="file to write, such as tag_embedding.pth")
    parser.add_argument("--repeat", action="store_true",
                        help="give tags with fewer descriptions their own rows again until they have as many as the "
                        "others; refused without it")  # fmt: skip
    parser.set_defaults(run=_export)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="embeddings in any form: .pth, checkpoint, or embed's folder")
    parser.add_argument("--tags", type=Path, required=True, help="the tag list that the file is for")
    parser.add_argument("--clip", help="CLIP in transformers layout, a folder or OWNER/NAME of the hub: tags are "
                        "encoded afresh and compared")  # fmt: skip
    parser.add_argument("--descriptions", type=Path,
                        help="upstream's description JSON that the file was made from; with --clip. Without it "
                        "'a photo of a TAG.' is encoded, the first row of a tag in the public file")  # fmt: skip
    parser.add_argument("--reference", type=Path, help="embeddings that are known to be right, in any form")
    parser.add_argument("--reference-tags", type=Path,
                        help="tag list of the reference, where it is another than --tags; tags are then compared by "
                        "name")  # fmt: skip
    parser.add_argument("--set", action="append", metavar="embed.KEY=VALUE", default=[], help="another limit")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--enforce", action="store_true", help="exit with 3 where a fault is found")
    parser.set_defaults(run=_check)


def _import(a: argparse.Namespace) -> None:
    from ramflow.embed.imports import import_embeddings

    import_embeddings(a.file, a.tags, a.out)


def _export(a: argparse.Namespace) -> None:
    from ramflow.embed.files import read_layout, write_upstream
    from ramflow.progress import say

    vectors = read_layout(a.folder)
    write_upstream(vectors, a.out, repeat=a.repeat)
    tags, rows, width = vectors.embeddings.shape
    repeated = int((~vectors.mask).sum())
    say(f"written to {a.out}: [{tags * rows}, {width}], {rows} rows for each of {tags} tags"
        + (f"; {repeated} of them are repeated" if repeated else ""))  # fmt: skip


def _check(a: argparse.Namespace) -> None:
    from ramflow.embed.examine import examine
    from ramflow.embed.wording import as_json, as_text
    from ramflow.errors import GateRefused
    from ramflow.settings import read_settings

    found = examine(
        a.file, a.tags, read_settings(None, a.set).embed,
        clip=a.clip, descriptions=a.descriptions, reference=a.reference, reference_tags=a.reference_tags,
    )  # fmt: skip
    print(as_json(found) if a.json else as_text(found))
    if a.enforce and found.failures:
        first = found.failures[0]
        raise GateRefused(f"embeddings check says no: {first.id}: {first.message}")
