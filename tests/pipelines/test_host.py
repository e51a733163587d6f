"""The local runner on loops: what kfp.local gets wrong by itself, planted in a small pipeline of shell commands."""

import pytest
from kfp import dsl

from pipelines.host import StageFailed, start


@dsl.container_component
def listed(text: str, items: dsl.OutputPath(list)):
    return dsl.ContainerSpec(
        image="none", command=["sh", "-c"], args=['mkdir -p "${1%/*}"; echo "$0" > "$1"', text, items]
    )


@dsl.container_component
def noted(item: str, among: list, file: str, copy: dsl.OutputPath(str)):
    script = 'test "$0" != bad || exit 4; echo "$0 of $1" >> "$2"; mkdir -p "${3%/*}"; printf %s "$0" > "$3"'
    return dsl.ContainerSpec(image="none", command=["sh", "-c"], args=[script, item, among, file, copy])


@dsl.container_component
def gathered(copies: list, file: str):
    return dsl.ContainerSpec(image="none", command=["sh", "-c"], args=['echo "$0" >> "$1"', copies, file])


@dsl.pipeline(name="loop")
def loop(text: str, file: str):
    items = listed(text=text).outputs["items"]
    others = listed(text='["x"]').outputs["items"]
    with dsl.ParallelFor(items, parallelism=2) as item:
        copy = noted(item=item, among=others, file=file).outputs["copy"]
    gathered(copies=dsl.Collected(copy), file=file)


def lines_of(tmp_path, text):
    start(tmp_path / "work")
    try:
        loop(text=text, file=str(tmp_path / "notes"))
    finally:
        lines = (tmp_path / "notes").read_text().splitlines()
    return lines


def test_every_item_has_its_turn_and_the_other_inputs_of_the_loop_are_what_they_are(tmp_path):
    assert lines_of(tmp_path, '["a", "b", "c"]') == ['a of ["x"]', 'b of ["x"]', 'c of ["x"]', '["a", "b", "c"]']
    copies = sorted((tmp_path / "work" / "loop").glob("for-loop-*/noted/copy"))
    assert [copy.read_text() for copy in copies] == ["a", "b", "c"]


def test_an_iteration_that_fails_ends_the_run(tmp_path):
    with pytest.raises(StageFailed, match="failed with exit code 4"):
        lines_of(tmp_path, '["a", "bad", "c"]')
    assert (tmp_path / "notes").read_text() == 'a of ["x"]\n'
