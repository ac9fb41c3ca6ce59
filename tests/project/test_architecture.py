"""The rooms of the house: what may import what."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest
from helpers.paths import ROOT

PACKAGES = ("pspnet_repro", "prototxt_import", "experiments")
# Lowest first: a module imports those of its own floor and of lower ones.
FLOORS = {
    "pspnet_repro": [{"errors", "glibc", "words"},
                     {"defaults", "differences", "files", "protobuf", "torchrun"},
                     {"outputs", "distributed"}, {"ops"}, {"sync_bn"}, {"exact"}, {"model"},
                     {"weights"}, {"data"}, {"evaluation"}, {"training"}, {"commands"},
                     {"__main__"}],
    "prototxt_import": [{"format"}, {"layers"},
                        {"alignment", "ends", "inputs", "parameters", "schedule", "update_rules"},
                        {"net", "snapshot", "solver", "solver_settings", "splits"},
                        {"conversion"}, {"commands"}, {"__main__"}],
    "experiments": [{"children", "peak_memory", "places", "profiles", "provenance", "rows",
                     "systems"},
                    {"plan"}, {"experiment"}, {"run_row"}, {"bench", "cost"}, {"report"},
                    {"run_table"}, {"demo"}],
}
# Inside a function: Caffe's files in place of weights, and the commands of the other packages.
LATE = {("pspnet_repro.weights.source", "prototxt_import"),
        ("pspnet_repro.__main__", "prototxt_import")}


def _modules():
    """{name: path} of all modules; a package is named by its __init__.py."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
             if "results" not in path.parts and "runs" not in path.parts]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
            for path in paths}


MODULES = _modules()


def _imports(name, path):
    """(module, whether inside a function) of each of our modules that a file imports."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {node for function in ast.walk(tree)
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[:len(package.split(".")) - node.level + 1] if (
                node.level) else []
            base = ".".join([*start, *filter(None, [node.module])])
            wanted = [full if (full := f"{base}.{alias.name}") in MODULES else base
                      for alias in node.names]
        else:
            continue
        yield from ((module, node in late) for module in wanted if module in MODULES)


IMPORTS = {name: sorted(set(_imports(name, path))) for name, path in MODULES.items()}


def test_imports_form_no_circle():
    assert len(IMPORTS) > 150
    # A package imports its parts; that they lie in it is no import.
    graph = {name: {module for module, late in imports if not late and module != name}
             for name, imports in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_one_above_it(package):
    floors = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}

    def floor(module):
        return floors[module.split(".")[1]]

    inside = [name for name in MODULES if name.startswith(f"{package}.")]
    upwards = [f"{name} imports {module}" for name in inside for module, _ in IMPORTS[name]
               if module.startswith(f"{package}.") and floor(module) > floor(name)]
    assert inside and not upwards


def test_packages_depend_on_each_other_one_way():
    allowed = {"pspnet_repro": {"pspnet_repro"},
               "prototxt_import": {"prototxt_import", "pspnet_repro"}, "experiments": set(PACKAGES)}
    others = {(name, module.split(".")[0]) for name, imports in IMPORTS.items()
              for module, late in imports
              if module.split(".")[0] not in allowed[name.split(".")[0]]}
    assert others == LATE
    assert all(late for name, _ in LATE for module, late in IMPORTS[name]
               if module.startswith("prototxt_import"))


@pytest.mark.parametrize("name", MODULES)
def test_files_are_short(name):
    if not MODULES[name].name.endswith("_pb2.py"):
        assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 320


TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_import_no_test_and_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 320
    modules = [module for node in ast.walk(ast.parse(text)) for module in (
        [alias.name for alias in node.names] if isinstance(node, ast.Import) else
        [node.module or ""] if isinstance(node, ast.ImportFrom) else [])]
    assert not [module for module in modules
                if module.rpartition(".")[2].startswith(("test_", "conftest"))]
