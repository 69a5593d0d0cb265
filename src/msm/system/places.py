"""Where what comes with the package lies, and where the weights of a run do."""

from difflib import get_close_matches
from pathlib import Path

from ..errors import ConfigError

PACKAGE = Path(__file__).parents[1]
MODELS, CONFIGS = PACKAGE / "assets", PACKAGE / "configs"  # package data: the same in a wheel
BUNDLED = "bundled:"
CONFIG, RESOLVED, WEIGHTS = "config.yaml", "resolved.yaml", "weights"  # of a run folder


def bundled_models() -> list[str]:
    """Names of the models that come with the package, as `located` takes them."""
    return [f"{BUNDLED}{path.parent.name}" for path in sorted(MODELS.glob("*/config.yaml"))]


def bundled_configs() -> list[str]:
    """Names of the configs that come with the package: their paths in its folder, without the ending."""
    return [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in sorted(CONFIGS.rglob("*.yaml"))]


def is_bundled(path: Path) -> bool:
    """Whether a path is the name of a bundled model, by its beginning."""
    return str(path).startswith(BUNDLED)


def located(path: Path) -> Path:
    """The folder of a bundled model, for its name, "bundled:scan"; any other path as it is.

    Raises:
        ConfigError: there is no model of this name.
    """
    if not is_bundled(path):
        return path
    if str(path) not in bundled_models():
        raise ConfigError(f"{path}: no such model; there are {', '.join(bundled_models())}")
    return MODELS / str(path).removeprefix(BUNDLED)


def weights_folder(path: Path) -> Path:
    """Where the weights lie that a path names: in a bundled model, in a run folder, or there."""
    folder = located(path)
    return folder / WEIGHTS if (folder / WEIGHTS).is_dir() else folder


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, in which nothing is to be taken for data."""
    return (folder / RESOLVED).is_file()


def purpose(name: str) -> str:
    """What a bundled config or model is for: the first line of its file, a comment."""
    return config_file(Path(name)).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def is_config(path: Path) -> bool:
    """Whether a path names a YAML file or what `config_file` takes for one; it need not be there."""
    is_yaml, is_name = path.suffix.lower() in (".yaml", ".yml"), path.as_posix() in bundled_configs()
    return is_yaml or is_name or str(path).startswith(BUNDLED) or (path / CONFIG).is_file()


def config_file(path: Path) -> Path:
    """The YAML file that a path names: a file, that of a run folder, or one that comes with the package, by its name.

    Raises:
        ConfigError: there is nothing of this name.
    """
    folder = located(path)
    if (folder / CONFIG).is_file():
        return folder / CONFIG
    if path.exists() and not path.is_dir():
        return path
    if path.as_posix() in bundled_configs():
        return CONFIGS / f"{path}.yaml"
    if "=" in path.name:
        raise ConfigError(f"{path}: is a setting; CONFIG comes before the settings, for example demo/faces")
    if path.exists():
        raise ConfigError(f"{path}: is a folder without {CONFIG}; name a YAML file, or the folder of a run")
    near = get_close_matches(path.with_suffix("").as_posix(), [*bundled_configs(), *bundled_models()], n=1)
    hint = f"did you mean {near[0]}?" if near else "check the path; `msm configs` lists what comes with the package"
    raise ConfigError(f"{path}: no such file; {hint}")
