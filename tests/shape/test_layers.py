"""The layers: a module imports from its own or a lower one, and the pure ones do no I/O."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
LAYERS: dict[str, int] = {
    # values
    "lmdeck._arguments": 0,
    "lmdeck._chunks": 0,
    "lmdeck._compatibility": 0,
    "lmdeck._event_bus": 0,
    "lmdeck._late_patterns": 0,
    "lmdeck._limits": 0,
    "lmdeck._questions": 0,
    "lmdeck._redaction": 0,
    "lmdeck._secret": 0,
    "lmdeck._settings": 0,
    "lmdeck._text": 0,
    "lmdeck._version": 0,
    "lmdeck.config": 0,
    "lmdeck.decisions": 0,
    "lmdeck.errors": 0,
    "lmdeck.events": 0,
    "lmdeck.images": 0,
    "lmdeck.messages": 0,
    "lmdeck.model_info": 0,
    "lmdeck.native_events": 0,
    "lmdeck.outputs": 0,
    "lmdeck.stats": 0,
    # what a request and an answer mean
    "lmdeck._parsing": 1,
    "lmdeck.tools": 1,
    "lmdeck._agent": 2,
    "lmdeck._encoders": 2,
    "lmdeck._requests": 2,
    "lmdeck._responses": 2,
    "lmdeck._streaming": 2,
    # how they travel, and what is stored
    "lmdeck._files": 3,
    "lmdeck._forking": 3,
    "lmdeck._incoming": 3,
    "lmdeck._native_threads": 3,
    "lmdeck._pipeline": 3,
    "lmdeck._sqlite": 3,
    "lmdeck._transport": 3,
    "lmdeck._usage_store": 3,
    "lmdeck.cache": 3,
    # what a client does
    "lmdeck": 4,
    "lmdeck._client": 4,
    "lmdeck._facade": 4,
    "lmdeck._plans": 4,
    "lmdeck._recordings": 4,
    "lmdeck.batch": 4,
    "lmdeck.handlers": 4,
    "lmdeck.relay": 4,
    # edges
    "lmdeck.__main__": 5,
    "lmdeck.cli": 5,
    "lmdeck.contrib": 5,
    "lmdeck.engine": 5,
    "lmdeck.gateway": 5,
    "lmdeck.observe": 5,
    "lmdeck.server": 5,
    "lmdeck.testing": 5,
    "lmdeck.web": 5,
}
PURE = (
    "lmdeck._agent",
    "lmdeck._encoders",
    "lmdeck._parsing",
    "lmdeck._pipeline",
    "lmdeck._requests",
    "lmdeck._responses",
    "lmdeck._streaming",
    "lmdeck.tools",
)
MOST_LEVELS = 14
DRIVERS = {"lmdeck._pipeline.run_plan"}  # the one place where a plan meets the clock
OUTSIDE = {
    "aiohttp", "anyio", "asyncio", "concurrent", "ftplib", "http", "httpx", "multiprocessing", "queue", "requests", "sched",
    "select", "selectors", "signal", "socket", "socketserver", "ssl", "subprocess", "threading", "time", "trio",
    "urllib.request", "urllib3",
}  # fmt: skip


def name_of(path: Path) -> str:
    """Return a file's module name."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(SRC.rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module; each file is parsed once."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def nodes_run_by_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs while a module is imported: not the bodies of functions, nor what is for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not is_for_type_checkers(child):
            yield child
            yield from nodes_run_by_import(child)


@cache
def imports_of(module: str, *, late: bool = True) -> frozenset[str]:
    """Return every module that a file imports; with `late`, also inside functions and for type checkers only."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)) if late else nodes_run_by_import(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in whole}
    return frozenset(found)


def layer_of(module: str) -> int | None:
    """Return the layer of a module: its own, or its package's."""
    while module != "lmdeck" and module not in LAYERS:
        module = module.rpartition(".")[0]
        if not module or module == "lmdeck":
            return None
    return LAYERS.get(module)


def test_every_module_has_a_layer() -> None:
    """A new module of the root needs a place in the table."""
    assert [module for module in MODULES if layer_of(module) is None] == []


