"""Text checks: captions that are missing, empty, damaged, too long, or not words about the image (F13).

Nearly all captions are plain words. One pass of a regular expression (``ODD``) picks those that may fail a check, and
only they are looked at more closely.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ramflow.audit.findings import faults
from ramflow.audit.records import Records
from ramflow.settings import AuditSettings

EXCERPT = 80
"""Characters of a caption shown in a finding."""

MOST_COUNTED = 100
"""Spaces that the pattern of odd captions counts at most."""

CLIP_TOKENS = 77
"""What CLIP's text encoder reads, start and end token included."""

CLIP_WORD = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""CLIP's own pre-tokeniser: each match becomes one token or more."""
CLIP_SPECIAL = r"(?i)<\|(?:startoftext|endoftext)\|>"

BOILERPLATE = "|".join(
    (
        r"\b(?:HASH|ARRAY|SCALAR|CODE|REF)\(0x[0-9a-f]+\)",  # Perl printed a reference
        r"<[\w.]+ object at 0x[0-9a-f]+>|\[object Object\]",
        r"</?(?:a|b|br|div|font|i|img|p|ref|span|strong|table|td|tr)\b[^>]*>|&(?:amp|gt|lt|nbsp|quot|#\d+);",
        r"\blorem ipsum\b",
        r"^\s*(?:null|none|nan|undefined|n/a|untitled|no (?:title|caption|description)(?: available)?)\W*$",
        r"^\s*(?:https?://|www\.)\S+\s*$",
        r"^\s*\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg)\s*$",
    )
)

ODD = "|".join(
    (
        r"[^ -~]|^ *$",  # all that is not printable ASCII: whatever a check names beside these lines
        r"[<&\[]|\(0[xX]|(?i:lorem ipsum)",
        r"(?i:^ *(?:null|none|nan|undefined|n/a|untitled|no (?:title|caption|description)|https?://|www\.))",
        r"(?i:^ *\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg) *$)",
        # between two words, or two tokens of letters, there is another character
        f"^(?:[a-zA-Z]*[^a-zA-Z]){{{(CLIP_TOKENS - 2) // 2}}}",
    )
)

# Characters that text has where one encoding was taken for another (the upper halves of the encodings that ftfy
# knows). Its rules need two of them in a row, or one of the exceptions; nearly all honest text has neither.
UPPER = "".join(
    sorted({c for name in ("latin-1", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1257", "iso8859-2",
                           "mac-roman", "cp437")
            for c in bytes(range(0x80, 0x100)).decode(name, "ignore")} | set("Ґґ▀▄█▌▐░▒▓\N{REPLACEMENT CHARACTER}"))
)  # fmt: skip
MAYBE_MOJIBAKE = f"[{UPPER}]{{2}}|[\\x80-\\x9fŒœ]|[ÃÂ] "


def find(records: Records, settings: AuditSettings) -> list[pl.DataFrame]:
    """Failures of every text check of single captions (``FAULT_SCHEMA``)."""
    caption = pl.col("caption")
    odd = records.captions.filter(caption.str.contains(odd_captions(settings.max_caption_words)))
    conditions = {
        "text.empty": caption.str.strip_chars() == "",
        "text.not_utf8": caption.str.contains("\N{REPLACEMENT CHARACTER}", literal=True),
        "text.control_character": caption.str.contains(r"\p{Cc}"),
        "text.boilerplate": caption.str.contains(f"(?i){BOILERPLATE}"),
        "text.long": caption.str.count_matches(r"\S+") > settings.max_caption_words,
        "text.too_many_tokens": least_tokens(caption) > CLIP_TOKENS - 2,
    }
    none = np.flatnonzero(records.captions_each == 0)
    return [
        faults("text.no_caption", none, "the list of captions is empty"),
        *(_found(check, odd.filter(failed)) for check, failed in conditions.items()),
        _mojibake(odd),
    ]


def least_tokens(caption: pl.Expr) -> pl.Expr:
    """Tokens that CLIP makes of a caption at least, whatever its vocabulary."""
    return caption.str.normalize("NFC").str.replace_all(CLIP_SPECIAL, " ").str.count_matches(CLIP_WORD)


def odd_captions(most_words: int) -> str:
    """The pattern of captions that may fail a check; with more than ``most_words`` words they have as many spaces."""
    return f"{ODD}|^(?:[^ ]* ){{{min(most_words, MOST_COUNTED)}}}"


def shown(caption: pl.Expr) -> pl.Expr:
    """The beginning of a caption as a finding shows it."""
    return caption.str.slice(0, EXCERPT).str.replace_all(r"\p{Cc}", "\N{REPLACEMENT CHARACTER}")


def _found(check: str, captions: pl.DataFrame) -> pl.DataFrame:
    detail = captions.select(pl.format("caption {}: {}", "number", shown(pl.col("caption")))).to_series()
    return faults(check, captions["row"], detail)


def _mojibake(odd: pl.DataFrame) -> pl.DataFrame:
    maybe = odd.filter(pl.col("caption").str.contains(MAYBE_MOJIBAKE))
    if not len(maybe):
        return faults("text.mojibake", [], "")
    from ftfy import fix_encoding  # takes as long to import as a piece of annotations takes to check
    from ftfy.badness import is_bad

    bad = maybe.filter(pl.Series([is_bad(caption) for caption in maybe["caption"]], dtype=pl.Boolean))
    bad = bad.with_columns(pl.Series("meant", [fix_encoding(caption) for caption in bad["caption"]], pl.String))
    caption, meant = pl.col("caption"), pl.col("meant")
    perhaps = pl.when(meant != caption).then(pl.format(", perhaps: {}", shown(meant))).otherwise(pl.lit(""))
    detail = bad.select(pl.format("caption {}: {}{}", "number", shown(caption), perhaps)).to_series()
    return faults("text.mojibake", bad["row"], detail)
