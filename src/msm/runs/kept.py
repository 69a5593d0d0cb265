"""What a stopped sampling run left, and whether the next one may use it."""

import json
from collections.abc import Sequence

from torch import Tensor

from ..config import identity
from ..config.load import Config
from ..denoiser import PartialDenoiser
from ..output.run_folder import versions
from ..sample.kept_batches import Parts
from ..system.files import fingerprint


def kept_parts(config: Config, denoiser: PartialDenoiser, names: Sequence[str], data: Sequence[Tensor]) -> Parts:
    """What a stopped run of the same settings, weights and data left; masks and noise of items follow from names."""
    texts = [json.dumps([identity.samples(config), versions()]), denoiser.schedule.device.type, *names]
    return Parts(config.setting.save_dir, fingerprint(texts, [*denoiser.tensors(), *data]))
