"""A working copy of the repository that DVC and the local runner can be let loose on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components.small import ROOT


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of a person who has activated .venv, with DVC's own files out of the way."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DVC_SITE_CACHE_DIR": str(tmp_path_factory.mktemp("dvc"))}


@pytest.fixture(scope="session")
def working_copy(tmp_path_factory, environment):
    """All that git has or would add, in a new git repository, without data and runs."""
    place = tmp_path_factory.mktemp("copy") / "ramflow"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)
    return place


@pytest.fixture(scope="session")
def run_in(environment):
    """``run_in(directory, program, argument, ...)``: the finished process, its output as text."""

    def run(directory, *command):
        return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)

    return run
