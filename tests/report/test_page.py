"""The whole page, from the artifacts of a run to HTML."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from ramflow import cli
from ramflow.errors import UserError
from ramflow.report.page import write_report
from ramflow.settings import ReportSettings
from ramflow.tag_lists.edit import drop
from ramflow.tags import read_tags
from ramflow.verdict import check, read_verdict
from tests.report.conftest import Run, reseal

VOID = {"meta", "link", "img", "br"}
REFERRING = ("src", "href", "xlink:href", "srcset", "action", "poster", "data")


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, headings, references and images."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.references += [found[name] or "" for name in REFERRING if name in found]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.images += [found] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}>"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def html_of(run: Run, out: Path, **settings: object) -> str:
    write_report(ReportSettings.model_validate(settings), {name: str(path) for name, path in run.items()}, out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(drawn_run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return html_of(drawn_run, tmp_path_factory.mktemp("page") / "report.html", title="Drawn shapes", gallery=12, tags=3)


@pytest.fixture
def changed(drawn_run: Run, tmp_path: Path) -> Callable[[str], Run]:
    """``changed(stage)``: the run with a copy of that stage's output to change."""

    def copy(name: str) -> Run:
        shutil.copytree(drawn_run[name], tmp_path / name)
        return drawn_run | {name: tmp_path / name}

    return copy


def test_a_run_that_passed_says_so_with_its_figures(html: str, drawn_run: Run) -> None:
    text = Page(html).text
    scores = json.loads((drawn_run["evaluate"] / "evaluation.json").read_text())
    mean, frequency = scores["metrics"]["mAP"], scores["baselines"]["tag_frequency"]["mAP"]
    assert (
        f"This run can be trusted: every gate passed; mAP {mean:.3f} on 40 test images, {mean / frequency:.1f} times "
        "the tag-frequency baseline, 1.6 times the same model trained from scratch."
    ) in text
    assert "17 checks: 0 errors, 2 warnings" in text
    assert text.count("not run") == 0


def test_every_check_and_its_count_is_on_the_page(html: str, drawn_run: Run) -> None:
    text = Page(html).text
    for name in ("audit", "embed", "verify", "train", "evaluate"):
        for c in read_verdict(drawn_run[name]).checks:
            assert f"{c.id} {c.severity} {c.message}" in text
            assert f"{c.count:,} of {c.total:,} {c.limit:,}" in text
    assert "found warning tags.missing" in text and "found info set.across_splits" in text


def test_each_stage_shows_what_it_found(html: str) -> None:
    text = Page(html).text
    assert "train 60 2 58 0 validation 15 0 15 0 test 40 0 40 0" in text
    assert "2 tags without an image to learn from hexagon violet" in text
    assert "Descriptions a tag 5" in text and "clip, weights 777777777777" in text
    assert (
        "swin.safetensors 4.8 MB, sha256 5e5e5e5e5e5e" in text
        and "loaded as they are 173" in text
        and "ratio 2.02" in text
    )
    assert "swin_tiny.pth of a public place" in text and "of the file, not used 7" in text
    assert "agreement 0.421 0.209" in text and "distance to fresh 1.9" in text
    assert "12 position tables interpolated from window 12 to 7" in text
    assert "Smallest crop 20 % of the image" in text  # F18
    assert "Validation mAP best 0.41" in text and "Best validation mAP 0.25" in text
    assert "loss_spike loss 4.1 times its running mean" in text
    assert "predict the mean" in html and "from scratch from" in html  # the reference line, and the second curve
    assert "2 tags without a test image, not scored hexagon violet" in text


def test_the_gallery_shows_what_is_true_and_what_was_said(html: str, drawn_run: Run) -> None:
    page = Page(html)
    assert len(page.images) == 12
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,/9j/") and image["alt"] for image in page.images)
    scores = load_file(drawn_run["evaluate"] / "scores.safetensors")
    said = scores["scores"] >= 0.4
    pictures = re.findall(r"<li class=\"card\">.*?</li>", html, re.S)
    manifest = pl.read_parquet(drawn_run["data"] / "manifest.parquet")["key"].to_list()
    names = pl.read_parquet(drawn_run["evaluate"] / "per_tag.parquet")["name"].to_list()
    for picture in pictures:
        key = re.search(r"test image (test_\d+)", picture)
        assert key
        row = scores["samples"].tolist().index(manifest.index(key[1]))
        for word, which in (("hit", said & (scores["targets"] == 1)), ("missed", ~said & (scores["targets"] == 1)),
                            ("extra", said & (scores["targets"] == 0))):  # fmt: skip
            block = re.search(rf'<div class="{word}">.*?</div>', picture, re.S)
            found = re.findall(r"<span>(\w+)&nbsp;", block[0]) if block else []
            assert sorted(found) == sorted(n for n, yes in zip(names, which[row], strict=True) if yes), (key[1], word)


