"""The main job on bundled data: what `msm demo` runs, in a few minutes on two cores.

The networks were trained on undersampled measurements only, and never on what they are shown here: slices of a brain
volume, measured at R = 4, 6 and 8, and a portrait with a hole, or four times too small.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..config.load import Config, load_config
from ..data.acquire import Source
from ..data.samples import brain_slices, portrait
from ..denoiser import PartialDenoiser
from ..evaluate.classical import fitting
from ..evaluate.comparison import all_pictures, reconstructions, write_compared
from ..evaluate.records import Record, score, summary, write_scores
from ..output.figures import write_picture
from ..sample.draw import posterior_samples, prior_samples
from ..sample.observe import coil_maps, observe
from ..system.console import progress, say, table
from ..system.places import BUNDLED
from ..system.processes import arithmetic
from .weights import on_its_masks, trained_denoiser

Configured = Callable[[str], Config]  # the config with an inverse problem, "null" to generate


def run_demo(folder: Path) -> None:
    """Show what the bundled weights do, in figures and tables of a folder."""
    for name, show in {"brain_refined": brain, "faces_refined": faces}.items():
        config = bundled(name, "null")
        denoiser = trained_denoiser(config, Path(f"{BUNDLED}{name}"))
        with arithmetic(config.sample.mixed_precision):
            show(denoiser, lambda problem: on_its_masks(bundled(name, problem), denoiser), folder)  # noqa: B023
    pictures = ", ".join(sorted(path.name for path in folder.glob("*.png")))
    say(f"{folder}: {pictures}; scores in brain.csv and faces.csv")


def bundled(name: str, problem: str) -> Config:
    """The config of bundled weights, with the preset `best` and an inverse problem; "null" to generate."""
    model = f"{BUNDLED}{name}"
    given = [f"setting.pretrained_model_dir={model}", "sample.preset=best", f"inverse_problem={problem}"]
    return load_config(model, given)


def brain(denoiser: PartialDenoiser, configured: Configured, folder: Path) -> None:
    """Reconstruct brain slices at R = 4, 6 and 8, and generate new ones."""
    config = configured("null")
    items = brain_slices(config.data.image_size, config.data.coils)
    assert config.data.mask.kind == "cartesian"
    records = []
    for acceleration in (4, 6, 8):
        mask = f"{{kind: cartesian, acceleration: {acceleration}, center: {config.data.mask.center}}}"
        settled = configured(f"{{operator: undersampling, mask: {mask}}}")
        records += _solve(denoiser, settled, items, f"brain R{acceleration}", folder)
    write_picture(folder / "brain_generated.png", _generate(denoiser, config, coil_maps(items), "brain, new slices"))
    write_scores(folder / "brain.csv", records)


def faces(denoiser: PartialDenoiser, configured: Configured, folder: Path) -> None:
    """Fill a hole in a portrait, enlarge it four times, and generate new faces."""
    config = configured("null")
    items = [portrait(config.data.image_size)]
    hole = configured(f"{{operator: box, hole: {config.data.image_size // 2}}}")
    records = _solve(denoiser, hole, items, "face hole", folder)
    records += _solve(denoiser, configured("{operator: super_resolution, factor: 4}"), items, "face x4", folder)
    write_picture(folder / "faces_generated.png", _generate(denoiser, config, None, "new faces"))
    write_scores(folder / "faces.csv", records)


def _generate(denoiser: PartialDenoiser, config: Config, maps: Tensor | None, label: str) -> Tensor:
    """New images (B, C, H, W)."""
    with progress(label, config.sample.count * config.sample.steps, shared=True) as advance:
        return prior_samples(denoiser, config.data, config.sample, maps, advance)


def _solve(denoiser: PartialDenoiser, config: Config, items: list[Source], label: str, folder: Path) -> list[Record]:
    """Solve one inverse problem in every way, draw a figure, print a table; returns the records."""
    steps = len(items) * config.sample.samples * config.sample.steps
    with progress(label, steps, shared=True) as advance:
        inputs, samples = posterior_samples(denoiser, items, config, advance)
    assert config.inverse_problem is not None
    seen = observe(items, config.inverse_problem, config.data, seed=config.sample.seed)
    truth, names = torch.stack([item.image for item in items]), [item.name for item in items]
    classical = {name: method.run(seen, method.usual) for name, method in fitting(seen).items()}
    made = reconstructions(inputs, classical, samples)
    records = [r for method, (kind, x_hat) in made.items() for r in score(kind, method, x_hat, truth, names)]
    title, pictures = f"{label}; classical methods at fixed settings", all_pictures(made, truth, samples)
    write_compared(folder / f"{label.replace(' ', '_')}.png", title, names, pictures, records)
    table(f"{label}: mean over {len(items)} images, convention plain", summary(records))
    return [record.model_copy(update={"method": f"{label}: {record.method}"}) for record in records]
