"""Networks that are written to a folder and read from it: config.json, their settings, and model.safetensors."""

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import DataError, is_damage
from ..system.files import write_text
from ..system.manifest import check, read_json, replacing
from ..system.packed import refuse_packed

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class StoredNetwork(nn.Module):
    """A network around a module, under whose names the weights are stored.

    Attributes:
        divisor: of which the sides of its images are multiples.
    """

    divisor: int

    @property
    @abstractmethod
    def inner(self) -> nn.Module:
        """The module that holds the weights."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the network is, ready for JSON."""

    def save(self, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        """Write settings and weights; a file already there is replaced only once the new one is whole.

        Args:
            folder: created if missing.
            dtype: floating type of the stored weights; float16 halves the size.

        Raises:
            ValueError: dtype is not a floating type.
        """
        if not dtype.is_floating_point:
            raise ValueError(f"weights cannot be saved as {dtype}, expected a floating type")
        with replacing(Path(folder), lambda name: name in (CONFIG_FILE, WEIGHTS_FILE), force=True) as filled:
            self.write(filled, dtype)

    def write(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """The files of `save`, into a folder that holds none of them, made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: _of_type(value, dtype).contiguous() for name, value in self.inner.state_dict().items()}
        (folder / WEIGHTS_FILE).write_bytes(safetensors.torch.save(weights, {"format": "pt"}))  # save_file: private
        write_text(folder / CONFIG_FILE, json.dumps(self.settings, indent=2) + "\n")

    def read(self, folder: str | os.PathLike[str]) -> dict[str, Tensor]:
        """Weights that `save` wrote, by name; they are not taken up yet.

        Raises:
            DataError: a file is missing or damaged, or of a network of other settings.
        """
        found, path = read_settings(folder), Path(folder) / WEIGHTS_FILE
        if found != self.settings:
            raise DataError(f"{Path(folder) / CONFIG_FILE}: is of a network {found}, here it is {self.settings}")
        tensors = read_tensors(path)
        check_tensors(path, shapes(self.inner), tensors)
        return tensors

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up weights from `read`, in place."""
        self.inner.load_state_dict(tensors)


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings that `StoredNetwork.save` wrote.

    Raises:
        DataError: a file is missing, or it is damaged.
    """
    for path in (Path(folder) / CONFIG_FILE, Path(folder) / WEIGHTS_FILE):
        if not path.is_file():
            raise DataError(f"{path}: no such file (a network is {CONFIG_FILE} and {WEIGHTS_FILE})")
    return read_json(Path(folder) / CONFIG_FILE, "the settings of a network")


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a module."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _of_type(value: Tensor, dtype: torch.dtype) -> Tensor:
    """On the CPU; counters and other whole numbers keep their type."""
    return value.to("cpu", dtype if value.is_floating_point() else value.dtype)


def read_tensors(path: Path) -> dict[Any, Any]:
    """Read a .safetensors file or a PyTorch pickle of plain values, without running anything it holds.

    Raises:
        DataError: it is missing, damaged, or something else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; copy it from where it was written")
    check(path, "copy it again from where it was written")
    if path.suffix == ".safetensors":
        path.open("rb").close()  # without rights or handles safetensors says that there is no such file
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise DataError(f"{path}: damaged, or not a safetensors file; copy or make it again") from error
    refuse_packed(path, str(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle may raise anything
        if not is_damage(error):
            raise
        raise DataError(
            f"{path}: not a readable state dict of plain tensors (code in it is never run); copy it again or, where "
            "it was made, write its state dict alone by torch.save"
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    return content


def check_tensors(path: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[Any, Any]) -> None:
    """Raise DataError, naming the file and the first offenders, unless names, shapes and types fit."""
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [repr(name) for name in found if name not in expected],
        "misshapen": [
            f"{name}, {_describe(found[name], shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in found and _describe(found[name], shape) != str(list(shape))
        ],
    }
    problems = [f"{len(names)} {kind} (first: {names[0]})" for kind, names in kinds.items() if names]
    if problems:
        raise DataError(f"{path}: tensors do not fit the network's settings: {'; '.join(problems)}")


def _describe(value: Any, wanted: tuple[int, ...]) -> str:
    """Shape of an ordinary tensor of weights, or of a counter where one is wanted, else what the value is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    is_number = value.is_floating_point() or wanted == ()
    if not is_number or value.layout != torch.strided or value.device.type != "cpu":
        return f"a {value.dtype} {value.layout} tensor on {value.device}"
    return str(list(value.shape))
