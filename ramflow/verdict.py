"""What a stage says about its work: checks, metrics, and the digests of what went in and came out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ramflow.errors import GateRefused, UserError
from ramflow.progress import say

Severity = Literal["error", "warning", "info"]

FILE_NAME = "verdict.json"
MAX_EXAMPLES = 10


@dataclass(frozen=True)
class Check:
    """One question put to the data or the model, and its answer.

    ``count`` of ``total`` things failed; the check passes while ``count <= limit``. An ``error`` that does not
    pass makes the whole verdict a no; a ``warning`` is shown; ``info`` is a fact.
    """

    id: str
    severity: Severity
    count: int
    total: int
    limit: int
    passed: bool
    message: str
    examples: list[str] = field(default_factory=list)


def check(
    id: str, severity: Severity, count: int, total: int, message: str, *, limit: int = 0, examples: Sequence[str] = ()
) -> Check:
    """A :class:`Check` whose ``passed`` follows from ``count`` and ``limit``; the first ten examples are kept."""
    return Check(id, severity, count, total, limit, count <= limit, message, list(examples)[:MAX_EXAMPLES])


def share_of(share: float, total: int) -> int:
    """The most things of ``total`` that are at most ``share`` of them: 29 of 100 for 0.29, whatever the rounding."""
    return math.floor(share * total + 1e-9)


@dataclass
class Verdict:
    """The answer of a stage, written as ``verdict.json`` beside its artifacts.

    ``inputs`` and ``outputs`` map a name to ``sha256:...``; as outputs are listed, the digest of the verdict
    file is a digest of all that the stage wrote.
    """

    stage: str
    checks: list[Check] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True unless a check of severity ``error`` failed."""
        return not self.failures()

    def failures(self) -> list[Check]:
        """The checks of severity ``error`` that did not pass."""
        return [c for c in self.checks if c.severity == "error" and not c.passed]

    def write(self, directory: Path) -> None:
        """Write ``verdict.json`` into ``directory``, the same bytes for the same content."""
        content = {"stage": self.stage, "passed": self.passed, **asdict(self)}
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (directory / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    def refusal(self, where: Path | str) -> GateRefused:
        """The one-line error for this verdict when it did not pass."""
        first = self.failures()[0]
        more = f" (and {len(self.failures()) - 1} more)" if len(self.failures()) > 1 else ""
        return GateRefused(f"{self.stage} says no: {first.id}: {first.message}{more}; see {where}/{FILE_NAME}")


def read_verdict(directory: Path) -> Verdict:
    """Read ``directory/verdict.json``.

    Raises:
        UserError: the file is missing or not a verdict.
    """
    path = directory / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("passed")
        content["checks"] = [Check(**c) for c in content["checks"]]
        return Verdict(**content)
    except FileNotFoundError:
        raise UserError(f"{directory} is not the output of a stage: it has no {FILE_NAME}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a verdict of this version of ramflow ({error}): run that stage again") from None


def announce(verdict: Verdict, where: str) -> None:
    """Say on standard error what did not pass, and in one last line how the stage went."""
    for c in verdict.checks:
        if not c.passed and c.severity != "info":
            say(f"  {c.severity}: {c.id}: {c.message}")
    answer = "passed" if verdict.passed else "NOT PASSED"
    say(f"{verdict.stage}: {answer}; {_figures(verdict.metrics)}; written to {where}")


def _figures(metrics: dict[str, Any]) -> str:
    plain = {k: v for k, v in metrics.items() if isinstance(v, (int, float, str))}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items())
