"""Imports point one way: command line -> study -> training -> (model, regularisers, data)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tune_rnn"

TRAINING = (  # from data to a trained model; knows nothing of tuning
    "captured",
    "checkpoint",
    "data",
    "decoder",
    "evaluation",
    "exported",
    "feed",
    "interval",
    "loss_scale",
    "memory",
    "model",
    "objective",
    "optimization",
    "precision",
    "products",
    "recurrence",
    "regularizers",
    "report",
    "rungs",
    "training",
    "unrolled",
)
# All that may import torch: neither the command line nor the configuration is among it, nor is the data.
USES_TORCH = (
    *(part for part in TRAINING if part not in ("data", "report", "rungs")),
    "checking",
    "results",
    "single",
    "study",
)


@dataclass(frozen=True)
class Import:
    """One import of a dotted name; `at_load`: it runs as soon as the importing module does."""

    name: str
    at_load: bool


def module_name(path: Path) -> str:
    """`.../tune_rnn/data/windows.py` -> `tune_rnn.data.windows`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def dotted_names(node: ast.Import | ast.ImportFrom, importer: str) -> Iterator[str]:
    """What a statement imports; `from package import module` imports that module, not the package."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, f"{importer}: line {node.lineno}: write imports with their full name"
    assert node.module is not None
    for alias in node.names:
        inside = f"{node.module}.{alias.name}"
        yield inside if inside in SOURCES else node.module


def statements(node: ast.AST, at_load: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement below `node`, and whether it runs when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_load
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from statements(child, at_load=False)
        else:
            runs_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from statements(child, at_load and not runs_later)


def imports_of(module: str) -> frozenset[Import]:
    """Everything that `module` imports, anywhere in it."""
    found = statements(ast.parse(SOURCES[module].read_text(encoding="utf-8")))
    return frozenset(Import(name, at_load) for node, at_load in found for name in dotted_names(node, module))


GRAPH = {module: imports_of(module) for module in SOURCES}


def within(name: str, *packages: str) -> bool:
    """Whether `name` is one of `packages` or lies inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def members(*names: str) -> list[str]:
    """All modules of the named parts of the package."""
    return [module for module in SOURCES if within(module, *(f"tune_rnn.{name}" for name in names))]


def loaded_with(module: str) -> set[str]:
    """Every module and foreign package that importing `module` brings in, through our own modules."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += [imported.name for imported in GRAPH.get(name, ()) if imported.at_load]
        if name in SOURCES and "." in name:
            waiting.append(name.rpartition(".")[0])  # its package is loaded first
    return seen


@pytest.mark.parametrize("part", [*TRAINING, *USES_TORCH, "cli"])
def test_the_rules_speak_of_modules_that_exist(part: str) -> None:
    assert members(part)


def test_every_module_imported_from_the_package_exists() -> None:
    named = {imported.name for imports in GRAPH.values() for imported in imports}
    assert {name for name in named if within(name, "tune_rnn")} <= set(SOURCES)


@pytest.mark.parametrize("module", sorted(set(SOURCES) - set(members("study", "submission"))))
def test_ray_is_imported_by_what_tunes_and_what_submits_alone(module: str) -> None:
    assert [i.name for i in GRAPH[module] if within(i.name, "ray")] == []


@pytest.mark.parametrize("module", sorted(set(SOURCES) - set(members(*USES_TORCH))))
def test_torch_stays_out_of_the_command_line_the_configuration_and_the_data(module: str) -> None:
    """Neither anywhere in the module itself, nor through what is loaded with it."""
    assert [i.name for i in GRAPH[module] if within(i.name, "torch")] == []
    assert [name for name in loaded_with(module) if within(name, "torch", "ray")] == []


@pytest.mark.parametrize("module", [module for module in members("study") if module != "tune_rnn.study.worker"])
def test_a_study_is_started_and_led_without_torch(module: str) -> None:
    """Its processes that train load it meanwhile."""
    assert [name for name in loaded_with(module) if within(name, "torch")] == []


@pytest.mark.parametrize("module", members(*TRAINING))
def test_training_knows_nothing_of_tuning(module: str) -> None:
    above = ("tune_rnn.study", "tune_rnn.search", "tune_rnn.cli", "tune_rnn.display", "hyperopt", "ray")
    assert [i.name for i in GRAPH[module] if within(i.name, *above)] == []
    assert [name for name in loaded_with(module) if within(name, *above)] == []


@pytest.mark.parametrize("module", members("data"))
def test_data_needs_no_configuration(module: str) -> None:
    assert [name for name in loaded_with(module) if within(name, "pydantic", "tune_rnn.experiment")] == []


@pytest.mark.parametrize("module", sorted(set(SOURCES) - {"tune_rnn.cli"} - set(members("__main__", "submission.job"))))
def test_nothing_imports_the_command_line(module: str) -> None:
    assert [i.name for i in GRAPH[module] if within(i.name, "tune_rnn.cli")] == []


def test_there_is_no_import_cycle() -> None:
    """Imports inside functions count: they hide a cycle, they do not end it. The lazy table does not."""
    waiting = {
        module: {i.name for i in imports if i.name in SOURCES and i.name != "tune_rnn"}
        for module, imports in GRAPH.items()
        if module != "tune_rnn"
    }
    while free := {module for module, imported in waiting.items() if imported.isdisjoint(waiting)}:
        waiting = {module: imported for module, imported in waiting.items() if module not in free}
    assert waiting == {}, "these import each other, directly or through each other"
