"""What others install: wheel and source distribution, used without the checkout; the public names; completion."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import msm
from msm.system.places import bundled_configs, bundled_models

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def call(*command: object, **more) -> str:
    """What a command prints; it succeeds, and standard error has notes and warnings of ours alone."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(line.startswith(("msm: note: ", "msm: warning: ")) for line in done.stderr.splitlines()), done.stderr
    return done.stdout


def pip(*arguments: object) -> None:
    call(sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "--quiet", env=ALONE)


ALONE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
ALONE["PYTHONWARNINGS"] = "ignore"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the source distribution of the checkout, and the wheel that is made of that."""
    root = tmp_path_factory.mktemp("built")
    (root / "checkout").mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, root / "checkout")
    for folder in ("benchmarks", "docs", "src", "tests"):
        unbuilt = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, root / "checkout" / folder, ignore=unbuilt)
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=root / "checkout", env=ALONE, capture_output=True)
    shutil.rmtree(root / "checkout")
    pip("wheel", "--no-build-isolation", "--wheel-dir", root, *root.glob("*.tar.gz"))
    return root


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The programs of an environment that has the wheel, and of this one the packages that it needs."""
    root = tmp_path_factory.mktemp("installed")
    venv.create(root)
    (wheel,) = built.glob("*.whl")
    pip("--python", root / "bin" / "python", "install", wheel)
    (packages,) = root.glob("lib/*/site-packages")
    (packages / "needed.pth").write_text(str(Path(pytest.__file__).parents[1]))  # its own .pth files are not read
    return root / "bin"


def test_the_source_distribution_is_the_checkout(built):
    """Its tests and pages come with it."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    here = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py")}
    assert held >= here | {"Makefile", "CHANGELOG.md", "docs/README.md", "src/msm/report/page.css"}
    assert not [name for name in held if "__pycache__" in name or "/." in name]


def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    assert held == {
        path.relative_to(source).as_posix()
        for path in source.glob("msm/**/*")
        if path.is_file() and path.suffix not in (".pyc", ".md", ".py~") and "__pycache__" not in path.parts
    } | {"msm/assets/README.md"}


def test_the_metadata(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    about = Parser().parsestr(archive.read(name).decode())
    assert about["License-Expression"] == "MIT" and about["Requires-Python"] == ">=3.10"
    shown = about.get_payload()
    assert about["Description-Content-Type"] == "text/markdown" and shown.startswith("# msm\n")
    assert "](https://arxiv.org" in shown and not re.findall(r"\]\((?!https:).*?\)", shown)  # no link to a file
    said = about.get_all("Classifier")
    assert {"Typing :: Typed", "Operating System :: POSIX :: Linux", "Intended Audience :: Science/Research"} <= {*said}
    versions = [line.rpartition(" ")[2] for line in said if re.search(r":: 3\.\d+$", line)]
    assert versions == ["3.10", "3.11", "3.12", "3.13"]  # those tested
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in versions


def test_it_runs_without_the_checkout(installed, tmp_path):
    """Help, version, configs and models, and a run of one of these."""
    where = {"cwd": tmp_path, "env": ALONE}
    python = installed / "python"
    assert Path(call(python, "-c", "import msm; print(msm.__file__)", **where)).is_relative_to(installed.parent)
    assert "import-weights" in call(installed / "msm", "--help", **where)
    assert call(installed / "msm", "--version", **where) == f"msm {PROJECT['version']}\n"
    listed = call(installed / "msm", "configs", **where)
    assert [line.split()[0] for line in listed.splitlines()] == [*bundled_configs(), *bundled_models()]
    few = ["sample.count=1", "sample.steps=2", "sample.draws=1", "setting.save_dir=made"]
    call(installed / "msm", "sample", "bundled:faces", *few, **where)
    assert (tmp_path / "made" / "images.npy").is_file()


@pytest.mark.slow
def test_the_demo_of_the_wheel(installed, tmp_path):
    call(installed / "msm", "demo", cwd=tmp_path, env=ALONE)
    assert len([*(tmp_path / "runs" / "demo").rglob("*.png")]) > 5


def test_extras_that_errors_name_install_what_is_missing():
    """`optional(module, purpose, extra)`: the extra is one of ours, and has the module's package."""
    named = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "optional":
                module, _, extra = (ast.literal_eval(argument) for argument in node.args)
                named.append((module.partition(".")[0].replace("_", "-"), extra))
    extras = PROJECT["optional-dependencies"]
    assert len(named) > 4
    for package, extra in named:
        assert any(re.match(rf"{package}\b", line) for line in extras[extra]), f"{package} is not in [{extra}]"
    told = re.findall(r"msm-diffusion\[(\w+)\]", "".join(path.read_text() for path in ROOT.rglob("docs/**/*.md")))
    assert told and {*told} <= {*extras}


def complete(*words: str, **more) -> list[str]:
    """What bash is told of the last word."""
    asked = {"_MSM_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    return call(sys.executable, "-m", "msm", env=os.environ | asked).split()


def test_completion(tmp_path):
    """Commands, options, and the names of configs; of files the shell knows itself."""
    assert complete("msm", "tra") == ["train"]
    assert complete("msm", "sample", "demo/faces", "--fo") == ["--force"]
    assert complete("msm", "train", "demo/") == ["demo/brain", "demo/faces"]
    assert complete("msm", "configs", "bundled:brain_") == ["bundled:brain_refined"]
    assert complete("msm", "sample", "bundled", ":", "faces_") == ["faces_refined"]  # words as bash takes them apart
    assert complete("msm", "configs", "bundled", ":")[:2] == ["brain", "brain_refined"]
    assert complete("msm", "sample", "bundled", ":", "brain", "--fo") == ["--force"]
    assert complete("msm", "train", "no") == complete("msm", "report", "ru") == []
    home = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    said = call(sys.executable, "-m", "msm", "--install-completion", "bash", env=home)
    assert said.startswith("bash completion installed in")
    assert "_MSM_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "msm.sh").read_text()


def public():
    """The public names, and the public functions of the classes among them, each with what it is."""
    for name in msm.__all__:
        value = getattr(msm, name)
        yield name, value
        for member, function in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(function, "__func__", getattr(function, "fget", function))
            if inspect.isfunction(function) and not member.startswith("_"):
                yield f"{name}.{member}", function


@pytest.mark.parametrize(("name", "value"), public(), ids=lambda given: given if isinstance(given, str) else "")
def test_every_public_name_is_typed_and_documented(name, value):
    """Each parameter and result has a type; Args, where they stand, are the parameters, and functions have them."""
    text, signature = inspect.getdoc(value) or "", inspect.signature(value)
    given = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    assert text.partition("\n")[0].endswith((".", ":")), "the first line is a sentence"
    assert not [each.name for each in given if each.annotation is each.empty]
    assert inspect.isclass(value) or signature.return_annotation is not signature.empty
    named = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", text, re.MULTILINE)
    if named:
        assert re.findall(r"^ {4}\**(\w+):", named[1], re.MULTILINE) == [each.name for each in given]
    if "." not in name:
        assert named or not given
        assert inspect.isclass(value) or "\nReturns:\n" in text
