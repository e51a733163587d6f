"""The pipeline ``ramflow``: the stages, names, parameters and wiring of dvc.yaml as Kubeflow Pipelines tasks.

One stage is more than a task: shards are audited in ranges, many at a time, and the task ``audit`` concludes from all.

``python -m pipelines.pipeline`` compiles it to ``pipelines/ramflow.yaml``. The defaults of its parameters are the
sections of params.yaml as JSON text, one parameter a stage: whole numbers stay whole, and a stage is keyed by its own.
"""

import json
from pathlib import Path

import yaml
from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineArtifactChannel

from components.audit.component import audit
from components.audit_part.component import audit_part
from components.embed.component import embed
from components.evaluate.component import evaluate
from components.report.component import report
from components.shards.component import shards
from components.train.component import train
from components.verify.component import verify

ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "pipelines" / "ramflow.yaml"
AUDIT_PARTS_AT_ONCE = 16
"""Each pod reads its shards whole, 16 GiB at the defaults: more of them would wait for the storage, not for cores."""
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def section(name: str) -> str:
    """One section of params.yaml, as ``--params`` takes it."""
    return json.dumps({name: PARAMS[name]})


def _task(component: BaseComponent, name: str | None = None, **inputs: object) -> dsl.PipelineTask:
    """A new task; never taken from the cache, as the content behind an address may have changed."""
    return component(**inputs).set_caching_options(False).set_display_name(name or component.name)


def _run(component: BaseComponent, name: str | None = None, **inputs: object) -> PipelineArtifactChannel:
    """The output of a new task that is a stage."""
    return _task(component, name, **inputs).outputs["out"]


def _audited(params: str, data: str, shards_per_task: int) -> PipelineArtifactChannel:
    """The output of the audit, of which every task but the last sees one range of shards."""
    ranges = _task(shards, data=data, per_task=shards_per_task).outputs["ranges"]
    with dsl.ParallelFor(ranges, name="audit-parts", parallelism=AUDIT_PARTS_AT_ONCE) as shard_range:
        part = _run(audit_part, params=params, data=data, shard_range=shard_range)
    return _run(audit, params=params, data=data, parts=dsl.Collected(part))


@dsl.pipeline(name="ramflow", description="Train a RAM++ image tagger, each gate passed before the next stage starts.")
def ramflow(
    data: str = "data",
    descriptions: str = "sample/descriptions.json",
    clip: str = "sample/models/clip",
    weights: str = "sample/models/swin/model.safetensors",
    audit_params: str = section("audit"),
    embed_params: str = section("embed"),
    verify_params: str = section("verify"),
    train_params: str = section("train"),
    evaluate_params: str = section("evaluate"),
    report_params: str = section("report"),
    shards_per_task: int = 64,
) -> None:
    """The stages in their order; a task's display name is the stage's name in dvc.yaml."""
    audited = _audited(audit_params, data, shards_per_task)
    vectors = _run(embed, params=embed_params, data=data, audit=audited, descriptions=descriptions, clip=clip)
    encoder = _run(verify, params=verify_params, weights=weights, data=data, embed=vectors)
    ready = {"data": data, "audit": audited, "embed": vectors, "verify": encoder}
    trained = _run(train, params=train_params, clip=clip, **ready)
    scratch = _run(train, "scratch", params=train_params, override="train.from_scratch=true", clip=clip, **ready)
    scored = _run(evaluate, params=evaluate_params, data=data, audit=audited, train=trained, scratch=scratch)
    _run(report, params=report_params, train=trained, scratch=scratch, evaluate=scored, **ready)


def compile_to(path: Path) -> None:
    """Write the compiled pipeline."""
    compiler.Compiler().compile(ramflow, str(path))


if __name__ == "__main__":
    compile_to(COMPILED)
