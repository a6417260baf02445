"""The rules that hold the package together, read off its source."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nnsteer

ROOT = Path(nnsteer.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PUBLIC = {*nnsteer.__all__, "command", "texts"}
ORDER = [
    "program", "texts", "kernels", "fit", "ndif", "model", "measure", "study", "report", "recipes", "organism", "cli", "__main__",
]  # fmt: skip
"""Folders, each of which may import those before it; the modules beside them, such as `errors`,
come before all."""


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from [f"{node.module}.{name.name}" for name in node.names]


def level(name):
    """The place of a module's folder in ORDER, 0 for a module that is in none."""
    top = name.split(".")[0]
    return ORDER.index(top) + 1 if top in ORDER else 0


def module_imports():
    """Each module's name, with those of nnsteer that it imports."""
    known = {module_name(path) for path in FILES}
    graph = {}
    for path in FILES:
        inside = [
            name.removeprefix("nnsteer").removeprefix(".")
            for name in imports(path)
            if name.startswith("nnsteer")
        ]
        graph[module_name(path)] = {
            name if name in known else name.rpartition(".")[0] for name in inside
        } - {""}
    return graph


def test_every_folder_has_its_place_in_the_order():
    assert sorted(
        path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()
    ) == sorted(ORDER[:-1])


def test_imports_only_point_to_folders_before_and_never_in_a_circle():
    graph = module_imports()
    for name, targets in graph.items():
        for target in targets:
            same_folder = name.split(".")[0] == target.split(".")[0] or not level(name)
            assert same_folder or level(target) < level(name), f"{name} imports {target}"
    TopologicalSorter(graph).prepare()  # raises CycleError for a circle


def test_few_modules_stand_beside_the_folders():
    assert len([path for path in ROOT.glob("*.py") if path.stem != "__main__"]) <= 12


@pytest.mark.parametrize("file", ["kernels/edits.py", "kernels/logits.py", "kernels/fits.py"])
def test_what_travels_imports_torch_alone_and_uses_nothing_that_is_lost_on_the_way(file):
    path = ROOT / file
    assert set(imports(path)) == {"__future__.annotations", "torch"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert (
                not node.decorator_list and not node.args.defaults and not node.args.kw_defaults
            ), node.name
        assert not isinstance(node, ast.ClassDef)


def test_nnsight_is_imported_where_it_is_run_and_where_its_requests_are_sent():
    users = [
        module_name(path)
        for path in FILES
        if any(name.split(".")[0] == "nnsight" for name in imports(path))
    ]
    assert users == ["model.traces", "ndif.client"]


def test_files_stay_short():
    assert {module_name(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 300} == {}


def test_importing_the_package_is_light():
    heavy = "import sys, nnsteer; print([m for m in ('torch', 'nnsight', 'transformers', 'datasets') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", heavy], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_every_public_name_is_there_and_says_what_it_is():
    assert len(nnsteer.__all__) <= 50
    for name in nnsteer.__all__:
        value = getattr(nnsteer, name)
        assert value is not None
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
            methods = [m for n, m in vars(value).items() if n[0] != "_" and inspect.isfunction(m)]
            assert all(method.__doc__ for method in methods), name


def test_a_recipes_entry_is_short_and_imports_the_public_interface_alone():
    entries = [path for path in (ROOT / "recipes").glob("*/__init__.py")]
    assert len(entries) == 6
    for path in entries:
        assert len(path.read_text().splitlines()) <= 130, path
        for name in imports(path):
            if name.startswith("nnsteer"):
                public = name.count(".") == 1 and name.partition(".")[2] in PUBLIC
                assert public or name.startswith("nnsteer.recipes."), f"{path}: {name}"
