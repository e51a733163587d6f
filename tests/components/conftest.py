"""Components run alone, one after another, by the local runner: each on what the one before it made."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from pipelines.host import start
from tests.components.small import CLIP, PARAMS, WEIGHTS, write_descriptions


def load(name):
    """The component in the folder ``name``."""
    return getattr(import_module(f"components.{name}.component"), name)


def run_alone(component: BaseComponent, root: Path, params: dict | None = None, **inputs) -> Path:
    """Run one component with files as its artifacts and addresses, a list of them as a list; returns its output."""
    name = component.name
    stage = name.removesuffix("-part")
    kinds = component.component_spec.inputs

    @dsl.pipeline(name=f"alone-{name}")
    def alone():
        given = {"params": json.dumps({stage: PARAMS[stage] | (params or {})})} if "params" in kinds else {}
        for key, value in inputs.items():
            if isinstance(value, list):
                with dsl.ParallelFor([str(path) for path in value]) as path:
                    part = dsl.importer(artifact_uri=path, artifact_class=dsl.Artifact)
                given[key] = dsl.Collected(part.output)
            elif kinds[key].type.startswith("system."):
                kind = dsl.Model if kinds[key].type.startswith("system.Model") else dsl.Artifact
                given[key] = dsl.importer(artifact_uri=str(value), artifact_class=kind).output
            else:
                given[key] = str(value) if isinstance(value, Path) else value
        component(**given)

    start(root)
    alone()
    return root / f"alone-{name}" / name / next(iter(component.component_spec.outputs))


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("components")


@pytest.fixture(scope="session")
def ranges(root, tiny_data):
    """What the shards of the shared pictures are cut into, two a task."""
    return json.loads(run_alone(load("shards"), root, data=tiny_data, per_task=2).read_text())


@pytest.fixture(scope="session")
def parts(root, tiny_data, ranges):
    places = [(root / f"part-{number}", shard_range) for number, shard_range in enumerate(ranges)]
    return [run_alone(load("audit_part"), place, data=tiny_data, shard_range=r) for place, r in places]


@pytest.fixture(scope="session")
def audited(root, tiny_data, parts):
    return run_alone(load("audit"), root, data=tiny_data, parts=parts)


@pytest.fixture(scope="session")
def embedded(root, tiny_data, audited):
    descriptions = write_descriptions(root / "descriptions.json")
    return run_alone(load("embed"), root, data=tiny_data, audit=audited, descriptions=descriptions, clip=CLIP)


@pytest.fixture(scope="session")
def verified(root, tiny_data, embedded):
    return run_alone(load("verify"), root, data=tiny_data, embed=embedded, weights=WEIGHTS)


@pytest.fixture(scope="session")
def trained(root, tiny_data, audited, embedded, verified):
    return run_alone(
        load("train"), root, data=tiny_data, audit=audited, embed=embedded, verify=verified, clip=CLIP
    )


@pytest.fixture(scope="session")
def evaluated(root, tiny_data, audited, trained):
    """Scored against itself as the baseline: the wiring is what is looked at."""
    return run_alone(load("evaluate"), root, data=tiny_data, audit=audited, train=trained, scratch=trained)


@pytest.fixture(scope="session")
def reported(root, tiny_data, audited, embedded, verified, trained, evaluated):
    return run_alone(
        load("report"), root, data=tiny_data, audit=audited, embed=embedded, verify=verified, train=trained,
        scratch=trained, evaluate=evaluated,
    )  # fmt: skip
