"""Small runs of the public recipe, really trained: a plain sum of three losses, its console, log.txt and checkpoint.

The encoder is a tiny Swin on pictures of shapes. What stands for the ImageNet file was trained on their kinds; what
stands for CLIP's image features is a projection of that encoder's class token, scaled so that predicting the mean
gives a loss_dis of 0.28, as with CLIP's. Tags, descriptions and widths are small, the number of tags is not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ramflow.model.encoder import Swin
from ramflow.model.losses import Wanted
from ramflow.model.ram_plus import RamPlus
from ramflow.settings import HeadSettings
from tests.conftest import COLOURS, SHAPES, draw

ENCODER = "swin_tiny_patch4_window7_224"
OPTIONS = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]}
WIDTH, COPIES = 16, 17  # of each of 3 descriptions: 51 rows a tag, and the same softmax as of 3
IMAGES, RATE, FLOOR = 416, 1e-3, 0.28

CONSOLE_HEAD = """| distributed init (rank 0, word 1): env://
Creating dataset
number of training samples: {images}
Creating pretrained CLIP model
Creating RAM model
{loading}/encoder/layer/0/crossattention/self/query is tied
Start training
"""
LOADING = """### Load Vision Backbone swin_l
missing_keys:  ['layers.0.blocks.1.attn_mask']
unexpected_keys:  ['head.weight', 'head.bias']
"""
UPSTREAM_NAMES = (
    ("reweighting.scale", "reweight_scale"),
    ("image_projection.", "image_proj."),
    ("head.project.", "wordvec_proj."),
    ("head.logit.", "fc."),
    (".attention.output.", ".crossattention.output.dense."),
    (".attention.", ".crossattention.self."),
    (".attention_norm.", ".crossattention.output.LayerNorm."),
    (".expand.", ".intermediate.dense."),
    (".contract.", ".output.dense."),
    (".output_norm.", ".output.LayerNorm."),
    ("head.layers.", "tagging_head.encoder.layer."),
)


@dataclass
class Data:
    """Images [n, 3, 32, 32], the tags of each, one caption vector each [n, width] and CLIP's features [n, width]."""

    images: Tensor
    tags: list[list[int]]
    captions: Tensor
    teacher: Tensor


@dataclass
class RunFiles:
    """What a user has of a run."""

    console: Path
    log: Path
    checkpoint: Path


