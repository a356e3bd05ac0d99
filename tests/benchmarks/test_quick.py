"""The benchmarks run, and say what they left out; how fast anything is, no test asks."""

import html.parser
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loopback import PATIENCE

# Figures would be those of coverage; and a busy machine takes minutes for them.
pytestmark = [pytest.mark.no_cover, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
RUN = [sys.executable, ROOT / "benchmarks" / "run.py", "--quick"]
ALWAYS = {"lmdeck, sync", "lmdeck, async", "sockets + msgspec, sync", "sockets + msgspec, async"}
HEADS = {"client", "by"}
NEEDS = {"httpx2 + msgspec": "httpx2", "openai-python": "openai"}
HAS_PROC = Path("/proc/self/status").exists()
HAS_PROF_TIMER = hasattr(signal, "setitimer")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict, str]:
    """One quick run: what it printed, the figures that it wrote, and its report."""
    folder = tmp_path_factory.mktemp("bench")
    command = [*RUN, "--json", folder / "figures.json", "--html", folder / "report.html"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE * 28).stdout
    return printed, json.loads((folder / "figures.json").read_text()), (folder / "report.html").read_text()


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]


def test_every_client_is_measured_at_every_job(run):
    _, figures, _ = run
    known = {each["name"]: each["rounds"] for each in figures["figures"]}
    for job in ("chunk", "tool", "request"):
        assert known[job].keys() >= ALWAYS
    assert all(client.endswith(", async") for client in known["paced"])
    assert {"Python", "LMStudio()", "lmdeck first token, async"} <= known["start"].keys()
    assert known["fake request"].keys() == {"lmdeck's fake", "Starlette + uvicorn"}
    if HAS_PROC:
        assert {"lmdeck", "sockets + msgspec"} <= known["open"].keys()
        assert {"lmdeck, Django", "lmdeck, FastAPI", "lmdeck, Flask"} <= known["page"].keys()
    assert figures["about"]["lmdeck"]
    assert [each["name"] for each in figures["profiles"]] == ["whole", "stream", "paced"] * HAS_PROF_TIMER


def test_every_round_has_a_figure(run):
    _, figures, _ = run
    for each in figures["figures"]:
        assert all(len(rounds) == 1 for rounds in each["rounds"].values())
    for growth in figures["growth"]:
        assert all(len(curve) > 1 for curve in growth["curves"].values())
    assert {growth["name"] for growth in figures["growth"]} >= {
        "answer",
        "tools",
        "messages",
        "handlers",
        "chunks",
        "streams",
    }


def test_every_row_is_as_wide_as_its_head_and_has_its_ratios_first(run):
    printed, _, _ = run
    width = 0
    for row in rows(printed):
        width = len(row) if row[0] in HEADS else width
        assert len(row) == width
        if row[0] == "client" and len(row) > 3:
            assert row[1].startswith("to ")
    assert "**Growth**" in printed


def test_progress_is_shown(run):
    printed, _, _ = run
    assert "[1 of 16] chunk" in printed
    assert "[16 of 16] growth: streams" in printed


def test_a_client_that_is_not_installed_is_named(run):
    printed, _, _ = run
    for client, package in NEEDS.items():
        for way in ("sync", "async"):
            assert (f"SKIPPED {client}, {way}" in printed) == (importlib.util.find_spec(package) is None)


def test_the_report_shows_every_job_and_needs_nothing_from_elsewhere(run):
    _, figures, report = run
    seen = {"h3": [], "addresses": [], "svg": 0}

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            self.tag = tag
            seen["svg"] += tag == "svg"
            assert tag not in {"script", "link", "img", "iframe"}
            seen["addresses"] += [value for name, value in attributes if name in {"src", "href", "xlink:href"}]

        def handle_data(self, data):
            if getattr(self, "tag", None) == "h3" and data.strip():
                seen["h3"].append(data)

    Reader().feed(report)
    titles = [each["title"] for each in [*figures["figures"], *figures["growth"], *figures["profiles"]]]
    assert seen["h3"] == titles
    assert seen["svg"] >= len(titles) - 3  # a quick run may find no memory to draw
    assert all(address.startswith("#") for address in seen["addresses"])
    assert "prefers-color-scheme: dark" in report


def test_a_job_is_measured_alone():
    printed = subprocess.run(
        [*RUN, "--only", "growth: handlers"], capture_output=True, text=True, check=True, timeout=PATIENCE * 10
    ).stdout
    assert "[1 of 1] growth: handlers" in printed


def test_the_parser_is_measured_beside_another_checkout(tmp_path):
    """Each row has the figures of both."""
    figures = tmp_path / "parser.json"
    command = [sys.executable, ROOT / "benchmarks" / "parser.py", "--quick", "--beside", ROOT, "--json", figures]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    assert "before | now" in printed
    written = json.loads(figures.read_text())
    assert {row["table"] for row in written} == {"growth of parse", "growth of send", "µs a delta"}
    for row in written:
        times = row["seconds"] if "seconds" in row else [[value] for value in row["microseconds"]]
        assert len(times) == 2
        assert all(value > 0 for known in times for value in known)


def test_a_run_is_compared_with_a_kept_one_and_what_is_worse_is_named(run, tmp_path):
    _, figures, _ = run
    slower = json.loads(json.dumps(figures))
    starts = next(each for each in slower["figures"] if each["name"] == "start")
    starts["rounds"]["LMStudio()"][0] *= 3
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(figures))
    new.write_text(json.dumps(slower))
    command = [sys.executable, ROOT / "benchmarks" / "compare.py"]
    told = subprocess.run([*command, new, old], capture_output=True, text=True, check=True).stdout
    warnings = [line for line in told.splitlines() if "to the last kept run" in line]
    assert warnings
    assert all("LMStudio()" in warning for warning in warnings)
    assert "Nothing is worse" in subprocess.run([*command, old, old], capture_output=True, text=True, check=True).stdout


def test_the_documents_have_the_figures_of_the_last_kept_run():
    """Nobody writes figures by hand: `benchmarks/report.py` writes them from the run that is kept."""
    command = [sys.executable, ROOT / "benchmarks" / "report.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


def test_only_a_whole_run_is_kept():
    done = subprocess.run([*RUN, "--keep"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "whole run" in done.stderr


def test_the_last_kept_run_can_be_read():
    kept = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert kept
    command = [sys.executable, ROOT / "benchmarks" / "compare.py", kept[-1]]
    assert "Nothing is worse" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
