"""Seeded faults in the captions: found with their caption's number; honest captions pass."""

from __future__ import annotations

import random
import unicodedata

import polars as pl
import pytest
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad

from ramflow.audit import text
from ramflow.settings import AuditSettings
from tests.components.small import CLIP, needs_models

CASES = [
    ("text.empty", ""),
    ("text.empty", " \u00a0\u3000"),
    ("text.not_utf8", "a caf\ufffd in the old town"),
    ("text.not_utf8", "a street \udce9 at night"),
    ("text.mojibake", "a cafÃ© in the old town"),
    ("text.mojibake", "the dogâ€™s bowl"),
    ("text.mojibake", "ein MÃ¤dchen auf der StraÃŸe"),
    ("text.mojibake", "ä¸€ä¸ªå¥³å\xad©"),
    ("text.mojibake", "a dog ðŸ\u0090¶".replace("\u0090", "‹")),
    ("text.mojibake", "девочка".encode().decode("cp1252", "replace").replace("\ufffd", "›")),
    ("text.mojibake", "crème brûlée".encode().decode("mac-roman")),
    ("text.mojibake", "10 Â£ note"),
    ("text.control_character", "a red\x07 circle"),
    ("text.control_character", "a red circle\nand more"),
    ("text.control_character", "a red \x7f circle"),
    ("text.boilerplate", "HASH(0x83a5c0)"),
    ("text.boilerplate", "see ARRAY(0x55d0deadbeef) here"),
    ("text.boilerplate", "<PIL.Image.Image object at 0x7f1c>"),
    ("text.boilerplate", "[object Object]"),
    ("text.boilerplate", "a circle<br/>that is red"),
    ("text.boilerplate", "salt &amp; pepper"),
    ("text.boilerplate", "No description available."),
    ("text.boilerplate", "untitled"),
    ("text.boilerplate", "NULL"),
    ("text.boilerplate", "https://example.org/a?b=c"),
    ("text.boilerplate", "IMG_2044.JPG"),
    ("text.boilerplate", "Lorem ipsum dolor sit amet"),
    ("text.long", "word " * 31),
    ("text.long", "a\u00a0" * 31),
    ("text.too_many_tokens", "1" * 76),
    ("text.too_many_tokens", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z," * 2),
    ("text.too_many_tokens", "女，" * 38),
]

HONEST = [
    "word " * 30,
    "a hash of potatoes (0x is not a number)",
    "an untitled painting on a wall",
    "nothing to see, null island on a map",
    "5 < 7 and b > a",
    "AT&T logo; black & white",
    "a poster that says www.example.org in red",
    "the file cat.jpg printed on a mug",
    "no",
    "1" * 75,
    "a" * 300,
    "e\u0301" * 50,  # one word, once its accents are joined to its letters
    "Ein Mädchen — 女孩 👧",
    "L’été à Noël, un garçon naïf mange une crêpe où Zoë dîne – « ça va ? »",
    "À la recherche du cœur perdu, ŒUVRE COMPLÈTE… Œil",
    "Die Mädchen spielen fröhlich auf der großen Straße: „Spaß…“",
    "El niño pequeño comió una piñata ¿qué? ¡sí! Nº 5, 3ª fila",
    "Żółta łódź płynie po jeziorze",
    "Một cô gái đang chơi với chó",
    "Küçük kız çocuğu güneşli bir günde İstanbul’da",
    "一个女孩在公园里玩，旁边有一只狗。",
    "女の子が公園で遊んでいる「かわいい」",
    "여자 아이가 놀고 있다",
    "Девочка играет в парке — весело!",
    "Το κορίτσι παίζει στο πάρκο",
    "فتاة تلعب في الحديقة",
    "लड़की पार्क में खेल रही है",
    "a dog 🐶🐾 and a cat 😺❤️ – “cute”… 👨‍👩‍👧",
    "café’s “menu”: 5 €, £4, 20 °C, ½ price, 3×4 m², ©2019, ™, §5",
    "Ålesund, Øresund, São Paulo, Kraków, Reykjavík",
]


@pytest.mark.parametrize(("check", "caption"), CASES)
def test_a_bad_caption_is_found_and_nothing_else(audit_files, records, check, caption):
    records[1]["caption"][1] = caption
    done = audit_files(records)
    assert done.failed() == {check}
    [(key, detail)] = done.rows(check)
    assert key == "set[1]" and detail.startswith("caption 1: ")
    assert not any(unicodedata.category(character) == "Cc" for character in detail)
    found = done.check(check)
    assert (found.count, found.total, found.examples) == (1, 48, ["set[1]"])
    assert done.verdict.passed


def test_a_control_character_of_another_encoding_is_both(audit_files, records):
    records[1]["caption"][1] = "a red circle\x85"
    assert audit_files(records).failed() == {"text.control_character", "text.mojibake"}


def test_mojibake_is_shown_as_it_was_meant(audit_files, records):
    records[0]["caption"][0] = "a cafÃ© in the old town"
    assert audit_files(records).rows("text.mojibake") == [
        ("set[0]", "caption 0: a cafÃ© in the old town, perhaps: a café in the old town")
    ]


def test_honest_captions_pass(audit, audit_files, pack_records, records):
    records[0]["caption"] = HONEST
    records[0]["parse_label_id"] = []
    assert audit(pack_records(records)).failed() == set()
    assert audit_files(records).failed() == set()


def test_a_bad_caption_of_a_packed_set_is_found_by_its_key(audit, pack_records, records):
    records[1]["caption"][1] = " "
    done = audit(pack_records(records))
    assert done.failed() == {"text.empty"} and done.quarantine.is_empty()
    assert done.rows("text.empty") == [("train_000000001", "caption 1:  ")]


def test_a_record_without_captions_is_found_once(audit, pack_records, records):
    records[3]["caption"] = records[3]["parse_label_id"] = []
    done = audit(pack_records(records))
    assert done.failed() == {"text.no_caption"}
    assert done.rows("text.no_caption")[0][0] == "train_000000003"
    assert done.verdict.metrics["captions"] == 46


def test_every_bad_caption_is_a_row_in_order(audit, pack_records, records):
    for record in records:
        record["caption"] = ["", "a caption", " "]
        record["parse_label_id"] = []
    done = audit(pack_records(records), shared_caption_records=100)
    assert len(done.rows("text.empty")) == 48 and len(done.check("text.empty").examples) == 10
    assert done.rows("text.empty")[:3] == [
        ("train_000000000", "caption 0: "),
        ("train_000000000", "caption 2:  "),
        ("train_000000001", "caption 0: "),
    ]


@pytest.mark.parametrize("most", [3, 30, 500])
def test_the_limit_of_words_is_the_settings(audit_files, records, most):
    records[0]["caption"] = ["w " * most, "w\u2003" * most + "w", "w " * (most + 1)]
    records[0]["parse_label_id"] = []
    done = audit_files(records[:1], max_caption_words=most, max_missing_tags_share=1)
    assert [detail[:10] for _, detail in done.rows("text.long")] == ["caption 1:", "caption 2:"]


def test_a_caption_on_many_images_is_found_on_each(audit_files, records):
    for n, record in enumerate(records):
        record["caption"] = [f"caption {n}", f"another caption {n}"]
    for n in (0, 3, 5, 7):
        records[n]["caption"][1] = "a view of the sea"
    records[9]["caption"] = ["a view of the sea "] * 2  # another text: a space more, and twice in one record
    records[11]["caption"] = ["a view of the park"] * 2
    files = {"a.json": records[:6], "b.json": records[6:]}
    assert "text.shared_caption" not in audit_files(files, shared_caption_records=5).failed()
    done = audit_files(files, shared_caption_records=4)
    assert done.failed() == {"text.shared_caption"}
    assert done.rows("text.shared_caption") == [
        (key, "caption 1, on 4 images: a view of the sea") for key in ("a[0]", "a[3]", "a[5]", "b[1]")
    ]


def test_blank_captions_are_not_called_shared(audit_files, records):
    for record in records:
        record["caption"][0] = " "
    assert audit_files(records, shared_caption_records=2).failed() == {"text.empty"}


def captions_of(alphabet: list[str], count: int) -> pl.DataFrame:
    chance = random.Random(0)
    captions = ["".join(chance.choices(alphabet, k=chance.randrange(1, 12))) for _ in range(count)]
    return pl.DataFrame({"caption": captions})


def test_no_bad_caption_escapes_the_quick_look():
    """The patterns that choose captions for a closer look choose all that a closer look finds."""
    parts = [" ", "a", "word", "null", "\t", "1", ",", "<br>", "&amp;", "HASH(0xA1)", "HASH(0Xa1)", "lorem ipsum",
             "x.jpg", "www.a", "no title", "é", "\ufffd", "'s", "ſ", "NULL", "\u00a0", "[object Object]"]  # fmt: skip
    frame = captions_of([*parts, *["b "] * 8], 20_000)
    found = frame.with_columns(row=0, number=0)
    odd = found.filter(pl.col("caption").str.contains(text.odd_captions(4)))["caption"]
    expected = found.filter(
        (pl.col("caption").str.strip_chars() == "")
        | pl.col("caption").str.contains(f"(?i){text.BOILERPLATE}|\\p{{Cc}}|\ufffd")
        | (pl.col("caption").str.count_matches(r"\S+") > 4)
    )["caption"]
    assert len(expected) > 5_000 and set(expected) <= set(odd)


def test_no_mojibake_escapes_the_quick_look():
    upper = sorted({c for characters in MOJIBAKE_CATEGORIES.values() for c in characters if c > "\x7f"})
    bad = [c for c in captions_of([*upper, *" aZ" * 60, "Ã ", "Â "], 20_000)["caption"] if is_bad(c)]
    maybe = pl.Series(bad).str.contains(text.MAYBE_MOJIBAKE)
    assert len(bad) > 2_000 and not maybe.not_().sum(), pl.Series(bad).filter(~maybe)[:5]


@needs_models
def test_tokens_are_never_more_than_clip_counts():
    """A caption that is found is cut for certain, whatever the vocabulary."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CLIP)
    alphabet = ["a", "dog", " ", "1", "23", ",", "!?", "é", "e\u0301", "'s", "女", "😺", "<|endoftext|>", "\n", "İ"]
    captions = captions_of(alphabet, 2_000)["caption"]
    least = captions.to_frame().select(text.least_tokens(pl.col("caption"))).to_series()
    real = [len(ids) - 2 for ids in tokenizer(captions.to_list())["input_ids"]]
    assert all(a <= b for a, b in zip(least, real, strict=True)) and sum(least) > 0.4 * sum(real)


def test_the_settings_name_the_limits():
    assert {"max_caption_words", "shared_caption_records"} <= set(AuditSettings.model_fields)
