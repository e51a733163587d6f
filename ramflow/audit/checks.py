"""The table of checks: stable ids, how serious each is, what it means and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from ramflow.verdict import Severity

QUARANTINED = "they are quarantined: training and scoring skip them"
FETCH_AGAIN = f"{QUARANTINED}; fetch them again to keep them"


@dataclass(frozen=True)
class Kind:
    """One check of the audit, ``family.name``.

    ``unit`` is what is counted. ``what`` follows "3 of 24 images"; ``advice`` says what to do. A sample that an
    ``unusable`` check finds is quarantined, and so is one that a ``quarantines`` check finds.
    """

    id: str
    severity: Severity
    unit: str
    what: str
    advice: str
    unusable: bool = False
    quarantines: bool = False


KINDS = (
    Kind("images.sha256_mismatch", "error", "image", "are not the bytes that the manifest lists",
         "the dataset was changed after packing: fetch or pack it again", unusable=True),
    Kind("images.empty", "warning", "image", "have no bytes", FETCH_AGAIN, unusable=True),
    Kind("images.not_an_image", "warning", "image", "are not images", FETCH_AGAIN, unusable=True),
    Kind("images.too_large", "warning", "image", "have more pixels than audit.max_image_pixels",
         f"{QUARANTINED}; scale them down, or raise the setting", unusable=True),
    Kind("images.truncated", "warning", "image", "are cut off or damaged", FETCH_AGAIN, unusable=True),
    Kind("images.unusable", "error", "record", "have no usable image: missing, or found unreadable by other checks",
         "that is above audit.max_unusable_share: look at the folder of images and fetch it again"),
    Kind("images.extension", "warning", "image", "have an extension that does not fit their bytes",
         "they are decoded by their bytes; see that they are the images that the records mean"),
    Kind("images.small", "warning", "image", "have a side under audit.min_image_side",
         "leave them out if they are thumbnails or tracking pixels"),
    Kind("images.blank", "warning", "image", "are one even colour",
         "they are often placeholders of dead links: leave their records out"),
    Kind("text.no_caption", "warning", "record", "have no caption",
         "they take no part in the alignment with captions; give them one or leave them out"),
    Kind("text.empty", "warning", "caption", "are empty", "remove them from the annotations"),
    Kind("text.control_character", "warning", "caption", "hold control characters",
         "clean the annotations: they are noise to the text encoder"),
    Kind("text.boilerplate", "warning", "caption", "hold left-overs of a program: markup, references, file names",
         "remove them from the annotations"),
    Kind("text.long", "info", "caption", "have more words than audit.max_caption_words",
         "the text encoder reads only the beginning"),
    Kind("tags.out_of_range", "error", "record", "have tag ids beyond the end of the tag list",
         "the annotations were made for another tag list: give theirs", quarantines=True),
    Kind("tags.negative", "error", "record", "have negative tag ids", "mend the annotations", quarantines=True),
    Kind("tags.duplicate_id", "warning", "record", "name a tag twice",
         "it counts once; look at how the annotations were made"),
    Kind("tags.parse_misaligned", "warning", "record", "have not one list of parsed tags a caption",
         "parse_label_id belongs to other captions: make it again, or leave it out"),
    Kind("tags.parsed_not_in_union", "warning", "record", "have parsed tags that union_label_id lacks",
         "training reads union_label_id only: add them there"),
    Kind("tags.no_union", "warning", "record", "have no tags",
         "training sees them as images without any tag: add tags or leave them out"),
    Kind("tags.missing", "warning", "tag", "have no training image",
         "they keep their ids, marked missing in tag_status.csv; above audit.max_missing_tags_share this is an error"),
    Kind("tags.rare", "info", "tag", "have fewer training images than audit.rare_below",
         "expect little of them; they are marked rare in tag_status.csv"),
    Kind("tags.duplicate_name", "warning", "tag", "have the name of another tag",
         "scores by name are ambiguous: give each line of the tag list its own name"),
    Kind("set.duplicate_key", "warning", "record", "have the image_path of an earlier record",
         "merge their annotations or remove one"),
    Kind("set.absolute_path", "warning", "record", "have an image_path that is absolute or leaves the folder of images",
         "such paths ignore the folder given: make them relative"),
    Kind("set.duplicate_image", "warning", "image", "are byte for byte an earlier image of their split",
         "they weigh double: remove one"),
    Kind("set.leakage", "warning", "image", "are byte for byte an image of an earlier split",
         f"scores on them are not honest: {QUARANTINED}; remove them from one split", quarantines=True),
    Kind("set.missing_image", "warning", "record", "have no image",
         "missing.parquet says why: look at the folder of images"),
)  # fmt: skip
"""In order of report. Findings are sorted by it, and a quarantined sample is listed under the first that found it."""

BY_ID = {kind.id: kind for kind in KINDS}
UNUSABLE = tuple(kind.id for kind in KINDS if kind.unusable)
QUARANTINING = tuple(kind.id for kind in KINDS if kind.unusable or kind.quarantines)
