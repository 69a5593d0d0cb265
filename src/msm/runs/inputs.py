"""What a run reads, as its config says: the items of a data folder, the store that is trained on."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import cast

from ..config.build import make_masks
from ..config.load import Config
from ..config.measured import BoxMaskConfig, DataConfig
from ..data.acquire import RemaskedAcquisitions, Source, acquire
from ..data.images import Split, item_names, photos, slices
from ..data.noise_level import with_noise
from ..data.prepared_fastmri import scans
from ..data.store import Acquisitions, MeasurementStore, StoreWriter, TruthWriter
from ..errors import ConfigError, DataError, MsmError
from ..output.run_folder import CHECKPOINTS, NOISE, STORE, run_config
from ..system.console import track, warn
from ..system.places import CONFIG, weights_folder

READ = 16  # items that are checked at a time


def sources(data: DataConfig, folder: Path, split: str) -> Iterator[Source]:
    """The items of a data folder, as data.kind says."""
    if split not in ("train", "test"):
        raise ConfigError(f"--split: found {split!r}; it should be train or test")
    part = cast(Split, split)
    if data.kind == "images":
        items = photos(folder, part, data.held_out, data.image_size, data.channels)
    elif data.kind == "raw":
        raise DataError(f"{folder}: raw files are imported by `msm acquire FILE... -o STORE.h5`; use that store")
    elif data.kind == "slices":
        items = slices(folder, part, data.held_out, data.image_size, data.coils, data.seed, data.phase_detail)
    else:
        items = scans(folder, part, data.image_size, data.demo)
    return islice(items, data.limit)


def data_folder(config: Config, what: str) -> Path:
    """setting.dataset_dir, which is to be what a command needs.

    Raises:
        ConfigError: it is not set.
    """
    if config.setting.dataset_dir is None:
        raise ConfigError(f"setting.dataset_dir: missing; set it to {what}")
    return config.setting.dataset_dir


def write_store(config: Config, split: str, path: Path, truth: Path | None) -> int:
    """Measure every item of a data folder once; returns how many there were."""
    data, folder = config.data, data_folder(config, "the folder with the images")
    masks = make_masks(data.mask, data.image_size)
    provenance = {"source": folder.name, "split": split, "data": data.model_dump(mode="json")}
    count = 0
    with ExitStack() as stack:
        store = stack.enter_context(StoreWriter(path, provenance))
        images = stack.enter_context(TruthWriter(truth, provenance)) if truth else None
        for item in track(sources(data, folder, split), "measuring"):
            m = acquire(item, masks, data.noise_std, data.seed)
            store.add(item.name, m.values[0], m.mask[0], item.maps, data.noise_std)
            if images is not None:
                images.add(item.name, item.image)
            count += 1
        if not count:
            raise DataError(f"{folder}: no items for the {split} split; correct setting.dataset_dir")
    return count


def open_store(config: Config, folder: Path) -> MeasurementStore:
    """The store to train on; a data folder is measured once, into the run folder, a store is read through once."""
    path = config.setting.dataset_dir
    if path is not None and path.suffix == ".h5":
        store = MeasurementStore(path)
        for i in track(range(0, len(store), READ), "checking") if not (folder / CHECKPOINTS).exists() else ():
            store.batch(range(i, min(i + READ, len(store))))  # a bad item would otherwise stop the run at its turn
        return store
    measured = folder / STORE
    if not measured.exists():
        write_store(config, "train", measured, None)
    store = MeasurementStore(measured)
    elsewhere = "use another setting.save_dir, or the config that the run was started with"
    made = store.provenance.get("data") or {}  # of an older version it may lack settings that are newer
    if any(made.get(name, value) != value for name, value in config.data.model_dump(mode="json").items()):
        raise ConfigError(f"{measured}: was measured with another `data` block than the config's; {elsewhere}")
    if path is not None and path.is_dir() and config.data.kind != "fastmri":
        names = item_names(path, "train", config.data.held_out)[: config.data.limit]
        if names != store.names(range(len(store))):
            raise ConfigError(f"{measured}: its {len(store)} items are not the {len(names)} of {path}; {elsewhere}")
    return store


def check_masks(data: DataConfig, store: MeasurementStore) -> None:
    """Refuse a simulated store whose masks are not of the config's law; warn of a raw one that looks like another."""
    made = store.provenance.get("data", {}).get("mask")
    wanted = data.mask.model_dump(mode="json")
    if made is not None and made != wanted:
        said = f"data.mask {made}, the config says {wanted}"
        raise ConfigError(f"{store.path}: was measured with {said}; use the config it was made with")
    if data.kind == "raw":
        masks, law = store.masks(READ), make_masks(data.mask, store.shape[-2:])
        kept, expected = masks.float().mean().item(), law.kept
        columns = bool((masks == masks[..., :1, :]).all())
        if not 0.67 < kept / expected < 1.5 or columns != (law.kind == "cartesian"):
            shape = "whole columns" if columns else "points of a plane"
            warn(
                f"{store.path}: its masks keep {kept:.1%}, {shape}; those of data.mask {expected:.1%}: "
                "set data.mask to what was measured, it is p(S) of sub-masks and sampler (docs/how-to/raw_scans.md)"
            )