def test_best_and_worst_tags_do_not_overlap(html: str) -> None:
    tables = re.findall(r'<table class="tags">.*?</table>', html, re.S)
    names = [re.findall(r'<th scope="row">(\w+)', table) for table in tables]
    assert [len(n) for n in names] == [3, 3]
    assert not set(names[0]) & set(names[1])


def test_dropped_tags_are_shown(changed: Callable[[str], Run], tmp_path: Path) -> None:
    run = changed("audit")
    table = drop(read_tags(run["audit"] / "tag_status.csv"), ["red"])
    table.write(run["audit"] / "tag_status.csv")
    reseal(run["audit"])
    shutil.copytree(run["evaluate"], tmp_path / "evaluate")
    run |= {"evaluate": tmp_path / "evaluate"}
    content = json.loads((run["evaluate"] / "evaluation.json").read_text())
    (run["evaluate"] / "evaluation.json").write_text(json.dumps(content | {"dropped_tags": ["red"]}))
    inputs = read_verdict(run["evaluate"]).inputs
    reseal(run["evaluate"], inputs={name: digest for name, digest in inputs.items() if name == "data"})
    only = {name: run[name] for name in ("data", "audit", "evaluate")}
    text = Page(html_of(only, tmp_path / "report.html")).text
    assert "1 tag dropped from the list, never learnt or scored red" in text
    assert "1 tag dropped from the list, not scored red" in text
    assert f"the most frequent is red with {max(table.counts)}" not in text


def test_a_refused_run_says_why_and_what_has_not_run(changed: Callable[[str], Run], tmp_path: Path) -> None:
    run = changed("audit")
    failed = check("tags.missing", "error", 2, 10, "2 of 10 tags have no image; add some", examples=["hexagon"])
    reseal(run["audit"], checks=[failed])
    text = Page(html_of({name: run[name] for name in ("data", "audit")}, tmp_path / "report.html")).text
    assert "Do not trust this run: audit says no: 2 of 10 tags have no image." in text
    assert "2 of 10 tags have no image; add some" in text
    assert text.count("not run") == 2 * 4  # in the strip, and at the four sections
    assert "Gallery" not in text


def test_a_run_that_goes_on_is_not_called_trusted(drawn_run: Run, tmp_path: Path) -> None:
    run = {name: drawn_run[name] for name in ("data", "audit", "embed")}
    text = Page(html_of(run, tmp_path / "report.html")).text
    assert "This run is not finished: audit and embed passed; verify, train and evaluate have not run." in text


def test_a_failed_from_scratch_run_counts(changed: Callable[[str], Run], tmp_path: Path) -> None:
    run = changed("scratch")
    reseal(run["scratch"], checks=[check("train.finite", "error", 3, 800, "3 steps were not finite")])
    del run["evaluate"]
    text = Page(html_of(run, tmp_path / "report.html")).text
    assert "Do not trust this run: the from-scratch run says no: 3 steps were not finite." in text


def test_without_a_from_scratch_run_nothing_is_compared_with_it(changed: Callable[[str], Run], tmp_path: Path) -> None:
    run = changed("evaluate")
    del run["scratch"]
    path = run["evaluate"] / "evaluation.json"
    content = json.loads(path.read_text())
    content["baselines"]["from_scratch"] = None
    path.write_text(json.dumps(content))
    table = pl.read_parquet(run["evaluate"] / "per_tag.parquet")
    table.with_columns(ap_from_scratch=pl.lit(None, pl.Float64)).write_parquet(run["evaluate"] / "per_tag.parquet")
    reseal(run["evaluate"], inputs={})
    text, _, _ = Page(html_of(run, tmp_path / "report.html")).text.partition("How this page was made")
    assert "times the tag-frequency baseline." in text
    assert not re.search("from[ -]scratch", text, re.IGNORECASE)


def test_captions_tags_and_messages_cannot_inject_markup(changed: Callable[[str], Run], tmp_path: Path) -> None:
    hostile = '</style><script>alert(1)</script>"><img src=http://x.test/y onerror=alert(2)>'
    run = changed("audit")
    checks = [check(hostile, "warning", 1, 2, hostile, examples=[hostile])]
    reseal(run["audit"], checks=checks, metrics={hostile: hostile})
    shutil.copytree(run["evaluate"], tmp_path / "evaluate")
    run["evaluate"] = tmp_path / "evaluate"
    table = pl.read_parquet(run["evaluate"] / "per_tag.parquet")
    table.with_columns(name=pl.col("name") + pl.lit(hostile)).write_parquet(run["evaluate"] / "per_tag.parquet")
    reseal(run["evaluate"], inputs={})
    shutil.copytree(run["train"], tmp_path / "train")
    run["train"] = tmp_path / "train"
    event = {"step": 1, "event": hostile, "detail": {hostile: hostile}}
    (run["train"] / "events.jsonl").write_text(json.dumps(event) + "\n")
    reseal(run["train"], inputs={})
    for name in ("embed", "verify", "scratch"):
        del run[name]
    page = Page(html_of(run, tmp_path / "report.html", title=hostile))
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert all(r.startswith(("#", "data:")) for r in page.references)


