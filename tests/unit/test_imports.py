"""The rules of the code that a machine can check: imports, where SQL is allowed, and docstrings."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import run_python, source_of

SOURCE = source_of()
FILES = sorted(SOURCE.rglob("*.py"))
TOP = {"cli", "dashboard", "metrics", "integrations"}
"""Packages that import more than the standard library: click and rich, Starlette, prometheus_client and others."""
LIBRARY = [path for path in FILES if not TOP & {*path.relative_to(SOURCE).parts[:1]} and path.name != "__main__.py"]
ENGINES = {"sqlite", "postgresql", "mariadb"}
DRIVERS = {"postgresql": "psycopg", "mariadb": "pymysql"}
"""Further imports that only the package of an engine may have."""

# From the bottom to the top: a module imports only from earlier layers; pure modules may import each other.
PURE = {"_version", "errors", "states", "retry", "checks", "_formats", "_system"}
LAYERS: list[set[str]] = [
    PURE,
    {"_store"},
    {"outcomes"},
    {"events"},
    {"checkpoints", "dependencies", "following", "history", "overview", "waiting"},
    {"audit", "coding", "options", "reasons"},
    {"overdue"},
    {"calls"},
    {"schedules"},
    {"extension"},
    {"current"},
    {"_executors"},
    {"_maintenance"},
    {"_worker"},
    {"task"},
    {"functions", "finding"},
    {"bulk"},
    {"handle"},
    {"queue"},
    {"operations", "worker"},
    {"_aio"},
    {"aio"},
    {"testing"},
    {"__init__"},
    {"monitoring"},
    {"metrics"},
    {"dashboard"},
    {"cli"},
    {"integrations"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file. It is shared, so it must not be changed."""
    return ast.parse(path.read_text())


def unit(path: Path) -> str:
    """Return the module or package directly below ``dbtaskqueue`` that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node except those under ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not typing_only:
            yield node
            yield from runtime_nodes(node)


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Return the absolute names that a file imports at run time, split into parts."""
    package = ("dbtaskqueue", *path.relative_to(SOURCE).parent.parts)
    for node in runtime_nodes(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            for alias in node.names:
                yield (*module, alias.name)


def own_imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Return the imports from ``dbtaskqueue``, without that first part."""
    for name in imports(path):
        if name[0] == "dbtaskqueue" and len(name) > 1:
            yield name[1:]


def named(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_every_module_is_in_a_layer() -> None:
    assert {unit(path) for path in FILES} <= set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_point_one_way(path: Path) -> None:
    mine = unit(path)
    for name in own_imports(path):
        if name[0] in LEVEL and name[0] != mine:
            above = LEVEL[name[0]] >= LEVEL[mine]
            assert not above or {name[0], mine} <= PURE, f"{named(path)} imports {'.'.join(name)}"
        elif name[0] not in LEVEL:
            assert LEVEL["__init__"] < LEVEL[mine], f"{named(path)} imports {name[0]} from the package itself"


def module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def test_pure_modules_have_no_import_cycle() -> None:
    modules = {module(path): path for path in FILES if unit(path) in PURE}

    def needs(path: Path) -> set[str]:
        names = [".".join(name[:length]) for name in own_imports(path) for length in (1, 2)]
        return {name for name in names if name in modules}

    graph = {name: needs(path) for name, path in modules.items()}
    while graph:
        leaves = {name for name, needed in graph.items() if not needed & set(graph)}
        assert leaves, f"an import cycle among {sorted(graph)}"
        graph = {name: needed for name, needed in graph.items() if name not in leaves}


PUBLIC_IN_STORE = {
    "borrowed",
    "open_store",
    "close_free",
    "surround_writes",
    "count_statements",
    "Statements",
    "contract",
}


@pytest.mark.parametrize("path", [path for path in FILES if unit(path) != "_store"], ids=named)
def test_only_the_contract_of_the_store_is_imported_outside(path: Path) -> None:
    for name in own_imports(path):
        if name[0] == "_store" and len(name) > 1:
            assert name[1] in PUBLIC_IN_STORE, f"{named(path)} imports {'.'.join(name)}"


@pytest.mark.parametrize("path", sorted((SOURCE / "_store").rglob("*.py")), ids=named)
def test_engines_never_import_each_other(path: Path) -> None:
    mine = ENGINES & set(path.parts)
    for name in own_imports(path):
        if name[0] == "_store" and path != SOURCE / "_store" / "__init__.py":
            assert not (ENGINES - mine) & set(name)


@pytest.mark.parametrize("path", sorted((SOURCE / "_executors").rglob("*.py")), ids=named)
def test_executors_never_touch_the_database(path: Path) -> None:
    for name in own_imports(path):
        allowed = PURE | {"_executors", "current", "checkpoints", "coding", "outcomes", "extension"}
        assert name[0] in allowed or name[:2] == ("_store", "contract")
    names = {node.id for node in ast.walk(parsed(path)) if isinstance(node, ast.Name)}
    assert not names & {"Store", "open_store", "store"}


@pytest.mark.parametrize("path", LIBRARY, ids=named)
def test_the_library_imports_only_the_standard_library(path: Path) -> None:
    drivers = {driver for engine, driver in DRIVERS.items() if engine in path.parts}
    for name in imports(path):
        others = {"psutil_.py": {"psutil"}, "cron.py": {"cronsim"}}.get(path.name, drivers)
        assert name[0] in sys.stdlib_module_names or name[0] in {"dbtaskqueue", "__future__", *others}, name


def test_only_metrics_import_prometheus_client() -> None:
    importing = {unit(path) for path in FILES for name in imports(path) if name[0] == "prometheus_client"}
    assert importing == {"metrics"}


FACES = [path for path in FILES if unit(path) in ("integrations", "monitoring", "metrics", "dashboard", "cli")]
"""Modules for people: they use only the public attributes of the library."""
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}


@pytest.mark.parametrize("path", FACES, ids=named)
def test_private_attributes_of_the_library_are_not_read(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            text = ast.unparse(node)
            assert own or node.attr in NAMED_TUPLE or text == "os._exit", f"{named(path)}:{node.lineno} reads {text}"
    for name in imports(path):
        assert not (name[-1].startswith("_") and name[0] == "dbtaskqueue" and len(name) > 2), ".".join(name)


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        others = "click rich cronsim psutil psycopg pymysql mariadb prometheus_client starlette jinja2"
        if name.partition(".")[0] in others.split():
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import dbtaskqueue
with dbtaskqueue.TaskQueue("sqlite:///:memory:") as queue:
    queue.enqueue("hello")
    dbtaskqueue.Worker(queue).run(str.upper, burst=True)
    print(queue.tasks()[0].result)
print(*sorted(name for name in sys.modules if name.startswith(("dbtaskqueue.cli", "dbtaskqueue.dashboard"))))
"""


def test_the_library_works_without_click_rich_and_cronsim() -> None:
    assert run_python(BLOCKED) == "HELLO\n\n"


LATER = ("aio", "cli", "dashboard", "integrations", "metrics", "monitoring", "testing")


def test_importing_the_package_imports_nothing_more_than_version_0_4_0() -> None:
    """A module of the standard library that one part needs is imported where that part is first used."""
    before = (Path(__file__).parent / "imported_by_0_4_0.txt").read_text().split()
    code = "import sys; before = set(sys.modules); import dbtaskqueue; print(*sorted(set(sys.modules) - before))"
    found = run_python(code).split()
    assert {name for name in found if not name.startswith("dbtaskqueue")} - {*before} == set()
    assert [name for name in found if name.startswith(tuple(f"dbtaskqueue.{later}" for later in LATER))] == []


STATEMENT = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+TABLE|PRAGMA\s+\w+|BEGIN\s+IMMEDIATE)\b"
)


