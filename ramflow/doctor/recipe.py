"""Figures of the public recipe and data that several diagnoses compare with."""

PUBLIC_TAGS = 4585
PUBLIC_DESCRIPTIONS = 51
PUBLIC_BATCH = 52
"""Images a GPU of pretraining; with 8 GPUs 416 a step."""
FINE_TUNING_BATCH = 26
GPUS = 8
TAGS_AN_IMAGE = 41.8 / 3.87
"""Of the 4M set: 41.8 million tags on 3.87 million images."""


def descriptions_a_tag(rows: int | None, names: int | None) -> int:
    """Rows a tag: what a list of ``names`` tags makes of them where it divides them, else the public code's 51."""
    return rows // names if rows and names and rows > names and rows % names == 0 else PUBLIC_DESCRIPTIONS
