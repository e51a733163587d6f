"""The table of checks is the list of ids that others rely on."""

from __future__ import annotations

import pytest

from ramflow.audit.checks import KINDS, QUARANTINING
from tests.audit.conftest import LOOKS

TEXT = {
    "text.no_caption", "text.empty", "text.not_utf8", "text.mojibake", "text.control_character", "text.boilerplate",
    "text.long", "text.too_many_tokens", "text.shared_caption",
}  # fmt: skip
TAGS = {
    "tags.out_of_range", "tags.negative", "tags.duplicate_id", "tags.parse_misaligned", "tags.parsed_not_in_union",
    "tags.no_union", "tags.dropped", "tags.missing", "tags.rare", "tags.duplicate_name",
}  # fmt: skip
SET = {
    "set.duplicate_key", "set.absolute_path", "set.duplicate_image", "set.near_duplicate", "set.placeholder",
    "set.leakage", "set.near_leakage", "set.missing_image",
}  # fmt: skip
ASKED = {
    "tags.thresholds", "tags.embeddings", "set.benchmark_leakage", "set.unexpected_count", "set.drift_counts",
    "set.drift_tags",
}  # fmt: skip
"""Made only when there is something to compare with."""


def test_ids_are_stable():
    ids = [kind.id for kind in KINDS]
    assert len(set(ids)) == len(ids)
    assert {i for i in ids if not i.startswith("images.")} == TEXT | TAGS | SET | ASKED


def test_which_stop_and_which_quarantine():
    stops = {k.id for k in KINDS if k.severity == "error" and not k.id.startswith("images.")}
    assert stops == {
        "tags.out_of_range", "tags.negative", "tags.thresholds", "tags.embeddings", "set.unexpected_count",
    }  # fmt: skip
    assert {i for i in QUARANTINING if not i.startswith("images.")} == {
        "tags.out_of_range", "tags.negative", "set.placeholder", "set.leakage", "set.benchmark_leakage",
    }  # fmt: skip


def test_every_check_is_reported_on_clean_data_and_passes(audit, tiny_data):
    done = audit(tiny_data)
    assert [c.id for c in done.verdict.checks] == [k.id for k in KINDS if k.id not in ASKED]
    assert done.failed() == set() and done.verdict.passed and done.quarantine.is_empty()
    rows = done.findings.select("check", "severity", "detail").rows()
    assert [row for row in rows if row[0] not in LOOKS] == [("tags.missing", "warning", "unicorn")]


def test_checks_that_need_images_are_not_made_of_annotations(audit_files, records):
    done = audit_files(records)
    assert {c.id for c in done.verdict.checks} == TEXT | TAGS | {"set.duplicate_key", "set.absolute_path"}
    assert done.failed() == set() and done.verdict.passed and done.quarantine is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_a_message_says_what_and_what_to_do(kind):
    assert kind.what and kind.advice and not kind.what.endswith(".") and not kind.advice.endswith(".")
