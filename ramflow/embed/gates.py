"""Checks of a comparison with a reference, for the verdict of embed and for ``ramflow embeddings check``."""

from __future__ import annotations

from collections.abc import Sequence

from ramflow.data.vectors import TagEmbeddings
from ramflow.embed.consistency import Comparison
from ramflow.embed.diagnosis import Diagnosis
from ramflow.settings import EmbedSettings
from ramflow.verdict import Check, check, share_of


def reference_checks(comparison: Comparison, settings: EmbedSettings) -> list[Check]:
    """Checks ``embed.reference_*``: each figure against its setting, and the diagnoses that are faults."""
    faults = [d for d in comparison.diagnoses if not d.harmless]
    checks = [
        *_by_tag(comparison, settings),
        _figure("correlation", "similarities of the tags correlate with the reference's by",
                comparison.correlation, settings.min_reference_correlation),
        _figure("neighbours", "of a tag's nearest tags those of the reference are",
                comparison.neighbours, settings.min_reference_neighbours),
    ]  # fmt: skip
    summary = f"{faults[0].message} ({faults[0].evidence})" if faults else "nothing is wrong with the rows"
    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    examples = [f"{d.kind}: {d.message} ({d.evidence})" for d in faults]
    total = len(comparison.diagnoses)
    return [
        *checks,
        check("embed.reference_diagnosis", "error", len(faults), total, summary + more, examples=examples),
    ]


def _by_tag(comparison: Comparison, settings: EmbedSettings) -> list[Check]:
    if comparison.cosines is None or comparison.strangers is None:
        return []
    far = (comparison.cosines < settings.min_reference_cosine).nonzero().flatten().tolist()
    strangers = comparison.strangers
    return [
        check("embed.reference_cosine", "error", len(far), comparison.shared,
              f"{len(far)} of {comparison.shared} tags have rows other than the reference's (a cosine under "
              f"{settings.min_reference_cosine:g})",
              examples=[f"tag {tag}: {float(comparison.cosines[tag]):.4f}" for tag in far]),
        check("embed.reference_identity", "error", len(strangers), comparison.shared,
              f"{len(strangers)} of {comparison.shared} tags are nearer to another tag of the reference",
              limit=share_of(1 - settings.min_identity, comparison.shared),
              examples=[f"tag {tag}: nearest is tag {other}" for tag, other in strangers]),
    ]  # fmt: skip


def _figure(name: str, what: str, value: float, least: float) -> Check:
    message = f"{what} {value:.3f}, at least {least:g} is expected"
    return check(f"embed.reference_{name}", "error", int(value < least), 1, message)


def one_row_check(vectors: TagEmbeddings) -> Check:
    """Check ``embed.one_row``: tags with a single row, where the re-weighting has nothing to choose from (F06)."""
    single = (vectors.mask.sum(dim=1) == 1).nonzero().flatten().tolist()
    message = (
        f"{len(single)} of {len(vectors.mask)} tags have one row: the re-weighting of descriptions is off for them; "
        "files rebuilt with the public helper of before June 2024 hold the mean of the descriptions"
    )
    examples = [f"tag {tag}" for tag in single]
    return check("embed.one_row", "warning", len(single), len(vectors.mask), message, examples=examples)


def defect_check(found: Sequence[Diagnosis], total: int) -> Check:
    """Check ``embed.defects`` of what a file shows on its own (``defects.defects``)."""
    faults = [d for d in found if not d.harmless]
    message = faults[0].message if faults else "the file on its own shows no fault"
    examples = [f"{d.kind}: {d.message} ({d.evidence})" for d in faults]
    return check("embed.defects", "error", len(faults), total, message, examples=examples)
