"""Opening the packed set and reading one record, and what a further loader process costs, against lists of dicts."""

from __future__ import annotations

from benchmarks.figures import Figure, Options
from benchmarks.measure import run_function, warm
from benchmarks.packed import packed
from benchmarks.synthetic import synthetic


def run(options: Options) -> list[Figure]:
    """Seconds to the first record, and memory of a further loader process."""
    made = synthetic(options.work, options.scale)
    data = packed(made)
    files = list(map(str, made.files))
    warm(*made.files, *(path for path in data.iterdir() if path.suffix != ".tar"))
    opens, loads, processes = [], [], []
    for _ in range(options.rounds):
        opens.append(run_function("benchmarks.opening:open_and_read", str(data)))
        loads.append(run_function("benchmarks.today:count", *files))
        processes.append(run_function("benchmarks.opening:further_process", str(data)).result)
    records = opens[0].result["records"]
    today = run_function("benchmarks.today:loader_process", *files).result
    what = f"{records / 1e6:.3g} M records"
    return [
        Figure("dataset.open", f"opening {what} and reading one, from the start of the process", "s",
               [r.wall for r in opens], [r.wall for r in loads], "json.load", limit=1.0,
               note=f"of it, opening and reading {max(r.result['seconds'] for r in opens):.2f} s, imports "
                    f"{max(r.result['imports'] for r in opens):.2f} s; also reading its captions "
                    f"{max(r.result['captions'] for r in opens):.2f} s"),
        Figure("dataset.open_memory", f"opening {what} and reading one, memory", "MiB",
               [r.memory / 2**20 for r in opens], [r.memory / 2**20 for r in loads], "json.load"),
        Figure("dataset.process", f"each further loader process at {what} adds", "MB",
               [p["bytes"] / 1e6 for p in processes], [today["bytes"] / 1e6] * options.rounds,
               "list of dicts, after reading every record", limit=25.0,
               note=f"{max(p['dirty'] for p in processes) / 1e6:.1f} MB of it dirty; today "
                    f"{today['bytes'] / today['records']:.0f} bytes a record, measured once"),
    ]  # fmt: skip
