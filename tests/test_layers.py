"""The house stands: a lower layer never imports a higher one, and importing jaxdiff loads no extra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxdiff

ROOT = Path(jaxdiff.__file__).parent

LAYERS = {
    "types": 0,
    "errors": 0,
    "numerics": 0,
    "chemistry": 0,
    "geometry": 0,
    "schedules": 1,
    "gammas": 1,
    "alphas": 1,
    "grids": 1,
    "processes": 1,
    "parameterizations": 2,
    "denoisers": 2,
    "beliefs": 2,
    "preconditioning": 2,
    "guidance": 2,
    "oracles": 2,
    "losses": 3,
    "samplers": 3,
    "likelihood": 3,
    "training": 4,
    "theory": 4,
    "runs": 5,
    "domains": 4,
    "recipes": 5,
    "pretrained": 5,
    "cli": 5,
    "networks": 4,  # the side columns: used from layer 4 up
    "data": 4,
    "metrics": 4,
}
SIDE_COLUMNS = ("networks", "data", "metrics")
EXTRAS = (
    "flax",
    "optax",
    "orbax",
    "grain",
    "sklearn",
    "matplotlib",
    "scipy",
    "PIL",
    "rich",
    "tensorboardX",
    "absl",
    "rdkit",
)


def rooms():
    """(room, file) of every module but the package's own door."""
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, file


def imported(file):
    """The rooms of jaxdiff that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("jaxdiff."))


def test_every_room_has_a_layer():
    assert {room for room, _ in rooms()} <= LAYERS.keys()


def test_a_lower_layer_never_imports_a_higher_one():
    climbs = [
        f"{file.relative_to(ROOT)} (layer {LAYERS[room]}) imports {other} (layer {LAYERS[other]})"
        for room, file in rooms()
        for other in imported(file)
        if LAYERS[other] > LAYERS[room]
    ]
    assert not climbs, climbs


def test_a_side_column_imports_the_words_alone():
    leans = [
        f"{file.relative_to(ROOT)} imports {other}"
        for room, file in rooms()
        if room in SIDE_COLUMNS
        for other in imported(file)
        if other != room and LAYERS[other] > 0
    ]
    assert not leans, leans


def modules_imported(file):
    """The full names of what a file imports of jaxdiff."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_recipe_imports_no_sibling_and_what_recipes_share_imports_no_recipe():
    names = jaxdiff.recipes.__all__
    found = []
    for room, file in rooms():
        inside = file.relative_to(ROOT).parts
        own = inside[1].removesuffix(".py") if room == "recipes" and len(inside) > 1 else ""
        if room not in ("runs", "domains") and own not in names:
            continue
        for module in modules_imported(file):
            other = module.split(".")[2:3]
            if module.startswith("jaxdiff.recipes.") and other != [own]:
                found.append(f"{file.relative_to(ROOT)} imports {module}")
            if room == "domains" and module.startswith("jaxdiff.runs"):
                found.append(f"{file.relative_to(ROOT)} imports {module}")
    assert not found, found


def test_importing_jaxdiff_and_its_functions_loads_no_extra():
    core = [room for room, layer in LAYERS.items() if layer <= 3 and room in jaxdiff.__all__]
    program = (
        "import sys, jaxdiff as jd\n"
        "assert 'jax' not in sys.modules, 'import jaxdiff alone loads JAX'\n"
        f"for room in {core!r}:\n"
        "    getattr(jd, room)\n"
        f"print(*sorted(set({EXTRAS!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_unknown_namespace_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no_such_room.*processes"):
        _ = jaxdiff.no_such_room
    assert dir(jaxdiff) == jaxdiff.__all__