def test_nothing_is_fetched_and_every_link_has_its_target(html: str) -> None:
    page = Page(html)
    assert all(r.startswith(("#", "data:")) for r in page.references)
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style
    assert not re.search(r"url\(|@import|https?:", style[1])
    assert "script" not in page.tags and "default-src 'none'" in html


def test_headings_and_tables_are_marked_up(html: str) -> None:
    page = Page(html)
    assert page.tags.count("h1") == 1
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert html.count("<table") <= html.count('scope="row"')
    assert html.count('role="img"') == html.count('role="img" aria-label="') > 8


def test_the_same_run_gives_the_same_bytes_without_paths(drawn_run: Run, html: str, tmp_path: Path) -> None:
    moved = {name: Path(shutil.copytree(path, tmp_path / f"moved-{name}")) for name, path in drawn_run.items()}
    assert html_of(moved, tmp_path / "other.html", title="Drawn shapes", gallery=12, tags=3) == html
    assert str(tmp_path.parent) not in html and str(drawn_run["data"].parent) not in html


def test_the_page_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import ramflow.report.page"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_gallery_of_nothing_is_left_out(drawn_run: Run, tmp_path: Path) -> None:
    assert "<img" not in html_of(drawn_run, tmp_path / "report.html", gallery=0)


@pytest.mark.parametrize(
    ("stage", "file", "content"),
    [
        ("audit", "tag_status.csv", b"id,name,count,status,threshold\n0,red,x,present,\n"),
        ("audit", "tag_status.csv", b"id,name,count,status,threshold\n0,red,,,\n"),
        ("audit", "quarantine.parquet", b"PAR1 cut off"),
        ("embed", "tags.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
        ("verify", "attestation.json", b"[]"),
        ("verify", "attestation.json", b'{"source": {}, "encoder": {}}'),
        ("train", "metrics.jsonl", b'{"kind": "train", "ste'),
        ("train", "metrics.jsonl", b'{"kind": "train"}\n'),
        ("train", "events.jsonl", b"3\n"),
        ("evaluate", "evaluation.json", b'{"metrics": {"mAP": null}}'),
        ("evaluate", "evaluation.json", b"\xff"),
        ("evaluate", "per_tag.parquet", b""),
        ("evaluate", "scores.safetensors", b"not tensors"),
    ],
)
def test_a_damaged_artifact_is_one_line_that_names_it(
    stage: str,
    file: str,
    content: bytes,
    changed: Callable[[str], Run],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = changed(stage)
    (run[stage] / file).write_bytes(content)
    reseal(run[stage], inputs={})
    for name in [name for name in run if name not in ("data", "audit", stage)]:
        del run[name]
    out = tmp_path / "report.html"
    assert cli.main(["report", *(part for n, p in run.items() for part in (f"--{n}", str(p))), "--out", str(out)]) == 2
    line = capfd.readouterr().err
    assert line.startswith("ramflow: ") and line.count("\n") == 1 and str(run[stage] / file) in line
    assert not out.exists()


def test_scores_of_another_dataset_are_refused(changed: Callable[[str], Run], tmp_path: Path) -> None:
    run = changed("evaluate")
    path = run["evaluate"] / "scores.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"samples": tensors["samples"] + 100}, path)
    reseal(run["evaluate"])
    with pytest.raises(UserError, match=r"scores\.safetensors .*samples that the dataset does not have"):
        html_of(run, tmp_path / "report.html")


def test_artifacts_of_two_runs_are_refused(changed: Callable[[str], Run], tmp_path: Path) -> None:
    run = changed("train")
    reseal(run["train"], metrics={"steps": 1})
    with pytest.raises(UserError, match="do not belong together"):
        html_of(run, tmp_path / "report.html")


def test_an_output_in_the_wrong_place_is_refused(drawn_run: Run, tmp_path: Path) -> None:
    run = {"data": drawn_run["data"], "audit": drawn_run["audit"], "embed": drawn_run["audit"]}
    with pytest.raises(UserError, match=r"--embed .* is the output of audit: give the output of embed"):
        html_of(run, tmp_path / "report.html")
    with pytest.raises(UserError, match="one local HTML file"):
        html_of(drawn_run, tmp_path)
