"""Texts through CLIP's text half: batches of one length, each distinct text once, against the plain way, in turns.

The plain way pads every text to the model's limit and goes by the file: a tag's 51 descriptions at a time, captions as
they come. Of both only some batches are timed, evenly spread; the whole is arithmetic: texts times seconds a text.
"""

from __future__ import annotations

from benchmarks.embedding_rates import BATCH, DESCRIPTIONS, KINDS, SIDES, TAGS, Rates
from benchmarks.figures import Figure, Options
from benchmarks.measure import ROOT, Run, run_function
from benchmarks.packed import packed
from benchmarks.synthetic import SOURCES, synthetic

MILLION = 1_000_000
TEXTS = {"sample": 4096, "vit_b_16": 512}
"""Texts timed at full scale, by text model."""
LEAST_SCALE = 0.01
"""Below it the large model is left out: some seconds a batch."""
MODELS = {"sample": "the sample's CLIP", "vit_b_16": "a text model of ViT-B/16's size"}
AGAINST = "padded to the limit, in the file's order"


def run(options: Options) -> list[Figure]:
    """Texts a second of descriptions and of captions with both text models, and the memory of a million captions."""
    data = packed(synthetic(options.work, min(options.scale, MILLION / sum(source.texts for source in SOURCES))))
    models = {"sample": str(ROOT / "sample" / "models" / "clip")}
    if options.scale >= LEAST_SCALE:
        models["vit_b_16"] = _model(options, "vit-b-16", 512, 12)
    out = options.work / "embedded"
    whole = run_function("benchmarks.embedding_rates:embed", str(data), _model(options, "thin", 64, 1), str(out))
    figures = []
    for name, folder in models.items():
        timed = max(BATCH, round(TEXTS[name] * min(1.0, options.scale)))
        measured: dict[str, list[Rates]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side in SIDES:
                call = ("benchmarks.embedding_rates:rates", side, folder, str(data), timed, options.scale)
                measured[side].append(run_function(*call).result)
        for texts in KINDS:
            ours, plain = ([rates[texts] for rates in measured[side]] for side in SIDES)
            figures.append(_rate_figure(texts, name, ours, plain))
    return [*figures, _memory_figure(whole)]


def _model(options: Options, name: str, hidden: int, layers: int) -> str:
    """The folder of a text model of some size with random weights, made in a process of its own."""
    folder = options.work / name
    if not (folder / "tokenizer.json").is_file():
        clip = str(ROOT / "sample" / "models" / "clip")
        run_function("benchmarks.embedding_rates:write_model", str(folder), clip, hidden, layers)
    return str(folder)


def _rate_figure(texts: str, model: str, ours: list[dict[str, float]], plain: list[dict[str, float]]) -> Figure:
    total = TAGS * DESCRIPTIONS if texts == "descriptions" else MILLION
    hours = [total / side[-1]["rate"] / 3600 for side in (ours, plain)]
    return Figure(
        f"embedding.{texts}.{model}", f"{texts} through {MODELS[model]}", "a second",
        [r["rate"] for r in ours], [r["rate"] for r in plain], AGAINST, True,
        note=f"{total:,} of them {hours[0]:.2g} h against {hours[1]:.2g} h, by arithmetic; tokens a text "
             f"{ours[-1]['tokens']:.1f} against {plain[-1]['tokens']:.0f}, {ours[-1]['distinct']:.0%} of the texts "
             f"distinct; timed {ours[-1]['texts']:.0f} and {plain[-1]['texts']:.0f} texts",
    )  # fmt: skip


def _memory_figure(whole: Run) -> Figure:
    result = whole.result
    return Figure(
        "embedding.captions.memory", f"all vectors of {result['captions'] / 1e6:.3g} M captions, 512 wide, memory",
        "GiB", [whole.memory / 2**30], limit=1.5,
        note=f"a text model of one layer; {result['before'] / 2**30:.2f} GiB before the first caption; "
             f"{whole.wall:.0f} s, {result['rate']:.0f} captions a second; with the mapped file, which the machine can "
             f"take back, {whole.maxrss / 2**30:.2f} GiB",
    )  # fmt: skip
