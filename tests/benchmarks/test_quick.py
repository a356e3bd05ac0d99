"""The benchmarks run, and say what they left out; how fast anything is, no test asks."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loopback import PATIENCE

pytestmark = pytest.mark.no_cover  # figures would be those of coverage
ROOT = Path(__file__).parents[2]
ALWAYS = {"lmdeck, sync", "lmdeck, async", "sockets + msgspec, sync", "sockets + msgspec, async"}
HEADS = {"client", "process", "what grows"}
NEEDS = {"httpx2 + msgspec": "httpx2", "openai-python": "openai"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """One quick run: what it printed, and the figures it wrote."""
    figures = tmp_path_factory.mktemp("bench") / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "--quick", "--json", figures]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE * 10).stdout
    return printed, json.loads(figures.read_text())


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]


def test_every_table_has_a_row_for_lmdeck_and_for_sockets(run):
    printed, _ = run
    clients = [row[0] for row in rows(printed)]
    assert clients.count("client") == (4 if Path("/proc/self/status").exists() else 3)
    assert all(clients.count(client) >= 2 for client in ALWAYS)


def test_every_row_is_as_wide_as_its_head(run):
    printed, _ = run
    width = 0
    for row in rows(printed):
        width = len(row) if row[0] in HEADS else width
        assert len(row) == width
        assert all(cell for cell in row if row[0].startswith(("lmdeck", "sockets")))


def test_a_client_that_is_not_installed_is_named(run):
    printed, _ = run
    for client, package in NEEDS.items():
        for way in ("sync", "async"):
            assert (f"SKIPPED {client}, {way}" in printed) == (importlib.util.find_spec(package) is None)


def test_the_json_has_a_figure_for_each_round(run):
    _, figures = run
    streamed, asked, paced = figures["jobs"]
    assert set(streamed["rounds"]) >= ALWAYS
    assert set(asked["rounds"]) >= ALWAYS
    assert all(client.endswith(", async") for client in paced["rounds"])
    assert all(len(values) == 1 and values[0] >= 0 for job in figures["jobs"] for values in job["rounds"].values())
    assert figures["about"]["lmdeck"]


def test_many_streams_at_once_are_all_right(tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / "streams.py", "--streams", "40", "--json", figures]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE * 10)
    measured = json.loads(figures.read_text())
    assert measured["right"] == measured["streams"] == 40


def test_many_browsers_at_once_are_all_served(tmp_path):
    pytest.importorskip("fastapi")
    if not Path("/proc/self/stat").exists():
        pytest.skip("NO /proc: the site's CPU time cannot be read")
    figures = tmp_path / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / "browsers.py", "--clients", "10", "--json", figures]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE * 10)
    measured = json.loads(figures.read_text())
    assert measured["complete"] == measured["clients"] == 10


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


def test_starts_and_growth_are_part_of_the_run(run):
    printed, figures = run
    assert {"Python", "LMStudio()", "first token, async"} <= figures["starts"].keys()
    assert all(len(row) > 1 for row in figures["growth"].values())
    assert "**Starts**" in printed
    assert "**Growth**" in printed


def test_a_run_is_compared_with_a_kept_one_and_what_is_worse_is_named(run, tmp_path):
    _, figures = run
    slower = json.loads(json.dumps(figures))
    slower["starts"]["LMStudio()"] *= 3
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(figures))
    new.write_text(json.dumps(slower))
    command = [sys.executable, ROOT / "benchmarks" / "compare.py"]
    told = subprocess.run([*command, new, old], capture_output=True, text=True, check=True).stdout
    warnings = [line for line in told.splitlines() if "to the last kept run" in line]
    assert len(warnings) == 1
    assert "LMStudio()" in warnings[0]
    assert "Nothing is worse" in subprocess.run([*command, old, old], capture_output=True, text=True, check=True).stdout
