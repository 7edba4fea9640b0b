"""The documentation and the package say the same.

docs/api.md names every public name and no other; each has a docstring and a typed stub; the programs in README.md and
docs/ run, and print what the page says they print. A ```text block that follows a ```python block is its output.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import helpers
import offset
import pytest
from _pytest.mark import ParameterSet
from offset.syscall import _rebind

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "offset"

MODULES = [
    "offset",
    "offset.time",
    "offset.context",
    "offset.errgroup",
    "offset.singleflight",
    "offset.supervise",
    "offset.sync",
    "offset.sync.atomic",
    "offset.io",
    "offset.net",
    "offset.os",
    "offset.os.signal",
    "offset.runtime",
    "offset.debug",
    "offset.aio",
    "offset.runtime.trace",
    "offset.patch",
    "offset.testing",
    "offset.syscall",
    "offset.wsgi",
    "offset.asgi",
]

# Modules inside `offset.syscall` with the names of others; imported only by those who use them.
PROXIES = sorted({name.partition(".")[0] for name in {**_rebind.PROXIES, **_rebind.LIBRARIES}})

# What a module makes when it is imported is no test's.
for _name in _rebind.PROXIES:
    _rebind.proxy(_name)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Those whose programs do well; test_errors.py runs those of the other one.
RUNNING = [page for page in PAGES if page.name != "errors.md"]

# What programs on the pages use besides: libraries, and the server that one talks to.
NEEDED = {
    "eventlet": None,
    "fastapi": None,
    "gevent": None,
    "psycopg": "postgres_server",
    "psycopg2": "postgres_server",
    "pymysql": "mariadb_server",
    "redis": "redis_server",
    "requests": None,
    "websockets": None,
}


@functools.cache
def missing(library: str) -> str:
    """Tell, in a process of its own, why a library cannot be imported; "" if it can.

    eventlet's import puts its own sockets under dnspython, for all tests that follow.
    """
    ended = helpers.run_script(f"import {library}")
    return ended.stderr.strip().rpartition("\n")[2] if ended.returncode else ""


# Names that are no functions, classes or modules: they have nothing to hang a docstring on.
PLAIN_VALUES = (float, int)


# ---- what there is ---------------------------------------------------------------------------


def public_names(module: str) -> list[str]:
    """What a module exports, and the public modules inside it."""
    parts = [name.rpartition(".") for name in MODULES]
    inside = {name for parent, _, name in parts if parent == module}
    return sorted({*importlib.import_module(module).__all__, *inside})


def public_objects() -> list[tuple[str, str]]:
    return [(module, name) for module in MODULES for name in public_names(module)]


def public_members(kind: type) -> set[str]:
    """The public attributes that a class adds to those that it has from Python's own."""
    inherited = {name for base in kind.__mro__ if base.__module__ == "builtins" for name in dir(base)}
    return {name for name in dir(kind) if not name.startswith("_") and name not in inherited}


def public_classes() -> list[tuple[str, str]]:
    return [
        (module, name)
        for module, name in public_objects()
        if inspect.isclass(getattr(importlib.import_module(module), name))
    ]


# ---- docs/api.md -----------------------------------------------------------------------------


