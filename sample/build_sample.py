"""Builds ramflow's sample: about 2,000 public-domain pictures with people's keywords, in upstream's JSON format.

    .venv/bin/python sample/build_sample.py --openclipart /usr/share/openclipart --out sample

Needs the Debian packages openclipart-svg (metadata) and openclipart-png (pictures). The same packages and the same seed
give the same files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import PIL
from choose import SPLITS, Tagger, candidates, choose_missing, choose_pictures, choose_tags, describe
from openclipart import Picture, fingerprint, load_rgb, png_file, read_collection

Records = dict[str, list[dict[str, Any]]]  # split: records of upstream's annotation format

LONG_SIDE, QUALITY = 160, 80
PACKAGES = ("openclipart-svg", "openclipart-png")


class UserError(Exception):
    """Something the person who started the script can put right; shown as one line."""


def write_json(path: Path, value: object, indent: int | None = None) -> None:
    """Write JSON in UTF-8 with a final newline, making the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def write_image(png: Path, jpeg: Path) -> int:
    """Write one picture as JPEG and return its size in bytes."""
    jpeg.parent.mkdir(parents=True, exist_ok=True)
    load_rgb(png, LONG_SIDE).save(jpeg, quality=QUALITY, optimize=True)
    return jpeg.stat().st_size


def fingerprints(root: Path, paths: list[str], workers: int) -> dict[str, tuple[str, str]]:
    """(sha256, perceptual hash) of every picture that can be decoded."""
    with ProcessPoolExecutor(workers) as pool:
        found = pool.map(fingerprint, (png_file(root, path) for path in paths), chunksize=16)
        return {path: value for path, value in zip(paths, found, strict=True) if value is not None}


def pool_paths(prints: dict[str, tuple[str, str]], chosen: dict[str, list[str]]) -> tuple[list[str], int]:
    """What is left for training the models: no look-alike of a validation or test picture; and how many of those."""
    held = [path for split in ("validation", "test") for path in chosen[split]]
    files, looks = ({prints[path][part] for path in held} for part in (0, 1))
    sample = {path for paths in chosen.values() for path in paths}
    rest = [path for path in prints if path not in sample]
    clear = [path for path in rest if prints[path][0] not in files and prints[path][1] not in looks]
    return clear, len(rest) - len(clear)


def twins(prints: dict[str, tuple[str, str]], chosen: dict[str, list[str]]) -> dict[str, int]:
    """Sample pictures whose file is, byte for byte, also another's: within the sample, and across train and test."""
    digests = {split: [prints[path][0] for path in paths] for split, paths in chosen.items()}
    counts = Counter(digest for split in digests.values() for digest in split)
    train = set(digests["train"])
    return {
        "pictures_that_repeat_another": sum(counts.values()) - len(counts),
        "test_pictures_also_in_train": sum(digest in train for digest in digests["test"]),
        "validation_pictures_also_in_train": sum(digest in train for digest in digests["validation"]),
    }


def package_versions() -> dict[str, str]:
    """Versions of the Debian packages, "unknown" where dpkg does not know them."""
    command = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *PACKAGES]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    except OSError:
        lines = []
    return dict.fromkeys(PACKAGES, "unknown") | dict(line.split(" ", 1) for line in lines)


def tag_figures(tags: list[str], records: Records) -> dict[str, object]:
    """Pictures a tag in every split, what is empty, and the score of a ranking that knows nothing."""
    counts = {split: Counter(i for r in rows for i in r["union_label_id"]) for split, rows in records.items()}
    everywhere = sum(counts.values(), Counter())
    test, tests = counts["test"], len(records["test"])
    return {
        "tags_without_pictures": [tag for i, tag in enumerate(tags) if not everywhere[i]],
        "tags_without_test_pictures": [tag for i, tag in enumerate(tags) if everywhere[i] and not test[i]],
        "fewest_train_pictures_of_a_tag": min(counts["train"][i] for i in everywhere),
        "tags_a_picture": round(sum(everywhere.values()) / sum(map(len, records.values())), 3),
        "test_pictures_with_a_tag": sum(bool(r["union_label_id"]) for r in records["test"]) / tests,
        "frequency_baseline_test_map": round(sum(test.values()) / len(test) / tests, 5),
        "pictures_a_tag": {t: [counts[s][i] for s in SPLITS] for i, t in enumerate(tags)},
    }


