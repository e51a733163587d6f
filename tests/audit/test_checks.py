"""The table of checks is the list of ids that others rely on."""

from __future__ import annotations

from ramflow.audit.checks import KINDS


def test_ids_are_stable():
    stops = {k.id for k in KINDS if k.severity == "error"}
    assert stops == {"images.sha256_mismatch", "images.unusable", "tags.out_of_range", "tags.negative"}
    assert {k.id for k in KINDS} - stops == {
        "images.empty", "images.not_an_image", "images.too_large", "images.truncated",
        "images.extension", "images.small", "images.blank",
        "text.no_caption", "text.empty", "text.control_character", "text.boilerplate", "text.long",
        "tags.duplicate_id", "tags.parse_misaligned", "tags.parsed_not_in_union", "tags.no_union",
        "tags.missing", "tags.rare", "tags.duplicate_name",
        "set.duplicate_key", "set.absolute_path", "set.duplicate_image", "set.leakage", "set.missing_image",
    }  # fmt: skip
    assert len({k.id for k in KINDS}) == len(KINDS)


def test_every_check_is_reported_on_clean_data_and_passes(audit, tiny_data):
    done = audit(tiny_data)
    assert [c.id for c in done.verdict.checks] == [k.id for k in KINDS]
    assert done.failed() == set() and done.verdict.passed and done.quarantine.is_empty()
    assert done.findings.select("check", "severity", "detail").rows() == [("tags.missing", "warning", "unicorn")]