def documented() -> dict[str, dict[str, str]]:
    """The rows of docs/api.md: by module and name, the text of the row."""
    rows: dict[str, dict[str, str]] = {}
    section = None
    for line in (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = rows.setdefault(line.removeprefix("## "), {})
        elif section is not None and (row := re.match(r"\| `(\w+)", line)):
            assert row[1] not in section, f"docs/api.md has {row[1]} twice"
            section[row[1]] = line
    return rows


def test_the_page_has_every_public_module() -> None:
    assert sorted(documented()) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_the_page_has_every_public_name_and_no_other(module: str) -> None:
    proxies = PROXIES if module == "offset.syscall" else []
    assert sorted(documented()[module]) == sorted([*public_names(module), *proxies])


@pytest.mark.parametrize(("module", "name"), public_classes())
def test_the_page_has_every_member_of_a_class(module: str, name: str) -> None:
    kind = getattr(importlib.import_module(module), name)
    row = documented()[module][name]
    if "an older name" in row:
        return
    missing = {member for member in public_members(kind) if not re.search(rf"\b{member}\b", row)}
    assert not missing


# ---- docstrings and stubs --------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_docstring(module: str) -> None:
    assert inspect.getdoc(importlib.import_module(module))


@pytest.mark.parametrize(("module", "name"), public_objects())
def test_a_public_name_has_a_docstring(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    if isinstance(value, PLAIN_VALUES):
        return
    described = value if inspect.isclass(value) or callable(value) or inspect.ismodule(value) else type(value)
    doc = described.__doc__
    assert doc, f"{module}.{name} has no docstring"
    assert doc.strip(), f"{module}.{name} has an empty docstring"


@pytest.mark.parametrize(("module", "name"), public_classes())
def test_a_public_member_has_a_docstring(module: str, name: str) -> None:
    kind = getattr(importlib.import_module(module), name)
    bare = {
        member
        for member in public_members(kind)
        if not (getattr(kind, member).__doc__ or "").strip() and member not in getattr(kind, "__slots__", ())
    }
    assert not bare


@pytest.mark.parametrize(("module", "name"), public_classes())
def test_every_object_has_stats(module: str, name: str) -> None:
    kind = getattr(importlib.import_module(module), name)
    # What others implement, and what is a value or an error, does nothing that could be counted.
    if getattr(kind, "_is_protocol", False) or issubclass(kind, tuple | BaseException):
        return
    assert inspect.getdoc(kind.stats)


def source_of(module: str, suffix: str) -> Path:
    parts = module.split(".")[1:]
    package = PACKAGE.joinpath(*parts) / f"__init__{suffix}"
    return package if package.exists() else PACKAGE.joinpath(*parts).with_suffix(suffix)


class Stub(NamedTuple):
    """What a .pyi file or a typed .py file declares at its top level."""

    names: dict[str, ast.stmt]
    imported: dict[str, tuple[str, str]]


def stub_of(module: str) -> Stub:
    path = source_of(module, ".pyi")
    if not path.exists():
        path = source_of(module, ".py")
    names: dict[str, ast.stmt] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
        elif isinstance(node, ast.Assign):
            names.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
    return Stub(names, imported)


def declaration(module: str, name: str) -> ast.stmt | ModuleType | None:
    """The node that declares a public name, followed through the stubs that hand it on."""
    stub = stub_of(module)
    if name in stub.names:
        node = stub.names[name]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            return declaration(module, node.value.id)
        return node
    if name in stub.imported:
        origin, original = stub.imported[name]
        if f"{origin}.{original}" in MODULES:
            return importlib.import_module(f"{origin}.{original}")
        return declaration(origin, original)
    return None


def untyped_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    every = function.args
    arguments = [*every.posonlyargs, *every.args, *every.kwonlyargs]
    arguments += [argument for argument in (every.vararg, every.kwarg) if argument is not None]
    bare = [argument.arg for argument in arguments if argument.annotation is None]
    missing = [name for name in bare if name not in ("self", "cls")]
    return missing if function.returns is not None else [*missing, "return"]


@pytest.mark.parametrize(("module", "name"), public_objects())
def test_a_public_name_has_a_typed_stub(module: str, name: str) -> None:
    node = declaration(module, name)
    assert node is not None, f"the stub of {module} does not declare {name}"
    if isinstance(node, ast.ClassDef):
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
        untyped = {method.name: untyped_arguments(method) for method in methods}
        assert not {method: missing for method, missing in untyped.items() if missing}
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        assert not untyped_arguments(node)
    else:
        assert isinstance(node, ast.AnnAssign | ModuleType), f"{module}.{name} has no type"


@pytest.mark.parametrize(("module", "name"), public_classes())
def test_a_stub_has_every_member_of_a_class(module: str, name: str) -> None:
    node = declaration(module, name)
    assert isinstance(node, ast.ClassDef)
    declared = set()
    for item in ast.walk(node):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            declared.add(item.name)
        elif isinstance(item, ast.AnnAssign):
            declared.add(ast.unparse(item.target).removeprefix("self."))
        elif isinstance(item, ast.Assign) and any(ast.unparse(target) == "__slots__" for target in item.targets):
            declared.update(ast.literal_eval(item.value))
    kind = getattr(importlib.import_module(module), name)
    assert not public_members(kind) - declared


@pytest.mark.parametrize("name", [*_rebind.PROXIES, *_rebind.LIBRARIES])
def test_a_proxy_has_a_docstring_and_the_types_of_its_original(name: str) -> None:
    module = {**_rebind.PROXIES, **_rebind.LIBRARIES}[name]
    if name in _rebind.LIBRARIES:
        pytest.importorskip(name, exc_type=ImportError)
    assert inspect.getdoc(importlib.import_module(module))
    stub = source_of(module, ".pyi").read_text(encoding="utf-8")
    assert name in ("concurrent", "urllib") or f"from {name} import *" in stub


def test_the_page_of_the_proxies_names_each() -> None:
    page = (ROOT / "docs" / "syscall.md").read_text(encoding="utf-8")
    for name in (*_rebind.PROXIES, *_rebind.LIBRARIES):
        public = [part for part in name.split(".") if not part.startswith("_")]
        assert f"`offset.syscall.{'.'.join(public)}" in page or f"`{public[-1]}`" in page


# ---- the programs on the pages ---------------------------------------------------------------


class Program(NamedTuple):
    """A ```python block of a page, and the output that the page shows for it."""

    page: str
    line: int
    source: str
    output: str | None


def programs() -> list[Program]:
    found = []
    for path in RUNNING:
        text = path.read_text(encoding="utf-8")
        pattern = r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?"
        for block in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start()) + 1
            found.append(Program(path.name, line, block[1], block[2]))
    return found


def needs(program: Program) -> list[str]:
    """The libraries that a program uses, of those in NEEDED."""
    return [name for name in NEEDED if re.search(rf'(?:import|from) {name}\b|"{name}["\.]', program.source)]


def parameters() -> list[ParameterSet]:
    """The programs; those that are the first to talk to a server leave it running."""
    servers = pytest.mark.leaves("descriptors")
    return [
        pytest.param(
            program,
            id=f"{program.page}:{program.line}",
            marks=[servers] if any(map(NEEDED.get, needs(program))) else [],
        )
        for program in programs()
    ]


def test_every_text_block_is_the_output_of_a_program() -> None:
    shown = sum(path.read_text(encoding="utf-8").count("\n```text\n") for path in RUNNING)
    assert shown == sum(program.output is not None for program in programs())
    assert shown > 10


@pytest.mark.parametrize("program", parameters())
def test_a_program_on_a_page_does_what_the_page_says(
    program: Program, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment: dict[str, str] = {}
    if helpers.FREE_THREADED and "import sqlite3" in program.source:
        pytest.skip("who waits for the database in C holds up who has it, without the GIL, as the page says")
    for name in needs(program):
        if why := missing(name):
            pytest.skip(why)
        if NEEDED[name] is not None:
            environment |= request.getfixturevalue(NEEDED[name]).environment
    file = tmp_path / "program.py"
    file.write_text(program.source, encoding="utf-8")
    status, stdout, stderr = helpers.run_script(file, env=environment)
    assert status == 0, stderr
    if program.output is not None:
        assert stdout == program.output


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*PAGES, *ROOT.glob("*.md")]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_the_version_of_the_package_is_in_the_changelog_or_unreleased() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert sections[0] == "Unreleased" or sections[0].startswith(offset.__version__)