def write_annotations(
    out: Path, tagger: Tagger, pictures: dict[str, Picture], chosen: dict[str, list[str]]
) -> Records:
    """Write one JSON list a split and return the records."""
    records = {split: [tagger.record(pictures[path]) for path in paths] for split, paths in chosen.items()}
    for split, rows in records.items():
        write_json(out / "annotations" / f"openclipart_{split}_ram.json", rows)
    return records


def write_descriptions(out: Path, tags: list[str], pictures: list[Picture], seed: int) -> int:
    """Write the tags' descriptions, taken from pictures outside the sample; return their number."""
    rows = [{tag: describe(tag, [p for p in pictures if tag in p.keywords], seed)} for tag in tags]
    write_json(out / "descriptions.json", rows, indent=1)
    return sum(len(texts) for row in rows for texts in row.values())


def write_images(root: Path, out: Path, paths: list[str]) -> int:
    """Write the sample's pictures in place of any older ones; return the bytes of all."""
    shutil.rmtree(out / "images" / "openclipart", ignore_errors=True)
    return sum(write_image(png_file(root, path), out / "images" / "openclipart" / f"{path}.jpg") for path in paths)


def build(root: Path, out: Path, seed: int, workers: int) -> dict[str, object]:
    """Build everything under `out` and return the figures that `sample.json` records."""
    collection = {picture.path: picture for picture in read_collection(root)}
    if not collection:
        raise UserError(f"--openclipart {root}: no picture in svg/ and png/; install {' and '.join(PACKAGES)}")
    prints = fingerprints(root, [p.path for p in collection.values() if p.free], workers)
    offered = [p for p in candidates(collection.values(), seed) if p.path in prints]
    tags = choose_tags(offered)
    tagger = Tagger(tags)
    labels = {picture.path: tagger.union(picture) for picture in offered}
    missing = choose_missing(tags, labels, seed)
    chosen = choose_pictures(labels, missing, seed)
    pool, lookalikes = pool_paths(prints, chosen)

    records = write_annotations(out, tagger, collection, chosen)
    (out / "tags.txt").write_text("\n".join(tags), encoding="utf-8")
    (out / "pool.txt").write_text("\n".join(pool) + "\n", encoding="utf-8")
    sample = sorted(path for paths in chosen.values() for path in paths)
    return {
        "seed": seed,
        "packages": package_versions(),
        "pillow": PIL.__version__,
        "collection": {"pictures": len(collection), "gpl": sum(not p.free for p in collection.values()),
                       "with_keywords": sum(bool(p.keywords) for p in collection.values()), "decoded": len(prints)},
        "pictures": {split: len(rows) for split, rows in records.items()},
        "image_bytes": write_images(root, out, sample),
        "tags": len(tags),
        "missing_tags": [tags[index] for index in missing],
        "descriptions": write_descriptions(out, tags, [collection[path] for path in pool], seed),
        "untagged": sum(not r["union_label_id"] for rows in records.values() for r in rows),
        "empty_titles": sum(not r["caption"][0] for rows in records.values() for r in rows),
        "same_bytes": twins(prints, chosen),
        "pool": {"pictures": len(pool), "left_out_as_lookalikes_of_validation_or_test": lookalikes},
    } | tag_figures(tags, records)


def main() -> int:
    """Read the arguments, build, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--openclipart", type=Path, default=Path("/usr/share/openclipart"), help="with svg/ and png/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=18, help="seed of every choice (default: 18)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode pictures (default: 2)")
    arguments = parser.parse_args()
    try:
        figures = build(arguments.openclipart, arguments.out, arguments.seed, arguments.workers)
    except (UserError, OSError) as error:
        print(f"build_sample: {error}", file=sys.stderr)
        return 2
    write_json(arguments.out / "sample.json", figures, indent=1)
    print(json.dumps({key: value for key, value in figures.items() if key != "pictures_a_tag"}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
