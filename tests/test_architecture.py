"""The rules of CONTRIBUTING.md that a program can check, read off the syntax trees of all package files."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sciml

if TYPE_CHECKING:
    from conftest import SourceTree

MAX_LINES = 500

# From the ground up; an import runs to the same floor or a lower one. What is not named here is the ground.
FLOORS = (
    ("sciml",),
    ("sciml.solvers",),
    ("sciml.datasets", "sciml.operators"),
    (
        "sciml.benchmarks",
        "sciml.command_line",
        "sciml.data_commands",
        "sciml.evaluate_command",
        "sciml.train_command",
        "sciml.tour",
        "sciml.__main__",
    ),
)

HEAVY = (
    "h5py",
    "lightning_fabric",
    "matplotlib",
    "meshio",
    "pyamg",
    "pydantic",
    "rich",
    "scipy",
    "sympy",
    "torchdiffeq",
    "torchsde",
)

# Modules that every program loads; they must not bring the heavy libraries with them.
LIGHT = ("sciml.boundary", "sciml.errors", "sciml.grid", "sciml.linear_operator", "sciml.status", "sciml.stencil")

FORBIDDEN_MODULES = {"cloudpickle", "cPickle", "dill", "joblib", "marshal", "pickle", "shelve"}
FORBIDDEN_CALLS = {"compile", "eval", "exec", "__import__"}  # as bare names or from builtins: `model.eval()` is another
FORBIDDEN_ATTRIBUTES = {"lambdify", "parse_expr", "sympify"}  # of sympy: each executes text as code


@dataclass(frozen=True)
class Import:
    """One imported name, resolved: `from .grid import Grid` in sciml/scheme.py is (sciml.grid, Grid, level 1)."""

    module: str
    name: str | None  # None: `import module`
    alias: str | None
    level: int
    line: int
    typing_only: bool


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    where: str  # for messages
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def imports_of(tree: ast.Module, package: str) -> Iterator[Import]:
    """Every import statement of a file, those inside functions included."""

    def visit(node: ast.AST, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, alias.asname, 0, node.lineno, typing_only)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(module, alias.name, alias.asname, node.level, node.lineno, typing_only)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, True)
            for child in node.orelse:
                yield from visit(child, typing_only)
        else:
            for child in ast.iter_child_nodes(node):
                yield from visit(child, typing_only)

    return visit(tree, False)


@pytest.fixture(scope="session")
def modules(source_tree: SourceTree) -> dict[str, Module]:
    found = {}
    for name, path in source_tree.modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        where = str(path.relative_to(source_tree.root))
        found[name] = Module(name, path, where, tree, tuple(imports_of(tree, package)))
    return found


@pytest.fixture(scope="session")
def rank(source_tree: SourceTree) -> Any:
    def rank_of(name: str) -> int:
        levels = [level for level, floor in enumerate(FLOORS) for part in floor if f"{name}.".startswith(f"{part}.")]
        return max(levels)

    return rank_of


def imported_modules(item: Import, modules: dict[str, Module]) -> Iterator[str]:
    """The modules of ours that one import names: `from .linear import cg` names both the package and the file in it."""
    if item.name is not None and f"{item.module}.{item.name}" in modules:
        yield f"{item.module}.{item.name}"
    elif item.module in modules:
        yield item.module


def report(violations: list[str], rule: str) -> None:
    assert not violations, f"{rule}\n" + "\n".join(violations)


def test_imports_run_only_downwards(modules: dict[str, Module], rank: Any) -> None:
    violations = [
        f"{module.where}:{item.line} imports {target}"
        for module in modules.values()
        if module.name != "sciml"
        for item in module.imports
        for target in imported_modules(item, modules)
        if target != "sciml" and rank(target) > rank(module.name)
    ]
    report(
        violations,
        "an import runs only downwards: command line, benchmarks, tour -> datasets, operators -> solvers -> rest",
    )


def test_no_import_cycles(modules: dict[str, Module]) -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for module in modules.values():
        if module.name == "sciml":
            continue
        for item in module.imports:
            if item.typing_only:
                continue
            for target in imported_modules(item, modules):
                # Loading a.b.c runs a and a.b first, unless the importer itself lies in them.
                parts = target.split(".")
                loaded = {".".join(parts[:length]) for length in range(2, len(parts) + 1)}
                graph[module.name] |= {
                    name for name in loaded if name == target or not f"{module.name}.".startswith(f"{name}.")
                }

    cycles: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            cycles.append(" -> ".join([*path[path.index(name) :], name]))
            return
        if name in done:
            return
        for target in sorted(graph[name]):
            visit(target, [*path, name])
        done.add(name)

    for name in sorted(modules):
        visit(name, [])
    report(cycles, "no import cycles, those through functions included")


def test_no_file_imports_from_the_package_root(modules: dict[str, Module]) -> None:
    violations = []
    for module in modules.values():
        if module.name == "sciml":
            continue
        for item in module.imports:
            from_root = item.module == "sciml" and (item.name is None or f"sciml.{item.name}" not in modules)
            binds_root = item.name is None and item.module.startswith("sciml.") and item.alias is None
            if from_root or binds_root:
                violations.append(f"{module.where}:{item.line}")
    report(violations, "no file imports from sciml/__init__.py: from sciml.grid import Grid, or relatively")


def test_imports_are_relative_inside_a_folder_and_absolute_across(
    modules: dict[str, Module], source_tree: SourceTree
) -> None:
    def folder_of(name: str) -> str:
        return max((folder for folder in source_tree.folders if f"{name}.".startswith(f"{folder}.")), key=len)

    violations = []
    for module in modules.values():
        for item in module.imports:
            if item.module.partition(".")[0] != "sciml" or module.name == "sciml":
                continue
            target = next(imported_modules(item, modules), item.module)
            inside = folder_of(target) == folder_of(module.name)
            if inside != (item.level > 0):
                form = "relative" if inside else "absolute"
                violations.append(f"{module.where}:{item.line} imports {target}: make it {form}")
    report(violations, "relative imports inside a folder, absolute ones across folders")


def test_every_module_that_is_imported_exists(modules: dict[str, Module]) -> None:
    violations = [
        f"{module.where}:{item.line} imports {item.module}"
        for module in modules.values()
        for item in module.imports
        if item.module.partition(".")[0] == "sciml" and not list(imported_modules(item, modules))
    ]
    report(violations, "every module that is imported exists")


def test_files_are_short(modules: dict[str, Module]) -> None:
    lengths = {module.where: len(module.path.read_text(encoding="utf-8").splitlines()) for module in modules.values()}
    violations = [f"{where}: {length} lines" for where, length in lengths.items() if length > MAX_LINES]
    report(violations, f"at most {MAX_LINES} lines a file")


def test_every_module_says_what_it_is(modules: dict[str, Module]) -> None:
    violations = [module.where for module in modules.values() if not ast.get_docstring(module.tree)]
    report(violations, "every module begins with a docstring")


def test_no_asserts(modules: dict[str, Module]) -> None:
    violations = [
        f"{module.where}:{node.lineno}"
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]
    report(violations, "no assert in package code, python -O drops it: raise InputError")


def unsafe(node: ast.AST) -> str | None:
    """What is wrong with a node that executes text as code or unpickles; None if nothing is."""
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        name = node.attr if isinstance(node, ast.Attribute) else node.id
        if name in FORBIDDEN_ATTRIBUTES:
            return f"{name} executes text"
    if isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        if names & FORBIDDEN_ATTRIBUTES:
            return f"{', '.join(names & FORBIDDEN_ATTRIBUTES)} executes text"
    if not isinstance(node, ast.Call):
        return None
    function, keywords = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
    if function.removeprefix("builtins.") in FORBIDDEN_CALLS:
        return f"{function} executes text"
    if function in {"S", "sympy.S"}:
        return "sympy.S executes text"
    if function == "torch.load" and keywords.get("weights_only") != "True":
        return "torch.load without weights_only=True unpickles"
    if keywords.get("allow_pickle", "False") != "False":
        return "allow_pickle unpickles"
    return None


def test_nothing_executes_text_or_unpickles(modules: dict[str, Module]) -> None:
    violations = []
    for module in modules.values():
        for item in module.imports:
            if item.module.partition(".")[0] in FORBIDDEN_MODULES:
                violations.append(f"{module.where}:{item.line} imports {item.module}")
        for node in ast.walk(module.tree):
            fault = unsafe(node)
            if fault:
                violations.append(f"{module.where}:{getattr(node, 'lineno', 0)} {fault}")
    report(violations, "problem files come from strangers: nothing is executed or unpickled")


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "builtins.exec(text)",
        "sympy.sympify(text)",
        "f = sympy.lambdify",
        "from sympy.parsing.sympy_parser import parse_expr",
        "sympy.S('x')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
    ],
)
def test_the_check_for_unsafe_code_finds_it(code: str) -> None:
    assert any(unsafe(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["model.eval()", "re.compile(pattern)", "torch.load(path, weights_only=True)", "sympy.S.Zero"]
)
def test_the_check_for_unsafe_code_passes_what_is_safe(code: str) -> None:
    assert not any(unsafe(node) for node in ast.walk(ast.parse(code)))


# The package root


def root_imports(modules: dict[str, Module]) -> dict[str, str]:
    """Names that sciml/__init__.py imports for type checkers -> module; of a submodule: itself."""
    return {item.name: item.module for item in modules["sciml"].imports if item.typing_only and item.name is not None}


def public_names() -> list[str]:
    return sorted(sciml.__all__)


@pytest.mark.parametrize("name", public_names())
def test_public_names_are_what_type_checkers_see(name: str, modules: dict[str, Module]) -> None:
    module = root_imports(modules)[name]
    if module == "sciml":
        assert getattr(sciml, name) is importlib.import_module(f"sciml.{name}")
    else:
        assert getattr(sciml, name) is getattr(importlib.import_module(module), name)


def test_type_checkers_see_no_other_names(modules: dict[str, Module]) -> None:
    assert sorted(root_imports(modules)) == public_names()


def test_dir_lists_the_public_names() -> None:
    assert set(public_names()) <= set(dir(sciml))
    assert "__version__" in dir(sciml)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sciml' has no attribute 'Gird'"):
        sciml.Gird  # noqa: B018


def test_no_submodule_hides_a_public_name(modules: dict[str, Module]) -> None:
    """Loading sciml/solve.py would replace the function `sciml.solve` by the module."""
    hidden = {
        name for name, module in root_imports(modules).items() if module != "sciml" and f"sciml.{name}" in modules
    }
    assert not hidden


def loaded_after(*statements: str) -> set[str]:
    code = "; ".join([*statements, "import sys", "print('\\n'.join(sys.modules))"])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_sciml_loads_no_other_library() -> None:
    brought = {name.partition(".")[0] for name in loaded_after("import sciml") - loaded_after("pass")}
    assert brought <= {"sciml", *sys.stdlib_module_names}


def test_light_modules_load_no_heavy_library(modules: dict[str, Module]) -> None:
    """torch may load some of them itself."""
    present = [name for name in LIGHT if name in modules]
    code = (
        f"import sys, torch; before = {{*sys.modules}}; import {', '.join(present)}; print({{*sys.modules}} - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = ast.literal_eval(run.stdout)
    assert set(present) <= brought
    assert not brought & set(HEAVY)


# Classes and docstrings


@pytest.fixture(scope="session")
def loaded(modules: dict[str, Module]) -> dict[str, Any]:
    return {name: importlib.import_module(name) for name in modules if not name.endswith("__main__")}


def own_code(member: Any, modules: dict[str, Module]) -> Any:
    """The function behind a method or property if it is written in our files; what dataclass and enum make is not."""
    if isinstance(member, property):
        member = member.fget
    function = getattr(member, "__func__", getattr(member, "func", member))  # class and static methods, cached_property
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    if code is None or Path(code.co_filename) not in {module.path for module in modules.values()}:
        return None
    return function


def test_no_method_overrides_a_concrete_one(loaded: dict[str, Any], modules: dict[str, Module]) -> None:
    """Classes are abstract or final; constructors, and bases that are not ours (torch.nn.Module), are excepted."""
    classes = {
        item
        for module in loaded.values()
        for item in vars(module).values()
        if inspect.isclass(item) and item.__module__ in modules
    }
    violations = [
        f"{kind.__module__}.{kind.__qualname__}.{name} overrides that of {base.__qualname__}"
        for kind in classes
        for base in kind.__mro__[1:]
        if base.__module__ in modules
        for name, member in vars(kind).items()
        if name != "__init__"
        and own_code(member, modules)
        and own_code(vars(base).get(name), modules)
        and not getattr(vars(base)[name], "__isabstractmethod__", False)
    ]
    report(sorted(violations), "no method overrides a concrete one of ours: make it abstract, or the class final")


def exported_objects(loaded: dict[str, Any]) -> dict[str, Any]:
    """What `sciml` and the `__init__` of every package in it offer under a public name."""
    names = {f"sciml.{name}": getattr(sciml, name) for name in sciml.__all__}
    for module in loaded.values():
        if module.__name__ != "sciml" and hasattr(module, "__path__"):
            for name, item in vars(module).items():
                if not name.startswith("_") and getattr(item, "__module__", "").startswith("sciml."):
                    names[f"{module.__name__}.{name}"] = item
    return {name: item for name, item in names.items() if inspect.isclass(item) or inspect.isroutine(item)}


def is_overload(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether a definition is a signature for type checkers alone."""
    return any(isinstance(decorator, ast.Name) and decorator.id == "overload" for decorator in node.decorator_list)


def test_public_objects_have_docstrings(loaded: dict[str, Any], modules: dict[str, Module]) -> None:
    """Read off the source, since dataclass writes a docstring of its own where there is none."""
    missing = []
    for name, item in exported_objects(loaded).items():
        nodes = ast.walk(modules[item.__module__].tree)
        kinds = ast.ClassDef | ast.FunctionDef
        # Of overloads the last, which is the function itself.
        found = [node for node in nodes if isinstance(node, kinds) and node.name == item.__name__]
        node = next((node for node in found if not is_overload(node)), None)
        if node is not None and not ast.get_docstring(node):
            missing.append(name)
    report(sorted(missing), "every public function and class has a docstring")


def test_nothing_is_left_to_do(modules: dict[str, Module]) -> None:
    """A note to do something later belongs in an issue."""
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    violations = [
        f"{module.where}:{number}"
        for module in modules.values()
        for number, line in enumerate(module.path.read_text(encoding="utf-8").splitlines(), 1)
        if mark.search(line)
    ]
    report(violations, "no TODO in package code")