def code_strings(path: Path) -> Iterator[str]:
    """Return the strings in a file's code, without docstrings."""
    tree = parsed(path)
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


@pytest.mark.parametrize("path", [path for path in FILES if unit(path) != "_store"], ids=named)
def test_sql_is_in_the_store_only(path: Path) -> None:
    for text in code_strings(path):
        assert not STATEMENT.search(text), f"{named(path)}: {text}"
    assert not any(name[0] == "sqlite3" for name in imports(path)), "only the store may import sqlite3"


@pytest.mark.parametrize("path", [path for path in FILES if unit(path) not in ("_store", "_formats")], ids=named)
def test_no_code_outside_the_store_depends_on_the_engine(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Compare):
            words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            attributes = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
            assert not words & ENGINES, f"{named(path)}:{node.lineno}"
            assert "engine" not in attributes, f"{named(path)}:{node.lineno}"


def test_nothing_is_ever_unpickled_or_evaluated() -> None:
    for path in FILES:
        assert not {name[0] for name in imports(path)} & {"pickle", "shelve", "marshal"}, named(path)
        calls = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        assert not {func.id for func in calls if isinstance(func, ast.Name)} & {"eval", "exec"}, named(path)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{named(path)} has no docstring"
    overriding = {"SqlStore", "Commands"}  # documented in the contract
    # Subclasses of these have their docstrings in the contract, too.
    documented = ("Store", "SqlFacet", "SqlDatabase", "SqlDependencies", "SqlTasks", "Transaction", "Link")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{named(path)}: {node.name}"
        bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
        if any(base.endswith(documented) for base in bases):
            continue
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name not in overriding:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    decorators = {ast.unparse(decorator) for decorator in method.decorator_list}
                    excused = "overload" in decorators or any("setter" in text for text in decorators)
                    runs_itself = method.name == "run" and any("Thread" in ast.unparse(base) for base in node.bases)
                    assert excused or runs_itself or ast.get_docstring(method), (
                        f"{named(path)}: {node.name}.{method.name}"
                    )


def test_the_facets_of_the_store_stay_small() -> None:
    """A facet has at most ten verbs, each with a short docstring, and files of verbs and SQL with the facet's name."""
    from dbtaskqueue._store import queries
    from dbtaskqueue._store.contract import FACETS, Store

    files = {path.stem for path in (SOURCE / "_store" / "verbs").glob("*.py")} - {"__init__", "base"}
    assert {facet.__name__.lower() for facet in FACETS} == files == set(queries.FILES) - {"common"}
    for facet in FACETS:
        verbs = [name for name in vars(facet) if not name.startswith("_")]
        assert len(verbs) <= 10, facet
        for verb in verbs:
            assert len(getattr(facet, verb).__doc__ or "x" * 999) <= 200, verb
    assert [name for name in vars(Store) if callable(getattr(Store, name)) and not name.startswith("_")] == []
    assert Store.__bases__ == FACETS
