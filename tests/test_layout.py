"""The import arrows of the design, read off the source."""

import ast
from pathlib import Path

import pytest

import msm

SOURCE = Path(msm.__file__).parent
LEAF: set[str] = set()
ALLOWED = {
    "schedule": LEAF,
    "masks": LEAF,
    "density": {"masks"},
    "transforms": LEAF,
    "linear": LEAF,
    "network": LEAF,
    "metrics": LEAF,
    "perceptual": LEAF,
    "intervals": LEAF,
    "uncertainty": {"transforms"},
    "memorisation": {"data", "measurement"},
    "memory": LEAF,
    "processes": {"memory"},
    "measurement": {"transforms"},
    "operators": {"transforms"},
    "noise": {"measurement"},
    "sense": {"transforms", "linear"},
    "denoiser": {"schedule", "transforms", "sense"},
    "losses": {"denoiser", "measurement", "schedule", "masks"},
    "likelihood": {"linear", "sense", "transforms"},
    "sampling": {"denoiser", "likelihood", "schedule", "masks", "transforms", "sense"},
    "batches": {"settings", "losses", "masks", "measurement", "data"},
    "checkpoints": LEAF,
    "stopping": LEAF,
    "parts": LEAF,
    "training": {
        "settings",
        "denoiser",
        "losses",
        "masks",
        "data",
        "memory",
        "processes",
        "batches",
        "checkpoints",
        "schedule",
        "stopping",
    },
    "baselines": {"transforms", "linear"},
    "classical": {"baselines", "evaluation", "metrics"},
    "records": {"config", "data"},
    "judge": {
        *("classical", "config", "data", "evaluation", "intervals", "memorisation", "metrics", "operators"),
        *("perceptual", "records", "report", "uncertainty"),
    },
    "charts": LEAF,
    "paper": {"config", "settings"},
    "tables": {"intervals", "metrics", "paper", "records", "uncertainty"},
    "plots": {"charts", "intervals", "records", "tables", "uncertainty"},
    "gallery": {"records", "report"},
    "page": {"config", "gallery", "plots", "records", "report", "tables"},
    "presets": LEAF,
    "settings": {"presets"},
    "config": {"presets", "published", "settings"},
    "published": LEAF,
}


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("msm")):
            module = (node.module or "").removeprefix("msm").lstrip(".")
            found |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("msm.")}
    return found


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_arrows(module):
    assert imports(SOURCE / f"{module}.py") <= ALLOWED[module]


def test_nothing_imports_the_command_line():
    """Nor the files that put parts together for it."""
    own = {"cli", "inputs", "weights", "runs"}
    others = [path for path in SOURCE.rglob("*.py") if path.stem not in own | {"__main__"}]
    assert len(others) > 10 and not any(own & imports(path) for path in others)


def test_every_public_name_is_there():
    assert all(getattr(msm, name) is not None for name in msm.__all__)
