"""Where the time of an answer goes: stacks sampled by CPU time, drawn as flame graphs, and as tables.

Answers of the stub are read for some seconds of CPU: whole ones, streamed ones, and 64 streams at once. The width of a box is
the share of the samples in which the function ran, itself or through those above it. A table has the lines of lmdeck in which
most of the time is spent: each sample counts for the line of lmdeck that ran, or that called what ran.
"""

from __future__ import annotations

import linecache
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from types import FrameType

import lmdeck
from measure import STREAMS, Running
from results import Box, Line, Profile

PACKAGE = Path(lmdeck.__file__).parent
MAX_LINES = 10
INTERVAL = 0.001
WIDTH, ROW, LEAST = 1200, 18, 0.004  # pixels, pixels, share of a box that is drawn
COLORS = {"lmdeck": "#7aa6da", "urllib3": "#e0a458", "aiohttp": "#e0a458", "http": "#d9c27c", "socket": "#c47ac0"}
PARSING = "#8cc98c"
# Each step with the packages that do it; what remains is the standard library below them.
STEPS = {
    "build and check the request, choose the model, encode JSON": ("lmdeck._client", "lmdeck._requests", "lmdeck.config"),
    "queue, retries, events": ("lmdeck._pipeline", "lmdeck._event_bus"),
    "connections, HTTP framing, sockets, time limits": (
        "lmdeck._transport", "urllib3", "aiohttp", "http", "email", "socket", "ssl", "yarl", "multidict",
    ),
    "the event loop": ("asyncio", "selectors"),
    "decode events and JSON; chunks, figures, reply": (
        "lmdeck._streaming", "lmdeck._responses", "lmdeck.messages", "lmdeck.stats", "lmdeck.events", "msgspec",
    ),
    "look for reasoning, calls and markup in the text": ("lmdeck._parsing",),
}  # fmt: skip
REST = "the caller, and the standard library below these"


def measured(sync: Running, paced: Running, seconds: float, chunks: int) -> Iterator[Profile]:
    """Yield the profiles of the three kinds of answers; none where there is no timer of CPU time."""
    if not hasattr(signal, "setitimer"):
        return
    yield profiled("whole", "A whole answer of 500 characters", lambda: sync.ask(1), seconds)
    yield profiled("stream", "A stream of 200 chunks, each written alone", lambda: sync.stream_singly(200), seconds)
    title = f"{STREAMS} async streams at once, 100 chunks a second each"
    yield profiled("paced", title, lambda: paced.stream_many(chunks), seconds)


def profiled(name: str, title: str, action: Callable[[], object], seconds: float) -> Profile:
    """Return where the time of an action goes, sampled for some seconds of CPU."""
    stacks: Counter[tuple[str, ...]] = Counter()
    lines: Counter[tuple[str, int]] = Counter()

    def take_sample(_: int, frame: FrameType | None) -> None:
        names = []
        if line := line_of(frame):
            lines[line] += 1
        while frame is not None and frame.f_code is not profiled.__code__:
            names.append(name_of(frame))
            frame = frame.f_back
        stacks[tuple(reversed(names))] += 1

    action()
    before = signal.signal(signal.SIGPROF, take_sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    until = time.process_time() + seconds
    while time.process_time() < until:
        action()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
    packages: Counter[str] = Counter()
    root = Box("all")
    for stack, count in stacks.items():
        packages[package_of(stack[-1]) if stack else "all"] += count
        box = root
        box.samples += count
        for each in stack:
            box = box.inner.setdefault(each, Box(each))
            box.samples += count
    without_small(root, root.samples)
    return Profile(name, title, root, dict(packages), [described(*each) for each in lines.most_common(MAX_LINES)])


def without_small(box: Box, total: int) -> None:
    """Remove the boxes that are too narrow to be drawn."""
    box.inner = {name: inner for name, inner in box.inner.items() if inner.samples >= total * LEAST}
    for inner in box.inner.values():
        without_small(inner, total)


def line_of(frame: FrameType | None) -> tuple[str, int] | None:
    """Return file and number of the innermost line of lmdeck in a stack."""
    while frame is not None:
        if PACKAGE in Path(frame.f_code.co_filename).parents:
            return frame.f_code.co_filename, frame.f_lineno or frame.f_code.co_firstlineno
        frame = frame.f_back
    return None


def described(line: tuple[str, int], samples: int) -> Line:
    """Return a line with its code."""
    file, number = line
    return Line(f"{Path(file).relative_to(PACKAGE)}:{number}", linecache.getline(file, number).strip(), samples)


def name_of(frame: FrameType) -> str:
    """Return module and function of a frame."""
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"


def package_of(name: str) -> str:
    """Return the package of a function; of lmdeck, the room in it."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "lmdeck" else first


def step_shares(profile: Profile) -> dict[str, float]:
    """Return the share of each step, largest first."""
    total = sum(profile.packages.values())
    step_of = {package: step for step, packages in STEPS.items() for package in packages}
    shares: Counter[str] = Counter()
    for package, samples in profile.packages.items():
        shares[step_of.get(package, REST)] += samples
    return {step: samples / total for step, samples in shares.most_common() if samples >= total / 200}


def boxes(box: Box, total: int, left: float = 0.0, depth: int = 0) -> Iterator[tuple[Box, float, int]]:
    """Yield each box, its left edge as a share, and its depth."""
    for inner in sorted(box.inner.values(), key=lambda each: -each.samples):
        yield inner, left, depth
        yield from boxes(inner, total, left, depth + 1)
        left += inner.samples / total


def color(name: str) -> str:
    """Return the color of a box by its package."""
    if name.startswith(("lmdeck._parsing", "lmdeck._streaming")):
        return PARSING
    return COLORS.get(name.partition(".")[0], "#bbbbbb")


def draw(profile: Profile) -> str:
    """Return the picture as SVG."""
    root = profile.root
    placed = list(boxes(root, root.samples))
    height = ROW * (max((depth for *_, depth in placed), default=0) + 2)
    title = escape(f"{profile.title}: {root.samples:,} samples")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/><text x="4" y="13" fill="#000000">{title}</text>',
    ]
    for box, left, depth in placed:
        share = box.samples / root.samples
        x, y, width = left * WIDTH, ROW * (depth + 1), share * WIDTH
        letters = int((width - 6) / 6.7)
        shown = box.name.removeprefix("lmdeck.")
        label = shown if len(shown) <= letters else shown.rpartition(".")[2][:letters]
        lines.append(
            f'<g><title>{escape(box.name)} {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.5):.1f}" '
            f'height="{ROW - 1}" fill="{color(box.name)}"/>'
            f'<text x="{x + 3:.1f}" y="{y + 13}" fill="#000000">{escape(label) if letters > 2 else ""}</text></g>'
        )
    return "\n".join([*lines, "</svg>\n"])
