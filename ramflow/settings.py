"""Typed parameters of every stage, and the only reader of params files.

A params file is YAML with a section a stage. What it leaves out has the default below, which is the published
RAM++ recipe (arXiv 2310.15200) where there is one. Unknown keys and wrong types are errors that name the key
(F24, F37).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ramflow.errors import UserError


class Section(BaseModel):
    """Base of all sections: strict types, no unknown keys, no changes after reading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ExpectedCounts(Section):
    """What one source is known to hold; a count left out is not compared."""

    records: int | None = Field(None, ge=0, description="records, with and without an image")
    captions: int | None = Field(None, ge=0, description="captions")
    tags: int | None = Field(None, ge=0, description="tags, over the union_label_id of all records")


class AuditSettings(Section):
    """What the audit accepts."""

    rare_below: int = Field(10, ge=1, description="a tag with fewer positive images is called rare")
    max_unusable_share: float = Field(0.02, ge=0, le=1, description="share of images that may be unreadable or missing")
    max_missing_tags_share: float = Field(0.1, ge=0, le=1, description="share of tags that may have no image at all")
    max_caption_words: int = Field(30, ge=1, description="longer captions are reported; upstream cuts at 30 words")
    shared_caption_records: int = Field(10, ge=2, description="a caption on as many images or more is reported")
    placeholder_records: int = Field(
        10, ge=2, description="one picture on as many records with as many captions is a placeholder: quarantined"
    )
    near_radius: int = Field(4, ge=0, le=16, description="images are near duplicates up to so many of 64 hash bits")
    min_image_side: int = Field(16, ge=1, description="smaller images, in pixels, are reported")
    max_image_pixels: int = Field(64_000_000, ge=1, description="larger images are decompression bombs: quarantined")
    max_aspect: float = Field(10.0, ge=1, description="longer images, long side over short side, are reported")
    dark_below: float = Field(12.0, ge=0, le=255, description="images of a lower mean grey, of 0 to 255, are dark")
    light_above: float = Field(250.0, ge=0, le=255, description="images of a higher mean grey, without dark, are light")
    blurred_below: float = Field(
        10.0, ge=0, description="images with less variance of the Laplacian, at 256 pixels, are blurred"
    )
    expected: dict[str, ExpectedCounts] = Field(
        default_factory=dict, description="counts by source, the name of the annotation file without .json"
    )
    max_count_deviation: float = Field(0.02, ge=0, le=1, description="share by which a count may differ from expected")
    max_drift: float = Field(0.1, ge=0, le=1, description="share by which a count may differ from the previous version")
    workers: int = Field(2, ge=1, le=256, description="processes that decode images")


