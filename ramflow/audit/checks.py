"""The table of checks: stable ids, how serious each is, what it means and what to do about it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from ramflow.verdict import Severity

Needs = Literal["images", "benchmarks", "expected", "previous", "thresholds", "embeddings"]

QUARANTINED = "they are quarantined: training and scoring skip them"
FETCH_AGAIN = f"{QUARANTINED}; fetch them again to keep them"


@dataclass(frozen=True)
class Kind:
    """One check of the audit, ``family.name``.

    ``unit`` is what is counted. ``what`` follows "3 of 24 images"; ``advice`` says what to do. A sample that an
    ``unusable`` check finds is quarantined, and so is one that a ``quarantines`` check finds. ``needs`` names what the
    check cannot be made without; a check that was not made is not in the verdict.
    """

    id: str
    severity: Severity
    unit: str
    what: str
    advice: str
    unusable: bool = False
    quarantines: bool = False
    needs: Needs | None = None

    def made_with(self, given: Collection[Needs]) -> bool:
        """Whether the check is made where ``given`` is at hand."""
        return (self.needs or ("images" if self.id.startswith("images.") else None)) in (None, *given)


KINDS = (
    Kind("images.sha256_mismatch", "error", "image", "are not the bytes that the manifest lists",
         "the dataset was changed after packing: fetch or pack it again", unusable=True),
    Kind("images.empty", "warning", "image", "have no bytes", FETCH_AGAIN, unusable=True),
    Kind("images.html", "warning", "image", "are web pages, such as the error page of a server",
         FETCH_AGAIN, unusable=True),
    Kind("images.not_an_image", "warning", "image", "are not images", FETCH_AGAIN, unusable=True),
    Kind("images.too_large", "warning", "image", "have more pixels than audit.max_image_pixels",
         f"{QUARANTINED}; scale them down, or raise the setting", unusable=True),
    Kind("images.truncated", "warning", "image", "are cut off or damaged", FETCH_AGAIN, unusable=True),
    Kind("images.unusable", "error", "record", "have no usable image: missing, or found unreadable by other checks",
         "that is above audit.max_unusable_share: look at the folder of images and fetch it again"),
    Kind("images.extension", "warning", "image", "have an extension that does not fit their bytes",
         "they are decoded by their bytes; see that they are the images that the records mean"),
    Kind("images.orientation", "warning", "image", "lie otherwise than viewers show them, by their EXIF orientation",
         "training sees the pixels as they lie: turn them (exiftran -ai, or Pillow's exif_transpose) and pack again"),
    Kind("images.frames", "info", "image", "have several frames", "the first is seen; does the caption speak of it?"),
    Kind("images.mode", "info", "image", "are not 8-bit grey or RGB: a palette, CMYK, 16 bits or the like",
         "they are converted to RGB, colour profiles and the lower bits are dropped"),
    Kind("images.small", "warning", "image", "have a side under audit.min_image_side",
         "leave them out if they are thumbnails or tracking pixels"),
    Kind("images.aspect", "warning", "image", "are longer, or higher, than audit.max_aspect times the other side",
         "banners and strips are squeezed into a square: leave them out"),
    Kind("images.blank", "warning", "image", "are one even colour",
         "they are often placeholders of dead links: leave their records out"),
    Kind("images.dark", "warning", "image", "are dark: a mean under audit.dark_below, and nothing bright",
         "look at them, and leave out those that show nothing"),
    Kind("images.light", "warning", "image", "are washed out: a mean over audit.light_above, and nothing darker than a "
         "light grey", "drawings on white are not found: look at these, and leave out those that show nothing"),
    Kind("images.blurred", "warning", "image", "are blurred: no edges at audit.blurred_below",
         "look at them: fog and plain skies are found as well"),
    Kind("text.no_caption", "warning", "record", "have no caption",
         "they take no part in the alignment with captions; give them one or leave them out"),
    Kind("text.empty", "warning", "caption", "are empty", "remove them from the annotations"),
    Kind("text.not_utf8", "warning", "caption", "hold U+FFFD in place of bytes that are not UTF-8",
         "the annotations were saved in another encoding, or cut inside a character: convert them to UTF-8"),
    Kind("text.mojibake", "warning", "caption", "were read in a wrong encoding somewhere, as cafÃ© for café",
         "convert the annotations back, as the finding shows, or fetch them again"),
    Kind("text.control_character", "warning", "caption", "hold control characters",
         "clean the annotations: they are noise to the text encoder"),
    Kind("text.boilerplate", "warning", "caption", "hold left-overs of a program: markup, references, file names",
         "remove them from the annotations"),
    Kind("text.long", "info", "caption", "have more words than audit.max_caption_words",
         "the text encoder reads only the beginning"),
    Kind("text.too_many_tokens", "info", "caption", "have more than CLIP's 77 tokens, start and end included",
         "the rest is cut off; embed counts exactly, these are the certain ones"),
    Kind("text.shared_caption", "warning", "caption",
         "stand to the letter on audit.shared_caption_records images or more",
         "they say little of any one image, and are false negatives of one another in a batch: leave them out"),
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
    Kind("tags.dropped", "warning", "record", "have ids of tags that the list marks as dropped",
         "training and scoring ignore them; `ramflow tags drop --annotations` writes the annotations without them"),
    Kind("tags.missing", "warning", "tag", "have no training image",
         "they keep their ids, marked missing in tag_status.csv; more than audit.max_missing_tags_share is an error"),
    Kind("tags.rare", "info", "tag", "have fewer training images than audit.rare_below",
         "expect little of them; they are marked rare in tag_status.csv"),
    Kind("tags.duplicate_name", "warning", "tag", "have the name of another tag",
         "scores by name are ambiguous: give each line of the tag list its own name"),
    Kind("tags.thresholds", "error", "line", "of the thresholds are not of this tag list",
         "give those of this list, a number of 0 to 1 for each of its tags", needs="thresholds"),
    Kind("tags.embeddings", "error", "file", "of embeddings are not of this tag list",
         "make them from this list with embed; never drop or move lines", needs="embeddings"),
    Kind("set.duplicate_key", "warning", "record", "have the image_path of an earlier record",
         "merge their annotations or remove one"),
    Kind("set.absolute_path", "warning", "record", "have an image_path that is absolute or leaves the folder of images",
         "such paths ignore the folder given: make them relative"),
    Kind("set.duplicate_image", "warning", "image", "are byte for byte an earlier image of their split",
         "they weigh double: remove one", needs="images"),
    Kind("set.near_duplicate", "warning", "image", "look like an earlier image of their split",
         "they weigh double: remove one; audit.near_radius says how near", needs="images"),
    Kind("set.placeholder", "warning", "image", "are one picture under audit.placeholder_records paths or more, "
         "with as many captions", f"they stand for images that are gone: {QUARANTINED}",
         quarantines=True, needs="images"),
    Kind("set.leakage", "warning", "image", "are byte for byte an image of an earlier split",
         f"scores on them are not honest: {QUARANTINED}; remove them from one split", quarantines=True, needs="images"),
    Kind("set.near_leakage", "warning", "image", "look like an image of an earlier split",
         "scores on them are too good: look at them, and remove those that are the same picture", needs="images"),
    Kind("set.benchmark_leakage", "warning", "image", "of the train split are, or look like, an image of a benchmark",
         f"scores on that benchmark would not be honest: {QUARANTINED}; audit.near_radius says how near",
         quarantines=True, needs="benchmarks"),
    Kind("set.missing_image", "warning", "record", "have no image",
         "missing.parquet says why: look at the folder of images", needs="images"),
    Kind("set.unexpected_count", "error", "count", "are not as audit.expected says",
         "the files are cut off, doubled or others than the recipe's: fetch them again, or correct the recipe",
         needs="expected"),
    Kind("set.drift_counts", "warning", "count", "differ from the previous audit's by more than audit.max_drift",
         "see that the sources were meant to grow or shrink so", needs="previous"),
    Kind("set.drift_tags", "warning", "source", "have other tags than at the previous audit, over audit.max_drift",
         "see that they were tagged in the same way, with the same list", needs="previous"),
)  # fmt: skip
"""In order of report. Findings are sorted by it, and a quarantined sample is listed under the first that found it."""

UNUSABLE = tuple(kind.id for kind in KINDS if kind.unusable)
QUARANTINING = tuple(kind.id for kind in KINDS if kind.unusable or kind.quarantines)
