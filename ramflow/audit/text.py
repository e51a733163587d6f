"""Text checks: captions that are missing, empty, too long, or not words about the image (F13)."""

from __future__ import annotations

import polars as pl

from ramflow.audit.findings import found
from ramflow.settings import AuditSettings

EXCERPT = 80
"""Characters of a caption shown in a finding."""

BOILERPLATE = "|".join(
    (
        r"\b(?:HASH|ARRAY|SCALAR|CODE|REF)\(0x[0-9a-f]+\)",  # Perl printed a reference
        r"<[\w.]+ object at 0x[0-9a-f]+>|\[object Object\]",
        r"</?(?:a|b|br|div|font|i|img|p|span|strong|table|td|tr)\b[^>]*>|&(?:amp|gt|lt|nbsp|quot|#\d+);",
        r"\blorem ipsum\b",
        r"^\s*(?:null|none|nan|undefined|n/a|untitled|no (?:title|caption|description)(?: available)?)\W*$",
        r"^\s*(?:https?://|www\.)\S+\s*$",
        r"^\s*\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg)\s*$",
    )
)


def find(samples: pl.DataFrame, settings: AuditSettings) -> list[pl.DataFrame]:
    """Failures of every text check; ``samples`` is the manifest with its column ``sample``."""
    count = pl.col("captions").list.len()
    captions = (
        samples.select("sample", "image_path", "captions", number=pl.int_ranges(count))
        .filter(count > 0)
        .explode("captions", "number")
        .rename({"captions": "caption"})
    )
    caption = pl.col("caption")
    conditions = {
        "text.empty": caption.str.strip_chars() == "",
        "text.control_character": caption.str.contains(r"\p{Cc}"),
        "text.boilerplate": caption.str.contains(f"(?i){BOILERPLATE}"),
        "text.long": caption.str.count_matches(r"\S+") > settings.max_caption_words,
    }
    shown = caption.str.slice(0, EXCERPT).str.replace_all(r"\p{Cc}", "\N{REPLACEMENT CHARACTER}")
    detail = pl.format("caption {}: {}", "number", shown)
    none = found("text.no_caption", samples.filter(count == 0), pl.lit("the list of captions is empty"))
    return [none, *(found(check, captions.filter(failed), detail) for check, failed in conditions.items())]
