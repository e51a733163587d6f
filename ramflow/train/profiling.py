"""Where the time of a step goes, for ``ramflow train --profile``; where it is off it costs nothing.

On a GPU phases are timed there, by events between kernels: the host does not wait for them, so that what is measured is
the step as it is. A phase of the host, such as waiting for data, is timed by its clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from ramflow.train.cards import Products, card_of

WARM_UP = 2
"""Steps that are not counted: they choose kernels, take memory and compile."""
OFF: AbstractContextManager[None] = nullcontext()
PEAK_SIDE, PEAK_ROUNDS = 1024, 5
"""Of the matrix product that measures what a machine without a table entry can do."""


@dataclass(frozen=True)
class Expected:
    """What arithmetic says of a step, to stand beside what was measured; see ``arithmetic.expected``."""

    flops: Mapping[str, float]
    """FLOPs an image by phase."""
    utilisation: float
    """Share of the peak that is expected of these products."""
    memory: float
    """GiB at most."""
    products: Products


class StepProfile:
    """Times phases of steps; phases do not nest."""

    def __init__(self, device: torch.device, on: bool = True, warm_up: int = WARM_UP) -> None:
        """Begin; the first ``warm_up`` steps are not counted."""
        self.device, self.on, self.warm_up = device, on, warm_up
        self.steps = 0
        self._images = 0
        self._spans: list[tuple[str, float | tuple[torch.cuda.Event, torch.cuda.Event]]] = []
        self._inside = False
        self._start = time.perf_counter()

    def phase(self, name: str, host: bool = False) -> AbstractContextManager[None]:
        """Within the block is the phase ``name``; ``host``: timed by the host's clock on every device."""
        if not self.on:
            return OFF
        return self._by_clock(name) if host or self.device.type != "cuda" else self._by_events(name)

    def step_done(self, images: int) -> None:
        """A step of ``images`` images of this process is begun and will end by itself."""
        if not self.on:
            return
        self.steps += 1
        self._images += images
        if self.steps == self.warm_up:
            self._synchronize()
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            self._spans.clear()
            self._images = 0
            self._start = time.perf_counter()

    def milliseconds(self) -> dict[str, float]:
        """By phase, a counted step, in the order in which they came first; ``rest``: what is in none; ``step``: all.

        Waits for the device.
        """
        self._synchronize()
        whole = time.perf_counter() - self._start
        counted = max(1, self.steps - self.warm_up)
        result: dict[str, float] = {}
        for name, span in self._spans:
            ms = 1000 * span if isinstance(span, float) else span[0].elapsed_time(span[1])
            result[name] = result.get(name, 0.0) + ms / counted
        step = 1000 * whole / counted
        return {**result, "rest": max(0.0, step - sum(result.values())), "step": step}

    def table(self, expected: Expected) -> str:
        """The table that ``--profile`` prints; call it right after the last step."""
        times = self.milliseconds()
        images = self._images / max(1, self.steps - self.warm_up)
        name, peak = device_peak(self.device, expected.products)
        flops = {phase: images * n for phase, n in expected.flops.items()}
        flops["step"] = sum(flops.values())
        lines = [
            f"{max(0, self.steps - self.warm_up)} steps of {images:g} images on {name}: "
            f"{peak / 1e12:.3g} TFLOP/s {expected.products}",
            f"{'phase':24}{'ms':>10}{'share':>8}{'TFLOP/s':>10}{'of peak':>9}{'expected ms':>13}",
        ]
        for phase, ms in times.items():
            line = f"{phase:24}{ms:10.2f}{ms / times['step']:8.1%}"
            if flops.get(phase) and ms:
                rate = flops[phase] / ms * 1000
                goal = 1000 * flops[phase] / (peak * expected.utilisation)
                line += f"{rate / 1e12:10.3g}{rate / peak:9.1%}{goal:13.2f}"
            lines.append(line)
        lines.append(f"expected: at {expected.utilisation:.0%} of the peak, nothing but matrix products")
        lines.append(f"{1000 * images / times['step']:.4g} images/s a process; {self._memory(expected.memory)}")
        return "\n".join(lines)

    def _memory(self, expected: float) -> str:
        if self.device.type != "cuda":
            return "memory is measured on GPUs"
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30
        whole = torch.cuda.get_device_properties(self.device).total_memory / 2**30
        return f"memory at most {peak:.1f} of {whole:.1f} GiB, {expected:.1f} by arithmetic"

    @contextmanager
    def _by_clock(self, name: str) -> Iterator[None]:
        self._enter(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._inside = False
            self._spans.append((name, time.perf_counter() - start))

    @contextmanager
    def _by_events(self, name: str) -> Iterator[None]:
        self._enter(name)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        try:
            yield
        finally:
            self._inside = False
            end.record()
            self._spans.append((name, (start, end)))

    def _enter(self, name: str) -> None:
        assert not self._inside, f"phase {name} within another"
        self._inside = True

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def device_peak(device: torch.device, products: Products) -> tuple[str, float]:
    """Name and peak FLOP/s of a device: of the table of cards, or of a large matrix product measured here."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        card = card_of(name, torch.cuda.get_device_properties(device).total_memory / 2**30)
        if card:
            return f"{name}, peak", card.peak(products)
        return f"{name}, measured by a product", measured_peak(device, products)
    return f"{torch.get_num_threads()} CPU threads, measured by a product", measured_peak(device, products)


def measured_peak(device: torch.device, products: Products) -> float:
    """FLOP/s of the fastest of some products of square matrices."""
    dtype = torch.bfloat16 if products == "bfloat16" else torch.float32
    side = PEAK_SIDE * (8 if device.type == "cuda" else 1)
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(PEAK_ROUNDS):
        profile = StepProfile(device, warm_up=0)
        with profile.phase("product"):
            a @ a
        best = min(best, profile.milliseconds()["product"])
    return 2 * side**3 / best * 1000
