"""What holds the packages together: imports go one way, versions agree, nothing is tied to one machine."""

import ast
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bench

ROOT = Path(__file__).parents[1]
LAYERS = ("distillm", "baselines", "bench", "paper_tables")
"""Each may import itself and those before it."""
ROOMS = {
    "bench": (
        ("system",),
        ("metrics", "synthetic"),
        ("data",),
        ("config",),
        ("record",),
        ("models",),
        ("evaluation",),
        ("training",),
        ("experiment",),
        ("analysis",),
        ("judge",),
        ("perf",),
        ("recommend",),
        ("cli",),
    ),
    "paper_tables": (
        ("paper",),
        ("numbers",),
        ("suite", "tables", "claims", "figures"),
        ("report",),
        ("verify",),
        ("performance",),
        ("cli", "regime", "published"),
    ),
}
"""The rooms of a package, from the bottom up; each may import those below it, and none beside it."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if not line.startswith("#"))
PINNED = {canonicalize_name(name): version for name, version in PINNED.items()}
COMES_WITH = {"pydantic-core": "pydantic"}
"""Packages the code imports that are a part of one it requires."""
OPTIONAL = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0] if not node.level else path.relative_to(ROOT).parts[0])
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer):
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    forbidden = {*LAYERS[LAYERS.index(layer) + 1 :], "tests"}
    wrong = {path.relative_to(ROOT).as_posix(): sorted(imported(path) & forbidden) for path in files}
    assert not {path: names for path, names in wrong.items() if names}


def modules_imported(path: Path) -> set[str]:
    """Dotted names of what a file imports, anywhere in it, and of what it imports from there."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide which room they reach"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize(
    ("package", "room", "below"),
    [
        (package, room, {r for lower in floors[:level] for r in lower})
        for package, floors in ROOMS.items()
        for level, floor in enumerate(floors)
        for room in floor
    ],
)
def test_rooms_import_downwards_only(package, room, below):
    rooms = {name for floor in ROOMS[package] for name in floor}
    folder = ROOT / package / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    wrong = {}
    for path in files:
        reached = {
            parts[1] for name in modules_imported(path) if (parts := name.split("."))[0] == package and parts[1:]
        }
        if bad := (reached & rooms) - below - {room}:
            wrong[path.relative_to(ROOT).as_posix()] = sorted(bad)
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_every_module_is_in_a_room(package):
    rooms = {name for floor in ROOMS[package] for name in floor}
    found = {path.stem for path in (ROOT / package).iterdir() if path.is_dir() or path.suffix == ".py"}
    assert found - {"__init__", "__pycache__", "py"} == rooms


def test_the_library_stands_alone():
    """`distillm` needs PyTorch and the standard library only, so that its losses can be used elsewhere."""
    names = set().union(*(imported(path) for path in (ROOT / "distillm").rglob("*.py")))
    installed = importlib.metadata.packages_distributions()
    assert names & installed.keys() <= {"distillm", "torch"}


@pytest.mark.parametrize("layer", LAYERS)
def test_no_path_of_one_machine(layer):
    # an absolute path of two parts and more; /proc is the kernel's and the same everywhere, /v1 begins an API's
    absolute = re.compile(r"""(?:^|[\s"'`=(,])(/(?!proc/|v1/)[\w.-]+/[\w./-]+|[A-Z]:\\\w+)""", re.MULTILINE)
    texts = [p for p in (ROOT / layer).rglob("*") if p.suffix in {".py", ".yaml", ".txt", ".json"}]
    found = {}
    for path in texts:
        text = path.read_text(encoding="utf-8")
        hits = absolute.findall(text) + [str(folder) for folder in (ROOT, Path.home()) if f"{folder}/" in text]
        if hits:
            found[path.relative_to(ROOT).as_posix()] = hits[:3]
    assert not found


def test_the_version_is_one():
    assert bench.__version__ == PROJECT["version"]


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *OPTIONAL])
def test_pinned_versions_satisfy_what_is_required(text):
    required = Requirement(text)
    version = PINNED.get(canonicalize_name(required.name))
    if version is None:
        # not in the default environment: a driver's library, and what `bench perf` compares with, pinned by its extra
        assert text in PROJECT["optional-dependencies"]["energy"] or (
            text in PROJECT["optional-dependencies"]["perf"] and "==" in text
        ), f"{text} is not pinned in constraints.txt"
    else:
        assert required.specifier.contains(version), f"{text}, but constraints.txt pins {version}"


def test_what_is_imported_is_required():
    """Every third-party package the code imports is one that pyproject.toml names."""
    distributions = importlib.metadata.packages_distributions()
    required = {canonicalize_name(Requirement(text).name) for text in [*PROJECT["dependencies"], *OPTIONAL]}
    names = set().union(*(imported(path) for layer in LAYERS for path in (ROOT / layer).rglob("*.py")))
    third_party = {
        name: {COMES_WITH.get(one, one) for one in map(canonicalize_name, distributions[name])}
        for name in names & distributions.keys()
    }
    missing = {name: owners for name, owners in third_party.items() if name not in LAYERS and not owners & required}
    assert not missing
