"""The figures of a finished run, for a person at a terminal."""

import json
import sys
from pathlib import Path


def summary(run: Path) -> str:
    """The scores of ``run/evaluate`` beside the baselines', and where the page is."""
    evaluation = json.loads((run / "evaluate" / "evaluation.json").read_text(encoding="utf-8"))
    metrics, baselines = evaluation["metrics"], evaluation["baselines"]
    scope = f"{metrics['images']} test images, {metrics['tags_scored']} of {metrics['tags']} tags"
    lines = [f"mAP {metrics['mAP']:.4f} ({scope})"]
    lines += [f"    {name.replace('_', ' ')} {scores['mAP']:.4f}" for name, scores in sorted(baselines.items())]
    for kind, suffix in (("mean over tags", ""), ("all predictions together", "_pooled")):
        precision, recall, f1 = (metrics[name + suffix] for name in ("precision", "recall", "f1"))
        lines += [f"precision {precision:.4f}, recall {recall:.4f}, F1 {f1:.4f} ({kind})"]
    return "\n".join([*lines, f"page: {run / 'report.html'}"])


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
