"""The rules of the house, read from the sources' syntax trees; `test_house.py` holds the sources to them.

Works on any folder tree, so that the tests can show that each rule is able to fail.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BANNED = frozenset({"adapter", "delta", "manager", "helper", "service", "util"})
LONGEST = 300

# room → the rooms of ours it may import; itself always. `bitswitch` alone is its `__init__` and `__main__`.
ROOMS: Mapping[str, frozenset[str]] = {
    room: frozenset(may.split())
    for room, may in {
        "bitswitch_store": "",
        "bitswitch_client": "",
        "bitswitch.core": "",
        "bitswitch.errors": "",
        "bitswitch.memory": "",
        "bitswitch.base": "bitswitch_store bitswitch.core bitswitch.errors",
        "bitswitch.calibrate": "bitswitch.base bitswitch_store bitswitch.core bitswitch.errors",
        "bitswitch.engine": "bitswitch.base bitswitch_store bitswitch.core bitswitch.errors",
        "bitswitch.router": "bitswitch.base.features bitswitch.memory bitswitch_store bitswitch.core"
        " bitswitch.errors",
        "bitswitch.tenants": "bitswitch_store bitswitch.core bitswitch.errors",
        "bitswitch.observe": "bitswitch.core bitswitch.errors",
        "bitswitch.settings": "bitswitch.core bitswitch.errors",
        "bitswitch.model_ref": "bitswitch.errors",
        "bitswitch.selection": "bitswitch.model_ref bitswitch_store bitswitch.core bitswitch.errors",
        "bitswitch.publish": "bitswitch.engine bitswitch.router bitswitch_store bitswitch.core"
        " bitswitch.errors",
        "bitswitch.collector": "bitswitch_store bitswitch.core bitswitch.errors",
        "bitswitch.asked": "bitswitch.engine.admission bitswitch.tenants bitswitch.core bitswitch.errors",
        "bitswitch.pieces": "bitswitch.core",
        "bitswitch.answer": "bitswitch.asked bitswitch.pieces bitswitch.model_ref bitswitch.selection"
        " bitswitch.engine bitswitch.router"
        " bitswitch.base bitswitch.tenants bitswitch_store bitswitch.core bitswitch.errors",
        "bitswitch.api": "bitswitch.answer bitswitch.publish bitswitch.model_ref bitswitch.selection"
        " bitswitch.observe bitswitch.tenants bitswitch_store bitswitch.core bitswitch.errors",
    }.items()
}
# room → packages of others that it may not import. "Nothing heavy" is the standard library alone.
HEAVY = frozenset({"torch", "faiss", "safetensors", "transformers", "tokenizers", "numba", "triton", "numpy"})
NOT_OF_OTHERS: Mapping[str, frozenset[str]] = {
    "bitswitch.errors": HEAVY,
    "bitswitch.core": HEAVY - {"numpy"},  # for annotations; `heavy_at_run_time` sees to the rest
    "bitswitch.api": HEAVY - {"numpy"},
    "bitswitch_client": HEAVY | {"fastapi", "starlette", "uvicorn", "pydantic"},
    "bitswitch_store": frozenset({"torch", "transformers", "fastapi", "starlette", "faiss"}),
}


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name and what it imports, with the line and whether types alone need it."""

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[tuple[str, int, bool], ...]


def read(roots: Iterable[Path]) -> dict[str, Module]:
    """All modules below the source roots, by dotted name; ``from a import b`` of a module b imports b."""
    found: dict[str, tuple[Path, ast.Module]] = {}
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = (path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return {
        name: Module(name, path, tree, tuple(_imports(name, path, tree, found.keys())))
        for name, (path, tree) in found.items()
    }


def _imports(name: str, path: Path, tree: ast.Module, ours: Iterable[str]) -> Iterator[tuple[str, int, bool]]:
    known = set(ours)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        types = id(node) in typing_only
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, types
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield (full if full in known else source), node.lineno, types
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            match node.args:
                case [ast.Constant(value=str(target)), *_]:
                    yield target, node.lineno, types


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def broken_walls(modules: Mapping[str, Module]) -> list[str]:
    """Imports that the rooms' rules forbid; types and lazy ones count as any other."""
    faults = []
    for module in modules.values():
        room = next((r for r in ROOMS if within(module.name, r)), None)
        for target, line, _ in module.imports:
            where = f"{module.name}:{line} imports {target}"
            if not target.startswith("bitswitch"):
                if room and target.partition(".")[0] in NOT_OF_OTHERS.get(room, ()):
                    faults.append(f"{where}, a package that {room} does without")
            elif room is None:  # cli and the package itself
                if module.name == "bitswitch":
                    faults.append(f"{where}; the package itself imports nothing of ours")
            elif not any(within(target, allowed) for allowed in (room, *ROOMS[room])):
                faults.append(f"{where}; {room} may import {sorted(ROOMS[room]) or 'nothing of ours'}")
    return faults


def heavy_at_run_time(modules: Mapping[str, Module], names: Iterable[str]) -> list[str]:
    """Imports of numpy and the like by leaf modules outside of ``TYPE_CHECKING``."""
    return [
        f"{name}:{line} imports {target} at run time"
        for name in names
        for target, line, types in modules[name].imports
        if target.partition(".")[0] in HEAVY and not types
    ]


def cycles(modules: Mapping[str, Module]) -> list[str]:
    """Import cycles between modules, each once. A package stands for its ``__init__`` alone."""
    graph = {
        name: sorted({target for target, _, _ in module.imports if target in modules and target != name})
        for name, module in modules.items()
    }
    faults, done = [], set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            faults.append(" → ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in graph[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return faults


def too_long(modules: Mapping[str, Module], most: int = LONGEST) -> list[str]:
    """Files with more lines than a reader keeps in mind."""
    counts = {
        name: len(module.path.read_text(encoding="utf-8").splitlines()) for name, module in modules.items()
    }
    return [f"{name} has {count} lines; {most} at most" for name, count in counts.items() if count > most]


def banned_words(modules: Mapping[str, Module]) -> list[str]:
    """Names of modules, classes and functions with a word that is not of this house."""
    faults = []
    for module in modules.values():
        names = [(part, 1) for part in module.name.split(".")]
        names += [
            (node.name, node.lineno)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for name, line in names:
            words = {word.lower().rstrip("s") for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
            faults += [
                f"{module.name}:{line} {name}: {word!r} is no word of this house"
                for word in sorted(words & BANNED)
            ]
    return faults
