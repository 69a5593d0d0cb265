"""The import arrows of the house, read off the source, room by room: no module is exempt."""

import ast
from pathlib import Path

import mypy.api
import pytest

import msm

SOURCE = Path(msm.__file__).parent
GROUND = {"paper", "masks", "network", "errors", "system"}  # the files of the top level are the room "paper"
ROOMS = {  # what a folder may import
    "errors": set(),
    "system": {"errors"},
    "masks": {"errors"},
    "network": {"errors", "system"},
    "paper": GROUND,
    "data": GROUND,
    "config": GROUND,
    "train": {"data", "config", *GROUND},
    "sample": {"data", "config", *GROUND},
    "output": {"data", "config", *GROUND},
    "raw": {"sample", "output", "data", "config", *GROUND},
    "evaluate": {"sample", "output", "data", "config", *GROUND},
    "report": {"evaluate", "output", "data", "config", *GROUND},
    "interop": GROUND,
    "runs": {"train", "raw", "evaluate", "sample", "output", "data", "config", *GROUND},
}
ROOMS["cli"] = {*ROOMS}
FILES = sorted(SOURCE.rglob("*.py"))


def module(path):
    return path.relative_to(SOURCE).with_suffix("").parts


def room(parts):
    """The room of a module: its folder, or of the top level paper, errors or cli."""
    if len(parts) > 1 or (SOURCE / parts[0]).is_dir():
        return parts[0]
    return {"errors": "errors", "cli": "cli", "__main__": "cli"}.get(parts[0], "paper")


def imports(path):
    """Modules of msm that a file imports, anywhere in it."""
    package = module(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                name = (*base, *(node.module or "").split(".")) if node.module else base
            elif (node.module or "").split(".")[0] == "msm":
                name = tuple(node.module.split(".")[1:])
            else:
                continue
            for alias in node.names:
                deeper = (*name, alias.name)
                is_module = (SOURCE.joinpath(*deeper).with_suffix(".py")).exists() or SOURCE.joinpath(*deeper).is_dir()
                yield deeper if is_module else name
        elif isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "msm")


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module(path)))
def test_arrows(path):
    own = room(module(path))
    for name in imports(path):
        assert room(name) in {own, *ROOMS[own]}, f"{own} may not import {'.'.join(name)}"


@pytest.mark.parametrize("name", ["sampling", "losses"])
def test_samplers_and_losses_know_no_network(name):
    assert "network" not in {room(found) for found in imports(SOURCE / f"{name}.py")}


def test_no_circles():
    """Neither of rooms nor of modules."""
    arrows = {}
    for path in FILES[1:]:  # __init__.py only names them
        name = module(path)[:-1] if path.stem == "__init__" else module(path)
        arrows[name] = {*imports(path)} - {name}
    rooms = {}
    for name, found in arrows.items():
        rooms.setdefault((room(name),), set()).update((room(other),) for other in found if room(other) != room(name))
    for graph in (arrows, rooms):
        left = dict(graph)
        while free := [name for name, found in left.items() if not found & left.keys()]:
            for name in free:
                del left[name]
        assert not left, f"in circles: {sorted(left)}"


def test_every_public_name_is_there():
    assert all(getattr(msm, name) is not None for name in msm.__all__) and len(msm.__all__) > 25
    with pytest.raises(AttributeError, match="generat"):
        msm.generat  # noqa: B018


def test_a_type_checker_knows_the_public_names(tmp_path, monkeypatch):
    """`msm.generate` is a function to it, and a misspelt name an error."""
    (tmp_path / "user.py").write_text("import msm\n\nreveal_type(msm.generate)\nmsm.generat\n")
    monkeypatch.chdir(Path(__file__).parents[1])  # where `make test` has left the checker's cache
    told, _, code = mypy.api.run([str(tmp_path / "user.py")])
    assert code == 1 and 'Revealed type is "def (denoiser: msm.denoiser.Denoiser' in told
    assert 'Module has no attribute "generat"' in told


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda path: path.stem)
def test_no_test_imports_another(path):
    """What tests share is in modules of its own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {getattr(node, "module", None) or "", *(alias.name for alias in node.names)}
            assert not [name for name in names if name == "conftest" or name.startswith("test_")]