def _one_place(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("one {} is expected, where the tag's name goes")
    return template


Template = Annotated[str, AfterValidator(_one_place)]


class EmbedSettings(Section):
    """How tags and captions become vectors."""

    batch: int = Field(256, ge=1, description="texts encoded at a time")
    templates: list[Template] = Field(
        default_factory=list,
        description="texts of every tag, each with one {} for its name, put before its descriptions; "
        "where nothing else is given: a photo of a {}.",
    )
    min_probe_cosine: float = Field(0.999, ge=0, le=1, description="least cosine of stored and fresh vectors")
    min_identity: float = Field(
        1.0, ge=0, le=1, description="least share of tags whose row is nearest to their own fresh or reference vector"
    )
    min_reference_cosine: float = Field(0.999, ge=0, le=1, description="least cosine of a row and the reference's")
    min_reference_correlation: float = Field(
        0.95, ge=0, le=1, description="least correlation of tag similarities with the reference's"
    )
    min_reference_neighbours: float = Field(
        0.9, ge=0, le=1, description="least share of a tag's 10 nearest tags that are the reference's"
    )


class VerifySettings(Section):
    """Which encoder the weights file is for, and what the probe expects of it."""

    encoder: str = Field("swin_large_patch4_window7_224", min_length=1, description="timm name of a Swin encoder")
    encoder_options: dict[str, Any] = Field(
        default_factory=dict, description="timm options that differ from the name's"
    )
    sha256: str = Field(
        "", pattern="^((sha256:)?[0-9a-fA-F]{64})?$", description="digest that the weights file must have; empty: any"
    )
    interpolate: bool = Field(
        False, description="take position tables to another window, bicubic; otherwise such a file is refused"
    )
    probe_images: int = Field(64, ge=8, description="images shown to the encoder, freshly initialised and loaded")
    min_probe_ratio: float = Field(
        1.6, ge=0, description="least figures of the probe's images, as multiples of a freshly initialised encoder's"
    )


class HeadSettings(Section):
    """Size of the tagging head; the defaults are the public model's."""

    hidden: int = Field(768, ge=8, description="width of the tag queries")
    layers: int = Field(2, ge=1, description="layers of cross-attention and feed-forward")
    heads: int = Field(4, ge=1, description="attention heads; they divide hidden")
    feed_forward: int = Field(3072, ge=8, description="width inside the feed-forward")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in attention and feed-forward")

    @model_validator(mode="after")
    def _divides(self) -> HeadSettings:
        if self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden: {self.heads} does not divide {self.hidden}")
        return self


class AugmentSettings(Section):
    """Training augmentation, the same for student and teacher (F17)."""

    min_scale: float = Field(0.2, gt=0, le=1, description="smallest crop, as a share of the image's area")
    flip: bool = Field(True, description="mirror half of the images")
    operations: int = Field(
        2, ge=0, le=8, description="RandAugment operations drawn an image, each carried out half of the time; 0: none"
    )
    magnitude: int = Field(5, ge=0, le=10, description="RandAugment strength out of 10")
    auto_contrast: Literal["correct", "public"] = Field(
        "correct", description="public: with the public code's wrap-around of bytes, which turns most views white"
    )


class BalanceSettings(Section):
    """How the three losses, each per image, are weighed against one another, whatever the batch (F15).

    Upstream sums tags and alignment over the images of a GPU and takes the mean of the distillation, so its mix
    follows its batch a GPU; ``batch`` is the one imitated. In every mode the alignment's negatives count as in such a
    batch.
    """

    mode: Literal["upstream", "fixed", "automatic"] = Field(
        "upstream",
        description="upstream: 1, 1, 1 / batch; fixed: the three weights below; automatic: they are where it starts, "
        "then the gradients of the three on the encoder are kept of one size, that of the tags",
    )
    batch: int = Field(52, ge=2, description="images a GPU of the upstream run that is imitated")
    tag: float = Field(1.0, ge=0, description="weight of the asymmetric loss over the tags, their sum, per image")
    alignment: float = Field(1.0, ge=0, description="weight of the asymmetric loss against captions, per image")
    distillation: float = Field(1.0, ge=0, description="weight of the mean absolute distance to the CLIP image feature")
    momentum: float = Field(
        0.95, ge=0, lt=1, description="automatic: how much of the old weights a measurement (monitor_every) leaves"
    )


class GuardSettings(Section):
    """When a step is left out, and when the run goes back to a checkpoint."""

    window: int = Field(100, ge=8, description="accepted steps that the limits are taken from")
    least: int = Field(50, ge=4, description="accepted steps before there is a limit")
    deviations: float = Field(
        12.0, gt=0, description="a loss or gradient norm so many (scaled) median absolute deviations above is a spike"
    )
    patience: int = Field(5, ge=1, description="steps left out in a row before the run goes back to a checkpoint")
    max_rewinds: int = Field(3, ge=0, description="times that a run goes back; then it stops")
    max_skipped_steps: int = Field(50, ge=0, description="steps that a run may leave out; then it stops")


class TrainSettings(Section):
    """The training run."""

    seed: int = Field(0, ge=0, description="seed of weights, order, augmentation and dropout")
    epochs: int = Field(5, ge=1, description="passes over the training split")
    batch: int = Field(416, ge=2, description="images an optimiser step, over all processes and micro-batches")
    micro_batch: int = Field(0, ge=0, description="images a process takes at a time; 0: all of its share of the batch")
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="of matrix products; losses stay float32")
    residual: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the stream between the encoder's layers; bfloat16 needs precision bfloat16"
    )
    tf32: bool = Field(False, description="float32 products on NVIDIA cards in TF32: 10 bits of fraction, not 23")
    compile: bool = Field(False, description="torch.compile the encoder; needs a C++ compiler on the CPU")
    recompute: Literal["none", "selective", "blocks"] = Field(
        "none",
        description="what the encoder computes again in the backward pass to save memory: nothing, what is cheap, or "
        "every block",
    )
    slice: int = Field(512, ge=1, description="tags that the head takes at a time")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes the GPU where there is one")
    learning_rate: float = Field(1e-4, gt=0, description="highest rate, after the warm-up, at learning_rate_batch")
    learning_rate_batch: int = Field(416, ge=1, description="the batch that learning_rate and the other rates are for")
    learning_rate_rule: Literal["constant", "square_root", "linear"] = Field(
        "square_root", description="how the rates follow batch / learning_rate_batch"
    )
    pretrained_share: float = Field(
        1.0, gt=0, le=1, description="rate of the encoder from verify, as a share of learning_rate; the rest has all"
    )
    warmup_learning_rate: float = Field(5e-7, ge=0, description="rate of the first step")
    min_learning_rate: float = Field(1e-6, ge=0, description="rate of the last step, at the end of the cosine")
    warmup_steps: int = Field(3000, ge=0, description="steps of linear warm-up, counted over the whole run")
    weight_decay: float = Field(0.05, ge=0, description="AdamW decay; none on norms, biases, tables and scale")
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm of a step")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the encoder")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="of a moving average of the weights, validated and kept beside them; 0: none"
    )
    missing_tags: Literal["mask", "smooth", "negative"] = Field(
        "mask", description="tags without images: no loss, smoothed negatives (label_smoothing), or negatives"
    )
    label_smoothing: float = Field(0.1, gt=0, lt=1, description="target of a missing tag where missing_tags is smooth")
    from_scratch: bool = Field(False, description="start from random encoder weights, on purpose")
    validate_every: int = Field(1000, ge=1, description="steps between validations; the last step always validates")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept while training")
    shuffle_shards: int = Field(
        64, ge=1, description="shards whose samples are mixed; a cache of s3:// shards holds twice as many"
    )
    max_skipped_share: float = Field(
        0.001, ge=0, le=1, description="share of samples that may turn out unreadable while training"
    )
    log_every: int = Field(10, ge=1, description="steps between rows of metrics.jsonl")
    monitor_every: int = Field(100, ge=1, description="steps between measurements of each loss; of log_every")
    workers: int = Field(8, ge=0, description="processes that decode images; 0 decodes in the trainer")
    head: HeadSettings = Field(default_factory=HeadSettings, description="the tagging head")
    augment: AugmentSettings = Field(default_factory=AugmentSettings, description="training augmentation")
    balance: BalanceSettings = Field(default_factory=BalanceSettings, description="weights of the losses")
    guard: GuardSettings = Field(default_factory=GuardSettings, description="spikes")

    @model_validator(mode="after")
    def _agree(self) -> TrainSettings:
        if self.residual == "bfloat16" and self.precision != "bfloat16":
            raise ValueError("residual bfloat16 needs precision bfloat16")
        if self.monitor_every % self.log_every:
            raise ValueError(f"monitor_every must be a multiple of log_every {self.log_every}")
        return self


