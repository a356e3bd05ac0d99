"""The checks of the project: `nox -l` lists them, `nox -s short-3.13` runs one; `make test` runs lint, types and tests."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# What needs no browser, no engine and no server from a system package: enough to find what a Python version changed.
SHORT = [
    "tests/agent", "tests/client", "tests/files", "tests/parsing", "tests/pipeline", "tests/shape", "tests/streaming",
    "tests/tools", "tests/transport", "tests/values",
]  # fmt: skip

# Half of the time a test waits for a server, a browser or a process: two workers for each core keep it busy.
WORKERS = 2 * (os.cpu_count() or 1)

# The reading of answers: its own tests run every line and every branch of it.
CORE = [
    "lmdeck._parsing",
    "lmdeck._responses.figures",
    "lmdeck._responses.logprobs",
    "lmdeck._responses.model_names",
    "lmdeck._streaming",
]
CORE_TESTS = ["tests/dialects", "tests/laws", "tests/parsing", "tests/streaming"]
CORE_COVERAGE = 100

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False


def install(session: nox.Session, *arguments: str) -> None:
    """Install into the session's environment; with `--no-venv` the current one is used as it is."""
    if session.virtualenv.venv_backend != "none":
        session.install(*arguments)


def run_tests(session: nox.Session, *arguments: str) -> None:
    """Run tests in several processes."""
    session.run("python", "-m", "pytest", "-n", str(WORKERS), "--dist", "worksteal", *arguments)


def run_short(session: nox.Session) -> None:
    """Run the short set, or the tests that are named after `--`."""
    run_tests(session, *(session.posargs or SHORT))


def run_measured(session: nox.Session, *arguments: str) -> None:
    """Run tests with coverage, without those that only repeat the same lines."""
    run_tests(session, "-m", "not live and not no_cover", "--cov-report=term", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Check lint rules and layout."""
    install(session, "--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "--editable", ".[all]", "--group", "dev")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test that needs no LM Studio."""
    install(session, "--editable", ".[all]", "--group", "dev")
    run_tests(session, *session.posargs)


@nox.session
def core(session: nox.Session) -> None:
    """Run the tests of the reading of answers with coverage, and its gate."""
    install(session, "--editable", ".[all]", "--group", "dev")
    measured = [f"--cov={package}" for package in CORE]
    run_measured(session, *measured, f"--cov-fail-under={CORE_COVERAGE}", *(session.posargs or CORE_TESTS))


@nox.session
def coverage(session: nox.Session) -> None:
    """Run every test with coverage of everything, and its gate; this takes a third longer than `tests`."""
    install(session, "--editable", ".[all]", "--group", "dev")
    run_measured(session, "--cov=lmdeck", *session.posargs)


@nox.session(python=PYTHONS)
def short(session: nox.Session) -> None:
    """Run the tests that depend on nothing but Python, on each version that is installed."""
    install(session, "--editable", ".[all]", "--group", "dev")
    run_short(session)


@nox.session
@nox.parametrize("version", ["5.2", "6.0", "6.1"], ids=["5.2", "6.0", "6.1"])
def django(session: nox.Session, version: str) -> None:
    """Run Django's tests with one of the supported versions."""
    install(session, "--editable", ".[all]", "--group", "dev", f"django~={version}.0")
    session.run("python", "-m", "pytest", "tests/contrib/django", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure lmdeck beside other clients, and compare the ratios with the last kept run; a missed bound only warns."""
    install(session, "--editable", ".[all]", "--group", "bench")
    session.run("python", "benchmarks/run.py", "--json", "bench.json", "--html", "bench.html")
    session.run("python", "benchmarks/compare.py", "bench.json")


@nox.session
def frameworks(session: nox.Session) -> None:
    """Run the tests of other clients in Python and JavaScript with the real packages; none may be missing."""
    install(session, "--editable", ".[all]", "--group", "frameworks")
    session.run(
        "npm", "install", "--no-package-lock", "--no-audit", "--prefix", "tests/frameworks/javascript", external=True
    )
    session.run(
        "python", "-m", "pytest", "tests/frameworks", "tests/contrib/test_openai_client.py", "--junitxml",
        "clients.xml", *session.posargs,
        env={"LMDECK_ALL_FRAMEWORKS": "1"},
    )  # fmt: skip


@nox.session
def ray(session: nox.Session) -> None:
    """Run the tests of batches on Ray, with a cluster of two nodes on this machine.

    Ray's processes take minutes to start, answer and notice a killed node, so this is a job of its own in CI.
    """
    install(session, "--editable", ".[cli,ray,testing]", "--group", "ray")
    session.run(
        "python", "-m", "pytest", "--confcutdir=tests/on_ray", "tests/on_ray", *session.posargs, env={"LMDECK_RAY": "1"}
    )


@nox.session(venv_backend="uv", python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the short set with the lowest versions of the direct dependencies that `pyproject.toml` allows."""
    session.install("--resolution", "lowest-direct", "--editable", ".[all]", "--group", "dev")
    run_short(session)


@nox.session(venv_backend="uv", python="3.11")
def newest(session: nox.Session) -> None:
    """Run the short set with the newest versions, pre-releases included."""
    session.install("--upgrade", "--prerelease", "allow", "--editable", ".[all]", "--group", "dev")
    run_short(session)


@nox.session(venv_backend="uv", python="3.11")
def locked(session: nox.Session) -> None:
    """Run the short set with the versions in constraints.txt, as a contributor can install them."""
    session.install("--constraint", "constraints.txt", "--editable", ".[all]", "--group", "dev")
    run_short(session)


@nox.session(venv_backend="none")
def lock(session: nox.Session) -> None:
    """Write constraints.txt: the newest versions for all platforms, without the address of a package index."""
    groups = [part for name in ("dev", "docs", "bench", "package") for part in ("--group", name)]
    session.run(
        "uv", "pip", "compile", "pyproject.toml", "--all-extras", *groups, "--universal", "--python-version", "3.11",
        "--upgrade", "--no-annotate", "--no-emit-index-url", "--quiet", "--output-file", "constraints.txt",
        "--custom-compile-command", "nox -s lock",
        external=True,
    )  # fmt: skip


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in site/; a broken link is an error."""
    install(session, "--editable", ".[all]", "--group", "docs")
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and source distribution, check them, and use the wheel in a bare environment."""
    install(session, "--group", "package")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", "dist")
    distributions = sorted(str(path) for path in (ROOT / "dist").iterdir())
    session.run("twine", "check", "--strict", *distributions)
    bare = Path(session.create_tmp()) / "bare"
    session.run("python", "-m", "venv", "--clear", str(bare))
    python = str(next(path for path in (bare / "bin" / "python", bare / "Scripts" / "python.exe") if path.exists()))
    wheel = next(name for name in distributions if name.endswith(".whl"))
    session.run(python, "-m", "pip", "install", "--quiet", wheel, external=True)
    session.run(python, "-c", "import lmdeck; print(lmdeck.__version__, lmdeck.parse('Hello.').content)", external=True)
    names = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    missing = [name for name in names if shutil.which(name, path=str(Path(python).parent)) is None]
    if missing:
        session.error(f"The wheel installs no command {', '.join(missing)}.")
