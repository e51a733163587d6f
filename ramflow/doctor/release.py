"""Which release of the public code a run looks like: every sign is a window of dates, and they are intersected."""

from __future__ import annotations

from dataclasses import dataclass

from ramflow.doctor.case import Case
from ramflow.doctor.finding import Answer

RAM_PLUS, WINDOW_FIX, LOADED, HELPER_FIX = "2023-10-23", "2024-01-28", "2024-04-13", "2024-06-12"
LATER = "9999"


@dataclass(frozen=True)
class Sign:
    """Something seen that only releases from ``first`` until before ``end`` do (dates, ISO)."""

    text: str
    first: str
    end: str


SIGNS = {
    "encoder.never_loaded": Sign("the encoder was never loaded", RAM_PLUS, LOADED),
    "encoder.window": Sign("another window than the image size needs", RAM_PLUS, WINDOW_FIX),
    "embeddings.averaged": Sign("descriptions averaged to one row a tag", RAM_PLUS, HELPER_FIX),
}
"""By the finding that is the sign."""
LOADS = Sign("the log has '### Load Vision Backbone'", LOADED, LATER)


def diagnose_release(case: Case, findings: set[str]) -> Answer:
    """Cut the windows of what was found.

    Args:
        case: what was given.
        findings: ids of what the other diagnoses found.
    """
    signs = [sign for id, sign in SIGNS.items() if id in findings]
    if case.log and case.log.loaded_backbone:
        signs.append(LOADS)
    if not signs:
        return Answer()
    first, end = max(sign.first for sign in signs), min(sign.end for sign in signs)
    why = "; ".join(sign.text for sign in signs)
    if first >= end:
        return Answer(seen=[("release", f"signs of different releases of the public code: {why}")])
    window = f"from {first} on" if end == LATER else f"of {first} to {end}"
    return Answer(seen=[("release", f"looks like a release {window} ({why})")])
