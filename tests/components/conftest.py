"""Components run alone, one after another, by the local runner: each on what the one before it made."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from pipelines import local
from tests.components.small import CLIP, PARAMS, WEIGHTS, write_descriptions


def load(stage):
    """The component of a stage."""
    return getattr(import_module(f"components.{stage}.component"), stage)


def run_alone(component: BaseComponent, root: Path, params: dict | None = None, **inputs: Path) -> Path:
    """Run one component with files as its artifacts and addresses; returns its output."""
    name = component.name
    kinds = component.component_spec.inputs

    @dsl.pipeline(name=f"alone-{name}")
    def alone():
        given = {"params": json.dumps({name: PARAMS[name] | (params or {})})}
        for key, path in inputs.items():
            given[key] = str(path)
            if kinds[key].type != "String":
                kind = dsl.Model if kinds[key].type.startswith("system.Model") else dsl.Artifact
                given[key] = dsl.importer(artifact_uri=str(path), artifact_class=kind).output
        component(**given)

    local.start(root)
    alone()
    return root / f"alone-{name}" / name / "out"


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("components")


@pytest.fixture(scope="session")
def audited(root, tiny_data):
    return run_alone(load("audit"), root, data=tiny_data)


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
