"""A denoiser's folder as the Hugging Face hub has it: a model card beside the weights; read back by its name there."""

import os
import re
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from .errors import ConfigError, DataError, one_line
from .masks import Masks
from .network import StoredNetwork
from .system.manifest import MANIFEST, check, check_ours, write_listed
from .system.places import is_bundled

CARD = "README.md"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
Own = TypeVar("Own", bound="Pretrained")
UNKNOWN = "Not recorded: ask whoever trained it."
TEXT = """---
{head}
---

# {name}

A measurement score-based diffusion model ([arXiv 2505.11853](https://arxiv.org/abs/2505.11853)), in the format of the
Python package `msm-diffusion`. It learned from measurements, generates images like those that were measured, and
solves inverse problems of them.

```python
from msm import PartialDenoiser

denoiser = PartialDenoiser.from_pretrained("{name}")  # a folder, or owner/name on the hub
```

## Data

{about}

{data}

## Masks and noise

{measured}

## Scale convention

{scale}

## Training

{training}

## Limits

* It knows images like those that it was trained on. Of others, and wherever little was measured, it makes up detail
  that looks right and is not.
* Samples differ by what a measurement leaves open as far as the model knows, not by how wrong the model is.
* It is for research, not for diagnosis.
{limits}
## Licence

{licence}
"""


class Pretrained:
    """What models of diffusers can do too: `save_pretrained` and `from_pretrained`."""

    masks: Masks | None

    @abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all that is needed into one folder."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """All but the weights."""

    @classmethod
    @abstractmethod
    def load(cls: type[Own], folder: str | os.PathLike[str], network: StoredNetwork | None = None) -> Own:
        """Read what `save` wrote."""

    def save_pretrained(self, folder: str | os.PathLike[str], *, about: str = "", licence: str | None = None) -> None:
        """Write the folder of `save` with a model card in it, README.md: `huggingface_hub` uploads it as it is.

        Args:
            folder: where; its name is that of the model in the card.
            about: what the data are and where they come from, Markdown, for the card.
            licence: of the weights, as the hub calls it, "cc-by-4.0"; None: the card says that none was given.

        Raises:
            ConfigError: a README.md is there that is not ours.
            DataError: it is ours, and somebody went on writing it.
        """
        card = Path(folder) / CARD
        check_ours(card.parent, [CARD])
        check(card, "keep your text elsewhere and remove it")
        text = written(Path(folder).absolute().name, self.described(), self.masks, about, licence)
        self.save(folder)
        write_listed(card, text)

    @classmethod
    def from_pretrained(
        cls: type[Own],
        name: str | os.PathLike[str],
        network: StoredNetwork | None = None,
        *,
        revision: str | None = None,
    ) -> Own:
        """Read a denoiser as `load` does, from a folder or from the hub.

        Args:
            name: a folder, a bundled model, or "owner/name" on the hub if no such folder is here.
            network: as of `load`.
            revision: branch, tag or commit on the hub; None: the newest.

        Returns:
            the denoiser, as of `load`; nothing of the repository is executed.

        Raises:
            DataError: as of `load`, or the hub has no such repository or is out of reach.
        """
        return cls.load(_fetched(str(name), revision), network)


def _fetched(name: str, revision: str | None) -> Path:
    """The folder of that name, or the copy of a repository that the cache of the hub holds then."""
    if Path(name).exists() or is_bundled(Path(name)) or not REPOSITORY.fullmatch(name):
        if revision is not None:
            raise ConfigError(f"{name}: is no repository of the hub; a revision is for those, leave it out")
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors", MANIFEST]))
    except (OSError, ValueError) as error:  # what its errors are, of the network too
        reason = one_line(str(error))[:200]
        raise DataError(f"{name}: no such folder here, and not read from the hub ({reason}); check the name") from error


def written(name: str, described: Mapping[str, Any], masks: Masks | None, about: str, licence: str | None) -> str:
    """The text of a model card.

    Args:
        name: of the model.
        described: as of `PartialDenoiser.described`.
        masks: the law that it was trained on.
        about: what the data are.
        licence: of the weights.

    Returns:
        Markdown behind the YAML that the hub reads.
    """
    from huggingface_hub import ModelCardData

    record = described["record"]
    tags = ["msm-diffusion", "diffusion", "inverse-problems", "self-supervised"]
    head = ModelCardData(license=licence, tags=tags, pipeline_tag="unconditional-image-generation").to_yaml()
    kinds = ("train", "refined", "imported")
    limits = "" if described["error"] else "* The error of its estimates was not measured: `msm calibrate` does it.\n"
    return TEXT.format(
        head=head.strip(),
        name=name,
        about=about.strip() or UNKNOWN,
        data=_facts({kind: record[kind] for kind in ("data", "measurements") if kind in record}),
        measured=_measured(record, described["masks"], masks),
        scale=f"Images are {record['scale']}; so must be what is given to it." if "scale" in record else UNKNOWN,
        training=_facts({kind: record[kind] for kind in kinds if kind in record}) or UNKNOWN,
        limits=limits,
        licence=licence or "None was given. Without one, nobody but the authors may use the weights.",
    )


def _facts(blocks: Mapping[str, Any]) -> str:
    """What is recorded, a line each."""
    lines = []
    for block, content in blocks.items():
        named = content if isinstance(content, Mapping) else {"": content}
        said = {key: value for key, value in named.items() if value is not None}
        lines += [f"* `{'.'.join(filter(None, (block, key)))}`: {value}" for key, value in said.items()]
    return "\n".join(lines)


def _measured(record: Mapping[str, Any], block: Mapping[str, Any] | None, masks: Masks | None) -> str:
    """Which masks and which noise the measurements had, and whether clean images took part."""
    told = [f"{key} {value}" for key, value in (block or {}).items() if not isinstance(value, Tensor)]
    law = ", ".join(told)
    law = f"Masks: {law}; they keep {masks.kept:.0%}." if masks is not None and law else f"Masks: {UNKNOWN}"
    noise = record.get("measurements", record.get("data", {})).get("noise_std")
    rho = "not recorded" if noise is None else f"{noise:g} per real component at most"
    once = "One mask and one draw of noise for each image, for ever: no clean image took part."
    if record.get("train", {}).get("remask"):
        once = "Masks and noise were drawn anew at each step, from clean images (`train.remask`)."
    lines = [law, f"Noise, ρ: {rho}.", once if "train" in record else ""]
    if "refined" in record:
        lines.append("Refined on measurements that it completed: the masks above are what it takes, not what it saw.")
    return "\n".join(filter(None, lines))