class EvaluateSettings(Section):
    """How the test split is scored."""

    batch: int = Field(64, ge=1, description="images scored at a time")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes the GPU where there is one")
    max_unreadable_share: float = Field(
        0.0, ge=0, le=1, description="share of test images that may be unreadable"
    )
    min_ratio_to_frequency: float = Field(
        1.0, ge=0, description="least mAP, as a multiple of the tag-frequency baseline's"
    )


class ReportSettings(Section):
    """What the page shows."""

    title: str = Field("ramflow run", description="heading of the page")
    gallery: int = Field(24, ge=0, description="test images shown with true and predicted tags")
    tags: int = Field(12, ge=1, description="best and worst tags shown")


class Settings(Section):
    """All sections of a params file."""

    audit: AuditSettings = Field(default_factory=AuditSettings, description="data validation and tag audit")
    embed: EmbedSettings = Field(default_factory=EmbedSettings, description="tag and caption vectors")
    verify: VerifySettings = Field(default_factory=VerifySettings, description="pretrained weights")
    train: TrainSettings = Field(default_factory=TrainSettings, description="training")
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="benchmarks")
    report: ReportSettings = Field(default_factory=ReportSettings, description="the page")


def read_settings(params: str | Path | None, overrides: list[str] | None = None) -> Settings:
    """Read a params file and apply ``section.key=value`` overrides.

    Args:
        params: a YAML file, or its content as a JSON object (how a pipeline passes it), or None for the defaults.
        overrides: as given by ``--set``, each value read as YAML.

    Raises:
        UserError: no such file, not YAML, an unknown key or a value of the wrong type, named.
    """
    where, content = _load(params)
    for override in overrides or []:
        _apply(content, override)
    if overrides:
        where = f"{where} with --set" if where else "--set"
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error)}") from None


def _load(params: str | Path | None) -> tuple[str, dict[str, Any]]:
    if params is None:
        return "", {}
    inline = str(params).lstrip().startswith("{")
    where = "--params" if inline else str(params)
    try:
        text = str(params) if inline else Path(params).read_text(encoding="utf-8")
        content = json.loads(text) if inline else yaml.safe_load(text)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"no such params file: {params}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where} is not readable: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{where} is not a mapping of sections ({', '.join(Settings.model_fields)})")
    return where, content


def _apply(content: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.split(".")
    if not separator or len(keys) < 2 or not all(keys):
        raise UserError(f"--set {override}: section.key=value is expected, for example train.batch=64")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: the value is not readable as YAML") from None
    for key in keys[:-1]:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise UserError(f"--set {override}: {key} is not a section")
    content[keys[-1]] = value


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    value = first.get("input")
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}; the keys are listed by `ramflow settings`"
    if isinstance(value, str) and first["type"] in ("float_type", "int_type") and _is_number(value):
        return f"{key}: {value!r} is text, not a number; write {float(value)!r} (YAML wants a dot: 1.0e-4)"
    if first["type"] == "value_error" and isinstance(value, dict):
        return f"{key}: {first['msg'].removeprefix('Value error, ')}"
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {value!r}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
