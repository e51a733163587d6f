"""Settings: every key is known and typed, or one line names it."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from ramflow.errors import UserError
from ramflow.settings import Section, Settings, read_settings


@pytest.fixture
def params(tmp_path):
    def write(text: str):
        path = tmp_path / "params.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def sections(model: type[BaseModel]):
    yield model
    for info in model.model_fields.values():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from sections(info.annotation)


def test_the_defaults_are_the_published_recipe():
    train = read_settings(None).train
    assert (train.epochs, train.batch, train.learning_rate, train.warmup_steps) == (5, 416, 1e-4, 3000)
    assert (train.weight_decay, train.warmup_learning_rate, train.augment.min_scale) == (0.05, 5e-7, 0.2)
    assert (train.head.hidden, train.head.layers, train.head.heads, train.head.feed_forward) == (768, 2, 4, 3072)
    assert (train.balance.mode, train.balance.batch, train.learning_rate_batch) == ("upstream", 52, 416)


def test_every_parameter_says_what_it_is_and_has_a_default():
    for section in sections(Settings):
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"
            assert not info.is_required(), f"{section.__name__}.{name}"


def test_a_file_an_object_and_set_say_the_same(params):
    text = "train:\n  batch: 8\n  learning_rate: 1.0e-3\n  head: {layers: 1}\naudit:\n  rare_below: 3\n"
    train = {"batch": 8, "learning_rate": 1e-3, "head": {"layers": 1}}
    inline = json.dumps({"train": train, "audit": {"rare_below": 3}})
    single = ["train.batch=8", "train.learning_rate=0.001", "train.head.layers=1", "audit.rare_below=3"]
    assert read_settings(params(text)) == read_settings(inline) == read_settings(None, single)
    assert read_settings(params(text)).train.epochs == Settings().train.epochs


def test_set_comes_after_the_file(params):
    settings = read_settings(params("train: {batch: 8, epochs: 2}"), ["train.batch=16", "train.from_scratch=true"])
    assert (settings.train.batch, settings.train.epochs, settings.train.from_scratch) == (16, 2, True)


def test_an_empty_file_is_the_defaults(params):
    assert read_settings(params("")) == read_settings(params("# nothing\n")) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: {learning_rate: 1e-4}", "train.learning_rate: '1e-4' is text, not a number; write 0.0001"),
        ("train: {batch: '52'}", "train.batch: '52' is text, not a number"),
        ("train: {batch_size: 52}", "unknown key train.batch_size"),
        ("training: {batch: 52}", "unknown key training"),
        ("train: {head: {depth: 3}}", "unknown key train.head.depth"),
        ("train: {batch: 52.5}", "train.batch: input should be a valid integer"),
        ("train: {batch: yes}", "train.batch: input should be a valid integer, not True"),
        ("train: {from_scratch: 'no'}", "train.from_scratch: input should be a valid boolean, not 'no'"),
        ("train: {batch: 0}", "train.batch: input should be greater than or equal to 2, not 0"),
        ("train: {learning_rate: .nan}", "train.learning_rate: input should be"),
        ("train: {learning_rate: .inf}", "train.learning_rate: input should be"),
        ("train: {precision: float16}", "train.precision: input should be 'float32' or 'bfloat16', not 'float16'"),
        ("train: {head: 3}", "train.head: "),
        ("train:", "train: "),
        ("- train", "is not a mapping of sections (audit, embed, verify, train, evaluate, report)"),
        ("train", "is not a mapping of sections"),
        ("train: {batch: [", "is not readable: "),
        ("train: !!python/object/apply:os.system ['true']", "is not readable: "),
    ],
)
def test_a_bad_file_is_one_line_that_names_it_and_the_key(params, text, says):
    path = params(text)
    with pytest.raises(UserError) as refused:
        read_settings(path)
    assert str(refused.value).startswith(str(path)) and says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("batch=3", "section.key=value is expected"),
        ("train.batch", "section.key=value is expected"),
        (".batch=3", "section.key=value is expected"),
        ("train.batch=[", "not readable as YAML"),
        ("train.batch.size=3", "batch is not a section"),
        ("train.batch=many", "train.batch: input should be a valid integer, not 'many'"),
        ("train.batches=3", "unknown key train.batches"),
    ],
)
def test_a_bad_override_is_one_line(params, override, says):
    with pytest.raises(UserError) as refused:
        read_settings(params("train: {batch: 8}"), [override])
    assert says in str(refused.value)


def test_no_such_file(tmp_path):
    for path in (tmp_path, tmp_path / "gone.yaml"):
        with pytest.raises(UserError, match="no such params file"):
            read_settings(path)
    with pytest.raises(UserError, match="--params is not readable"):
        read_settings('{"train": ')