def pictures(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normalised pictures of shapes [IMAGES, 3, 32, 32], moved, mirrored and tinted, and the kind of each [IMAGES]."""
    rng = torch.Generator().manual_seed(seed)
    drawn = [draw(s, c, n).resize((40, 40)) for n in range(4) for s in SHAPES for c in COLOURS]
    base = torch.stack([torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255 for picture in drawn])
    which = torch.randint(len(base), (IMAGES,), generator=rng)
    at = torch.randint(0, 9, (IMAGES, 2), generator=rng).tolist()
    images = torch.stack([base[k][:, y : y + 32, x : x + 32] for k, (y, x) in zip(which.tolist(), at, strict=True)])
    images = (images - 0.5) / 0.25 + 0.5 * torch.randn(IMAGES, 3, 1, 1, generator=rng)
    return images, which % (len(SHAPES) * len(COLOURS))


def pretrained(seed: int = 0, steps: int = 60) -> Swin:
    """The tiny encoder after telling the kinds of pictures apart: what stands for ImageNet's."""
    torch.manual_seed(seed)
    encoder, images_and_kinds = Swin(ENCODER, OPTIONS).train(), pictures(99)
    images, kinds = images_and_kinds
    head = nn.Linear(encoder.width, int(kinds.max()) + 1)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for step in range(steps):
        rows = torch.arange(step * 64, step * 64 + 64) % IMAGES
        loss = functional.cross_entropy(head(encoder(images[rows])[:, 0]), kinds[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder.eval()


def data(teacher_of: Swin, tags: int, seed: int = 0) -> Data:
    """Pictures with about 10.8 tags of ``tags`` each, of which some follow from what is seen."""
    images, kinds = pictures(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        seen = torch.cat([teacher_of(part)[:, 0] for part in images.split(104)])
    seen = seen @ torch.linalg.svd(seen - seen.mean(0), full_matrices=False).Vh[:WIDTH].T
    seen = (seen - seen.mean(0)) / seen.std(0)
    teacher = seen @ torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=rng)).Q
    teacher = teacher * FLOOR / (teacher - teacher.mean(0)).abs().mean()
    often = torch.rand(int(kinds.max()) + 1, tags, generator=rng).argsort()[:, :10]
    ids = [sorted({*often[kind].tolist(), (7 * n) % tags}) for n, kind in enumerate(kinds)]
    captions = functional.normalize(teacher + 0.1 * torch.randn(IMAGES, WIDTH, generator=rng), dim=-1)
    return Data(images, ids, captions, teacher)


@dataclass
class Recipe:
    """What a run is made with; ``base`` None: the encoder's weights were read and never loaded."""

    base: Swin | None
    batch: int = 52
    tags: int = 4585
    epochs: int = 2
    seed: int = 1

    @property
    def steps(self) -> int:
        return IMAGES // self.batch


class Trainer:
    """The public recipe on one process: batch sums of loss_tag and loss_alignment, plus the mean loss_dis."""

    def __init__(self, recipe: Recipe, data: Data) -> None:
        self.recipe, self.data = recipe, data
        torch.manual_seed(recipe.seed)
        encoder = Swin(ENCODER, OPTIONS)
        if recipe.base:
            encoder.load_state_dict(recipe.base.state_dict())
        self.embeddings = functional.normalize(torch.randn(recipe.tags, 3, WIDTH), dim=-1)
        head = HeadSettings(hidden=8, layers=1, heads=1, feed_forward=16, dropout=0.0)
        self.model = RamPlus(encoder, head, self.embeddings, torch.ones(recipe.tags, 3, dtype=torch.bool))
        self.model.head.project.reset_parameters()  # as the public code: PyTorch's default
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.05)

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        recipe, data = self.recipe, self.data
        targets = torch.zeros(len(rows), recipe.tags, dtype=torch.bool)
        for row, sample in enumerate(rows.tolist()):
            targets[row, data.tags[sample]] = True
        ids = torch.arange(1, len(rows) + 1)  # as the public code: equal captions are not known as such
        valid = torch.ones(len(rows), dtype=torch.bool)
        wanted = Wanted(targets, data.teacher[rows], valid, ids, data.captions[rows], ids)
        tokens = self.model.tokens(data.images[rows])
        losses = self.model.losses(tokens, wanted, torch.ones(recipe.tags, dtype=torch.bool))
        sums = {"loss_tag": losses.tag, "loss_alignment": losses.alignment}
        return {"loss_dis": losses.distillation / len(rows), **sums}

    def step(self, epoch: int, step: int, order: Tensor) -> dict[str, float]:
        recipe = self.recipe
        done = epoch * recipe.steps + step
        rate = RATE * min(1.0, (done + 1) / 10) * 0.9**epoch
        self.optimiser.param_groups[0]["lr"] = rate
        losses = self.losses(order[(torch.arange(recipe.batch) + step * recipe.batch) % IMAGES])
        self.optimiser.zero_grad()
        sum(losses.values()).backward()
        self.optimiser.step()
        return {"lr": rate, **{name: loss.item() for name, loss in losses.items()}}

    def files(self, folder: Path) -> RunFiles:
        """Train, and write what the public code writes: console, log.txt, and the last epoch's checkpoint."""
        recipe = self.recipe
        folder.mkdir()
        console = [CONSOLE_HEAD.format(images=IMAGES, loading=LOADING if recipe.base else "")]
        log = []
        for epoch in range(recipe.epochs):
            order = torch.randperm(IMAGES)
            rows = [self.step(epoch, step, order) for step in range(recipe.steps)]
            console += [_row(epoch, step, recipe.steps, row) for step, row in enumerate(rows)]
            means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
            console.append("Averaged stats: " + "  ".join(f"{name}: {mean:.4f}" for name, mean in means.items()) + "\n")
            rounded = {f"train_{name}": f"{mean:.3f}" for name, mean in means.items()}
            log.append(json.dumps({**rounded, "epoch": epoch}) + "\n")
        files = RunFiles(folder / "console.txt", folder / "log.txt", folder / f"checkpoint_{recipe.epochs - 1:02d}.pth")
        files.console.write_text("".join(console))
        files.log.write_text("".join(log))
        config = {"vit": "swin_l", "image_size": 32, "batch_size": recipe.batch, "init_lr": RATE, "warmup_steps": 10}
        saved = {"model": self.state(), "optimizer": self.optimiser.state_dict(), "config": config}
        torch.save({**saved, "epoch": recipe.epochs - 1}, files.checkpoint)
        return files

    def state(self) -> dict[str, Tensor]:
        """The state dict under the public code's names, with the tag embeddings in it."""
        rows = self.embeddings.repeat_interleave(COPIES, dim=1).flatten(0, 1)
        return {upstream_name(key): value for key, value in self.model.state_dict().items()} | {"label_embed": rows}


def upstream_name(key: str) -> str:
    """The public code's name of a parameter."""
    if key.startswith("encoder.swin."):
        return "visual_encoder." + microsoft_name(key.removeprefix("encoder.swin."))
    for ours, theirs in UPSTREAM_NAMES:
        key = key.replace(ours, theirs)
    return key


def microsoft_name(key: str) -> str:
    """Microsoft's name of a tensor of timm's Swin."""
    parts = key.split(".")
    if parts[0] == "layers" and parts[2] == "downsample":
        parts[1] = str(int(parts[1]) - 1)
    return ".".join(parts)


def save_swin(encoder: Swin, path: Path) -> Path:
    """The encoder as Microsoft's file."""
    torch.save({"model": {microsoft_name(key): value for key, value in encoder.swin.state_dict().items()}}, path)
    return path


def _row(epoch: int, step: int, steps: int, values: dict[str, float]) -> str:
    figures = "  ".join(f"{name}: {value:.{6 if name == 'lr' else 4}f}" for name, value in values.items())
    width = len(str(steps))
    return (
        f"Train Epoch: [{epoch}]  [{step:{width}d}/{steps}]  eta: 0:00:{steps - step:02d}  {figures}  time: 0.2101  "
        "data: 0.0103  max mem: 36012\n"
    )