def test_no_module_imports_from_a_higher_layer() -> None:
    """The table above is an order."""
    higher = {
        f"{module} imports {name}"
        for module in MODULES
        for name in imports_of(module)
        if name.split(".")[0] == "lmdeck" and (layer_of(name) or 0) > (layer_of(module) or 0)
    }
    assert not higher


def test_a_pure_module_opens_no_socket_starts_no_thread_and_reads_no_clock() -> None:
    """It is given what it needs to know."""
    outside = {
        f"{module} imports {name}"
        for module in MODULES
        if layer_of(module) == 0 or module.startswith(PURE)
        for name in imports_of(module)
        if {name, name.split(".")[0]} & OUTSIDE and not (module in DRIVERS and name in {"time", "asyncio", "threading"})
    }
    assert not outside


def test_each_http_library_is_named_in_one_place() -> None:
    """Either can be changed; the engine's aiohttp reaches llama.cpp over a Unix socket."""
    for library, homes in (
        ("urllib3", ("lmdeck._transport.urllib3",)),
        ("aiohttp", ("lmdeck._transport.aiohttp", "lmdeck.engine.llama")),
    ):
        users = {module for module in MODULES if library in {name.split(".")[0] for name in imports_of(module)}}
        assert {user for user in users if user.startswith(homes)} == users != set()


def test_the_test_sees_the_modules_it_is_about() -> None:
    """A moved folder must not make it pass by seeing nothing."""
    assert {
        "lmdeck",
        "lmdeck._streaming.sse",
        "lmdeck._pipeline.run_plan",
        "lmdeck._transport.urllib3",
        "lmdeck._client.chat",
    } <= set(MODULES)
    assert "lmdeck._streaming.sse" in imports_of("lmdeck._streaming.chat_reader")
    assert "time" in imports_of("lmdeck._pipeline.run_plan")


def documented(tree: ast.AST, inside_function: bool = False) -> list[str]:
    """Return the public classes and functions that have no docstring."""
    bare = []
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.ClassDef) or is_function:
            is_stub = any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)
            if not (node.name.startswith("_") or inside_function or is_stub or ast.get_docstring(node)):
                bare.append(node.name)
            if not node.name.startswith("_"):
                bare += documented(node, inside_function or is_function)
        else:
            bare += documented(node, inside_function)
    return bare


def test_everything_public_says_what_it_is() -> None:
    """Every module, class, function and method has a docstring."""
    bare = {module: documented(tree_of(module)) for module in MODULES}
    assert {module: names for module, names in bare.items() if names} == {}
    assert [module for module in MODULES if not ast.get_docstring(tree_of(module))] == []


KNOWN_CIRCLES = {
    frozenset({"lmdeck.errors", "lmdeck.messages"}),  # for type checkers only: an error's `partial` is a `Reply`
}


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the strongly connected components of more than one module (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.add(frozenset(component))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def test_no_modules_import_each_other() -> None:
    """Imports inside functions and for type checkers count, too."""
    graph = {module: (imports_of(module) & set(MODULES)) - {module} for module in MODULES}
    assert circles(graph) == KNOWN_CIRCLES


def package_of(module: str) -> str:
    """Return the package or module of the root that a module belongs to."""
    return ".".join(module.split(".")[:2])


def packages(*, late: bool) -> dict[str, set[str]]:
    """Return the packages that each imports; the root is apart, since it only names what the others define."""
    graph: dict[str, set[str]] = {package_of(module): set() for module in MODULES}
    for module in MODULES:
        graph[package_of(module)] |= {package_of(name) for name in imports_of(module, late=late) & set(MODULES)}
    return {package: others - {package, "lmdeck"} for package, others in graph.items()}


def test_no_packages_import_each_other() -> None:
    """A package is above or below another one."""
    assert circles(packages(late=True)) == KNOWN_CIRCLES


def test_chains_of_packages_are_short() -> None:
    """A program that imports the highest package imports at most this many, one through the other."""
    graph = packages(late=False)

    @cache
    def longest(package: str) -> tuple[str, ...]:
        return package, *max(map(longest, graph[package]), key=len, default=())

    assert len(max(map(longest, graph), key=len)) <= MOST_LEVELS


def test_a_circle_is_seen() -> None:
    """A circle over three modules is found, too."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}
