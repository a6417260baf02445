"""The rules that hold the package together, read off its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nnsteer

ROOT = Path(nnsteer.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ORDER = [  # an import may only point to an earlier line
    ("errors", "sketch", "memory"), ("toml", "retries", "documents"),
    ("data", "ops", "logits", "site", "span", "contrast", "identity", "progress", "statistics"),
    ("names",), ("options",),
    ("direction", "editor", "moments", "chat", "cli", "folder"), ("activations", "op", "condition", "ndif.journal"),
    ("program", "fit", "layout", "organism"), ("load", "lower", "rules", "ndif", "compat", "encode", "tune", "prompts"),
    ("formats", "exchange", "traces", "preview", "attach", "cache", "sharing"),
    ("runner", "requests", "domains", "evaluations", "bake"),
    ("explain", "fitting"),
    ("organism.corpus", "organism.build", "organism.encoder", "organism.train", "organism.plant", "measure"),
    ("stages", "report"), ("study",),
    ("recipes", "organism.__main__"), ("commands",), ("__main__",),
]  # fmt: skip


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
    """The line that names the module, or its package."""
    while name:
        for i, line in enumerate(ORDER):
            if name in line:
                return i
        name = name.rpartition(".")[0]
    raise AssertionError("not in ORDER")


def test_imports_only_point_to_earlier_layers():
    known = {module_name(path) for path in FILES}
    for path in FILES:
        name = module_name(path)
        if name == "__init__":
            continue
        for imported in imports(path):
            if not imported.startswith("nnsteer"):
                continue
            target = imported.removeprefix("nnsteer").removeprefix(".")
            target = target if target in known else target.rpartition(".")[0]
            same_package = target and name.split(".")[0] == target.split(".")[0]
            assert not target or same_package or level(target) < level(name), f"{name} imports {target}"


@pytest.mark.parametrize("file", ["ops.py", "logits.py", "fit/kernels.py"])
def test_what_travels_imports_torch_alone_and_uses_nothing_that_is_lost_on_the_way(file):
    path = ROOT / file
    assert set(imports(path)) == {"__future__.annotations", "torch"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert not node.decorator_list and not node.args.defaults and not node.args.kw_defaults, node.name
        assert not isinstance(node, ast.ClassDef)


def test_nnsight_is_imported_where_it_is_run_and_where_its_requests_are_sent():
    users = [module_name(path) for path in FILES if any(name.split(".")[0] == "nnsight" for name in imports(path))]
    assert users == ["ndif.client", "traces"]


def test_files_stay_short():
    assert {module_name(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 300} == {}


def test_importing_the_package_is_light():
    heavy = "import sys, nnsteer; print([m for m in ('torch', 'nnsight', 'transformers', 'datasets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in nnsteer.__all__:
        assert getattr(nnsteer, name) is not None