def training_data(config: Config, folder: Path, divisor: int) -> tuple[MeasurementStore, Acquisitions]:
    """The store to train on, whose sides the divisor divides, and what train.remask and train.noise_std make of it."""
    clean = {"mask": BoxMaskConfig(drop=0, grid=1), "noise_std": 0.0}  # images that train.remask draws masks for
    whole = config.model_copy(update={"data": config.data.model_copy(update=clean)})
    store = open_store(whole if config.train.remask else config, folder)
    sizes = store.shape[-2:] if config.data.kind == "raw" else (config.data.image_size, config.data.image_size)
    if store.shape[-2:] != sizes or store.is_mri != config.data.is_mri:
        raise ConfigError(
            f"{store.path}: holds {'MRI' if store.is_mri else 'images'} of shape {store.shape}; the config's data "
            f"block says {config.data.kind} of {config.data.image_size} px, use the config it was made with"
        )
    if any(side % divisor for side in sizes):
        raise ConfigError(
            f"{store.path}: holds items of {sizes[0]}×{sizes[1]}, the levels of network.channel_mult need multiples "
            f"of {divisor}; use fewer levels, or import with --size"
        )
    data: Acquisitions = store
    if config.train.remask:
        masks = make_masks(config.data.mask, config.data.image_size)
        data = RemaskedAcquisitions(store, masks, config.data.noise_std, config.data.seed)
        how = "masks and noise are drawn from clean images at every step, so training is not on measurements alone"
        warn(f"train.remask: {how}")
    else:
        check_masks(config.data, store)
    return store, with_noise(config.train.noise_std, store, data, folder / NOISE)


def test_items(config: Config) -> list[Source]:
    """The first sample.count items of the test split."""
    folder = data_folder(config, "the folder with the test images")
    items = list(islice(sources(config.data, folder, "test"), config.sample.count))
    if not items:
        raise DataError(f"{folder}: no items in the test split; correct setting.dataset_dir")
    return items


def other_items(config: Config, first: int) -> Iterator[Source]:
    """Items of the test split from number `first` on; none if the folder is not there."""
    folder = config.setting.dataset_dir
    if folder is None or not folder.is_dir():
        return iter(())
    return islice(sources(config.data, folder, "test"), first, None)


def trained_on(config: Config, given: Path | None) -> MeasurementStore | None:
    """The store that the run's weights were trained on: the one given, or what lies in the training run's folder."""
    if given is not None:
        return MeasurementStore(given)
    weights = config.setting.pretrained_model_dir
    run = None if weights is None else weights_folder(weights).parent
    if run is None or not (run / CONFIG).is_file():
        return None
    measured = run / STORE
    path = measured if measured.is_file() else run_config(run).setting.dataset_dir
    return MeasurementStore(path) if path is not None and path.suffix == ".h5" and path.is_file() else None


def trained_names(config: Config, store: MeasurementStore | None) -> set[str]:
    """Names of those images of the run's data folder that the store was measured from."""
    folder = config.setting.dataset_dir
    if store is None or folder is None:
        return set()
    of_folder = (store.provenance.get("source"), store.provenance.get("split")) == (folder.name, "train")
    return set(store.names(range(len(store)))) if of_folder else set()


def seen_in_training(config: Config) -> set[str]:
    """`trained_names` of the store beside the run's weights; none if it is not there, or cannot be read."""
    try:
        return trained_names(config, trained_on(config, None))
    except MsmError:
        return set()
