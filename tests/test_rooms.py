"""The order of the rooms: a module imports only from rooms further down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "raysparse"

# From the top down; rooms of one line do not import each other.
ORDER = [
    {"__main__"},
    {"cli"},
    {"launch"},
    {"job"},
    {"report"},
    {"callbacks"},
    {"search"},
    {"train"},
    {"sharding", "cost", "sparsity"},
    {"models"},
    {"data"},
    {"config"},
    {"errors"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports_package(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imports_of(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_from_rooms_further_down(path: Path):
    room = room_of(path)
    assert room in LEVEL, f"{room} is no room; give it a place in ORDER and in the README"
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "raysparse" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != room:
            assert LEVEL[parts[1]] > LEVEL[room], f"{path.name} of {room} imports {name}"


def test_ray_is_known_to_launch_alone():
    assert {room_of(path) for path in MODULES if imports_package(path, "ray")} == {"launch"}


def test_sharding_alone_knows_torchrec_distributed():
    assert {room_of(path) for path in MODULES if imports_package(path, "torchrec.distributed")} == {"sharding"}


def test_models_know_no_ranks():
    for path in MODULES:
        if room_of(path) in ("models", "data", "cost"):
            assert not imports_package(path, "torch.distributed"), path
