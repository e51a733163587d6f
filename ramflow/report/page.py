"""``ramflow report``: the artifacts of a run into one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ramflow import __version__, stages, storage
from ramflow.errors import UserError
from ramflow.progress import say
from ramflow.report import text
from ramflow.report.answer import Answer, answer
from ramflow.report.artifacts import STAGES, TITLES, Run, open_run
from ramflow.report.audit import AuditPart, audit_part
from ramflow.report.evaluate import EvaluatePart, evaluate_part
from ramflow.report.gallery import Picture, gallery
from ramflow.report.train import TrainPart, train_part
from ramflow.report.vectors import EmbedPart, VerifyPart, embed_part, verify_part
from ramflow.settings import ReportSettings
from ramflow.verdict import Check, Verdict

HERE = Path(__file__).parent
PURPOSES = {stage.name: stage.summary for stage in stages.STAGES}
PURPOSES["scratch"] = "the same training from random encoder weights, to compare with"
ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class StageView:
    """A stage as the page shows it: its verdict (None: not run), and the figure of its card with a remark."""

    name: str
    title: str
    verdict: Verdict | None
    figure: str
    remark: str

    @property
    def state(self) -> str:
        """The verdict in a word: passed, failed or not run."""
        return "not run" if self.verdict is None else "passed" if self.verdict.passed else "failed"

    @cached_property
    def checks(self) -> list[Check]:
        """Failed checks first, the gravest at the top; the others in the stage's own order."""
        checks = self.verdict.checks if self.verdict else []
        return sorted(checks, key=lambda c: (c.passed, 0 if c.passed else ORDER[c.severity]))


@dataclass(frozen=True)
class Parts:
    """What each stage shows; None where it has not run."""

    audit: AuditPart
    embed: EmbedPart | None
    verify: VerifyPart | None
    train: TrainPart | None
    scratch: TrainPart | None
    evaluate: EvaluatePart | None


def write_report(settings: ReportSettings, inputs: Mapping[str, str], out: Path) -> None:
    """Write the page; the same inputs and settings give the same bytes.

    Args:
        settings: title, and how much is shown.
        inputs: local or s3:// path by input name (``ramflow.stages.REPORT_INPUTS``); all but data and audit may lack.
        out: the HTML file; appears whole or not at all.

    Raises:
        UserError: an input is missing or damaged, two do not belong together, or ``out`` is no place for a file.
    """
    if out.is_dir() or out.parts[:1] == ("s3:",):
        raise UserError(f"--out {out}: the page is one local HTML file, give its name")
    run = open_run(inputs)
    page = render(settings, run)
    with storage.whole_file(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    say(f"report: {len(page.encode()) / 1e3:.0f} kB; written to {out}")


def render(settings: ReportSettings, run: Run) -> str:
    """The page as HTML."""
    parts = _parts(settings, run)
    pictures: list[Picture] = gallery(run, settings.gallery) if run.has("evaluate") else []
    verdict: Answer = answer(run, parts.evaluate)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": text.number, "score": text.score, "short": text.short, "rows": text.rows}
    environment.globals["plural"] = text.plural
    return environment.get_template("page.html").render(
        settings=settings,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        answer=verdict,
        stages=[_view(run, parts, name) for name in STAGES if name != "scratch" or run.has("scratch")],
        parts=parts,
        pictures=pictures,
        digests=run.digests,
        titles=TITLES,
        purposes=PURPOSES,
        version=__version__,
    )


def _parts(settings: ReportSettings, run: Run) -> Parts:
    return Parts(
        audit=audit_part(run),
        embed=embed_part(run) if run.has("embed") else None,
        verify=verify_part(run) if run.has("verify") else None,
        train=train_part(run, thumbnails=settings.gallery) if run.has("train") else None,
        scratch=train_part(run, "scratch") if run.has("scratch") else None,
        evaluate=evaluate_part(run, settings.tags) if run.has("evaluate") else None,
    )


def _view(run: Run, parts: Parts, name: str) -> StageView:
    figure, remark = _card(parts, name) if run.has(name) else (text.NONE, "")
    return StageView(name, TITLES[name], run.verdicts.get(name), figure, remark)


def _card(parts: Parts, name: str) -> tuple[str, str]:
    """The one figure of a stage that has run, and what it counts."""
    part = getattr(parts, name)
    if isinstance(part, AuditPart):
        return text.number(part.images), f"images to use; {part.set_aside:,} set aside"
    if isinstance(part, EmbedPart):
        return f"{part.tags:,} × {part.descriptions:,}", "tags × descriptions"
    if isinstance(part, VerifyPart):
        return text.number(part.loaded), f"tensors loaded; {part.unused:,} not used"
    if isinstance(part, TrainPart):
        return text.score(part.best), f"best validation mAP, of {part.step:,} steps"
    return text.score(part.mAP), f"mAP on {text.plural(part.images, 'test image')}"
