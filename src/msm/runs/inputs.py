"""What a run reads, as its config says: the items of a data folder, the store that is trained on."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..config.build import make_masks
from ..config.load import Config
from ..config.measured import BoxMaskConfig, DataConfig
from ..data.acquire import RemaskedAcquisitions, Source, acquire
from ..data.decode import Rules
from ..data.folder import PHOTOS, Account, Split
from ..data.images import item_names, photos, slices
from ..data.masked import NOTHING, MaskedFolder
from ..data.noise_level import with_noise
from ..data.prepared_fastmri import scans
from ..data.store import Acquisitions, MeasurementStore, StoreWriter, TruthWriter, check_target
from ..errors import ConfigError, DataError, MsmError
from ..masks import EmpiricalMasks
from ..measurement import Measurement, joined
from ..output.run_folder import CHECKPOINTS, NOISE, STORE, run_config
from ..system.console import say, track, warn
from ..system.lock import alone
from ..system.places import is_run, weights_folder

READ = 16  # items that are checked at a time
MASKS, MASK_ENTRIES = 512, 2**24  # masks seen that weights hold, at most, and their pixels: 16 MB


def sources(data: DataConfig, folder: Path, split: str, account: Account | None = None) -> Iterator[Source]:
    """The items of a data folder of complete images, as data.kind says; the account is told what was done with them."""
    part, of_files = _split(split), (data.value_range, account)
    if data.kind == "images":
        items = photos(folder, part, data.held_out, data.image_size, data.channels, *of_files)
    elif data.kind == "raw":
        raise DataError(f"{folder}: raw files are imported by `msm acquire FILE... -o STORE.h5`; use that store")
    elif data.kind == "masked":
        raise ConfigError(f"{folder}: photos that miss pixels are no truth; use data.kind images for complete ones")
    elif data.kind == "slices":
        coils, detail = data.coils, data.phase_detail
        items = slices(folder, part, data.held_out, data.image_size, coils, data.seed, detail, *of_files)
    else:
        items = scans(folder, part, data.image_size, data.demo)
    return islice(items, data.limit)


def masked_items(data: DataConfig, folder: Path, split: str, account: Account) -> Iterator[tuple[str, Measurement]]:
    """Name and measurement of each photo of a folder of data.kind masked, or of a store made of one."""
    if folder.suffix == ".h5":
        store = MeasurementStore(folder)
        check_shape(data, store)
        return islice(((name, store[n]) for n, name in enumerate(store.names(range(len(store))))), data.limit)
    noise_std = None if data.noise_std == "auto" else data.known_noise_std
    rules = Rules(data.channels, data.value_range, complete=False)
    photos_ = MaskedFolder(folder, data.masks_dir, _split(split), data.held_out, data.image_size, rules, noise_std)
    return islice(photos_.items(account), data.limit)


def _split(split: str) -> Split:
    if split not in ("train", "test"):
        raise ConfigError(f"--split: found {split!r}; it should be train or test")
    return cast(Split, split)


def data_folder(config: Config, what: str) -> Path:
    """setting.dataset_dir, which is to be what a command needs.

    Raises:
        ConfigError: it is not set.
    """
    if config.setting.dataset_dir is None:
        raise ConfigError(f"setting.dataset_dir: missing; set it to {what}")
    return config.setting.dataset_dir


def write_store(config: Config, split: str, path: Path, truth: Path | None) -> int:
    """Measure every item of a data folder once, or take what is there of masked photos; returns how many there were."""
    data, folder = config.data, data_folder(config, "the folder with the images")
    if truth is not None and data.kind == "masked":
        raise ConfigError("--truth: of photos that miss pixels nobody has the complete ones; leave it out")
    provenance = {"source": folder.name, "split": split, "data": _described(data)}
    account, count = Account(), 0
    with ExitStack() as stack:
        store = stack.enter_context(StoreWriter(path, provenance))
        images = stack.enter_context(TruthWriter(truth, provenance)) if truth else None
        for name, m, image in track(_acquired(data, folder, split, account), "measuring"):
            maps = None if m.maps is None else m.maps[0]
            store.add(name, m.values[0], m.mask[0], maps, float(m.noise_std))
            if images is not None and image is not None:
                images.add(name, image)
            count += 1
        if not count:
            raise DataError(f"{folder}: no items for the {split} split; correct setting.dataset_dir")
        if left_out := account.left_out[NOTHING]:
            store.provenance["left_out"] = left_out
    _tell(data, folder, account)
    return count


def check_new(path: Path, inputs: Sequence[Path], *, force: bool = False) -> None:
    """Refuse to write over what is read, and over what is there.

    Args:
        path: the file to write.
        inputs: files that are read.
        force: whether a file that is there, but is not read, is replaced.

    Raises:
        ConfigError: with what to do.
    """
    if not path.exists():
        return
    if any(path.samefile(other) for other in inputs if other.exists()):
        raise ConfigError(f"{path}: is read and would be written over; choose another name")
    if not force:
        raise ConfigError(f"{path}: is there already; choose another name (--force replaces it)")


def acquire_store(config: Config, split: str, path: Path, truth: Path | None, *, force: bool = False) -> None:
    """Write a store, and the truth of it, where none is yet, unless force is given; a file that is read stays."""
    source = config.setting.dataset_dir
    inputs = [source] if source is not None and source.is_file() else []
    if truth is not None and os.path.abspath(truth) == os.path.abspath(path):
        raise ConfigError(f"--truth: {truth} is the store itself; choose another name")
    for each in filter(None, (path, truth)):
        check_target(each)
    with alone(path, folder=False):
        if not force and _is_acquired(config, split, path) and (truth is None or truth.is_file()):
            say(f"{path}: holds these acquisitions already (--force makes them again)")
            return
        for each in filter(None, (path, truth)):
            check_new(each, inputs, force=force)
        count = write_store(config, split, path, truth)
    say(f"{path}: {count} acquisitions")


def _is_acquired(config: Config, split: str, path: Path) -> bool:
    """Whether a store is there that a command has made from the same images, by the same settings."""
    folder = data_folder(config, "the folder with the images")
    if not path.is_file() or not folder.is_dir():
        return False
    store = MeasurementStore(path)
    made = {name: store.provenance.get(name) for name in ("source", "split", "data")}
    if made != {"source": folder.name, "split": split, "data": _described(config.data)}:
        return False
    if config.data.kind != "fastmri":
        _check_names(config.data, folder, store, "choose another name (--force replaces it)", _split(split))
    return True


def _tell(data: DataConfig, folder: Path, account: Account) -> None:
    """Say what was done with the files of a folder of images, and what may not have been meant."""
    if data.kind == "fastmri" or folder.suffix == ".h5":
        return
    say(account.line(folder))
    if data.kind == "masked" and account.read == account.done["complete"]:
        other = "data.kind images is for complete photos, data.masks_dir for masks beside them"
        warn(f"{folder}: no photo misses a pixel; {other}")
    if account.there_resized < account.there / 2:
        lost = f"bringing photos to data.image_size {data.image_size} loses more than half of what is there"
        warn(f"{folder}: {lost}: take a larger size, or cut the photos into pieces of that size")


def _acquired(
    data: DataConfig, folder: Path, split: str, account: Account
) -> Iterator[tuple[str, Measurement, Tensor | None]]:
    """Name, measurement and, where it is simulated, truth of each item of a data folder."""
    if data.kind == "masked":
        for name, photo in masked_items(data, folder, split, account):
            yield name, photo, None
        return
    masks = make_masks(data.mask, data.image_size)
    for item in sources(data, folder, split, account):
        yield item.name, acquire(item, masks, data.known_noise_std, data.seed), item.image


def _described(data: DataConfig) -> dict[str, Any]:
    """What a store says of the settings it was measured by: all that is set, but for where masks lie."""
    return data.model_dump(mode="json", exclude={"masks_dir"}, exclude_none=True)


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
    made = {name: value for name, value in store.provenance.get("data", {}).items() if value is not None}
    if any(made.get(name, value) != value for name, value in _described(config.data).items()):
        raise ConfigError(f"{measured}: was measured with another `data` block than the config's; {elsewhere}")
    if path is not None and path.is_dir() and config.data.kind != "fastmri":
        _check_names(config.data, path, store, elsewhere)
    return store


def _check_names(
    data: DataConfig, folder: Path, store: MeasurementStore, elsewhere: str, split: Split = "train"
) -> None:
    """Refuse a store that was measured from other files than the folder holds now."""
    masked = data.kind == "masked"
    names = item_names(folder, split, data.held_out, *((PHOTOS, data.masks_dir) if masked else ()))
    found, left_out = store.names(range(len(store))), store.provenance.get("left_out", 0)
    if len(found) == data.limit:
        names = names[: len(found) + left_out]
    there = set(found)  # photos with nothing there are in the folder only
    if len(names) != len(found) + left_out or [name for name in names if name in there] != found:
        said = f"its {len(found)} items are not the {len(names) - left_out} of {folder}"
        raise ConfigError(f"{store.path}: {said}; {elsewhere}")


def check_masks(data: DataConfig, store: MeasurementStore) -> None:
    """Refuse a simulated store whose masks are not of the config's law; warn of a raw one that looks like another."""
    made = store.provenance.get("data", {}).get("mask")
    wanted = data.mask.model_dump(mode="json")
    if made is not None and made != wanted:
        said = f"data.mask {made}, the config says {wanted}"
        raise ConfigError(f"{store.path}: was measured with {said}; use the config it was made with")
    if data.kind in ("raw", "masked") and data.mask.kind != "empirical":
        masks, law = store.masks(READ), make_masks(data.mask, store.shape[-2:])
        kept, expected = masks.float().mean().item(), law.kept
        columns = bool((masks == masks[..., :1, :]).all())
        if not 0.67 < kept / expected < 1.5 or columns != (law.kind == "cartesian"):
            shape = "whole columns" if columns else "points of a plane"
            warn(
                f"{store.path}: its masks keep {kept:.1%}, {shape}; those of data.mask {expected:.1%}: "
                "set data.mask to what was measured, it is p(S) of sub-masks and sampler (docs/how-to/raw_scans.md)"
            )


def check_shape(data: DataConfig, store: MeasurementStore) -> tuple[int, int]:
    """Height and width of a store's items, which must be what the config says."""
    sizes = store.shape[-2:] if data.kind == "raw" else (data.image_size, data.image_size)
    channels = store.shape[0] if data.is_mri else data.channels
    if store.shape != (channels, *sizes) or store.is_mri != data.is_mri:
        raise ConfigError(
            f"{store.path}: holds {'MRI' if store.is_mri else 'images'} of shape {store.shape}; the config's data "
            f"block says {data.kind} of {data.image_size} px, use the config it was made with"
        )
    return sizes


def masks_seen(store: MeasurementStore, mirrored: bool) -> EmpiricalMasks:
    """The law of the masks of a store, as a set that the weights can hold; says what it is.

    Args:
        store: what is trained on.
        mirrored: whether training mirrors the photos: the law then has the mirror image of each mask too.
    """
    height, width = store.shape[1:]
    most = max(1, min(MASKS, MASK_ENTRIES // (height * width)) // (1 + mirrored))
    masks = store.some_masks(most)
    chosen = f"{len(masks)} of the {len(store)} masks" if len(masks) < len(store) else f"the {len(masks)} masks"
    law = EmpiricalMasks(torch.cat([masks, masks.flip(-1)]) if mirrored else masks)
    images = ", and of their mirror images" if mirrored else ""
    say(f"{store.path}: p(S) is the empirical law of {chosen}{images}; they keep {law.kept:.1%} of the pixels")
    if never := int((~law.masks.any(0)).sum()):
        warn(f"{store.path}: {never} pixels are missing in all of these masks: of them nothing can be learned or drawn")
    return law


def training_data(config: Config, folder: Path, divisor: int) -> tuple[MeasurementStore, Acquisitions]:
    """The store to train on, whose sides the divisor divides, and what train.remask and train.noise_std make of it."""
    clean = {"mask": BoxMaskConfig(drop=0, grid=1), "noise_std": 0.0}  # images that train.remask draws masks for
    whole = config.model_copy(update={"data": config.data.model_copy(update=clean)})
    store = open_store(whole if config.train.remask else config, folder)
    sizes = check_shape(config.data, store)
    if any(side % divisor for side in sizes):
        raise ConfigError(
            f"{store.path}: holds items of {sizes[0]}×{sizes[1]}, the levels of network.channel_mult need multiples "
            f"of {divisor}; use fewer levels, or import with --size"
        )
    data: Acquisitions = store
    if config.train.remask:
        masks = make_masks(config.data.mask, config.data.image_size)
        data = RemaskedAcquisitions(store, masks, config.data.known_noise_std, config.data.seed)
        how = "masks and noise are drawn from clean images at every step, so training is not on measurements alone"
        warn(f"train.remask: {how}")
    else:
        check_masks(config.data, store)
    return store, with_noise(config.train.noise_std, store, data, folder / NOISE)


def test_items(config: Config) -> list[Source]:
    """The first sample.count items of the test split."""
    folder = data_folder(config, "the folder with the test images")
    account = Account()
    items = list(islice(sources(config.data, folder, "test", account), config.sample.count))
    if not items:
        raise DataError(f"{folder}: no items in the test split; correct setting.dataset_dir")
    _tell(config.data, folder, account)
    _tell_of_few(config, folder, len(items))
    return items


def _tell_of_few(config: Config, folder: Path, found: int) -> None:
    """Say that there are fewer images than were asked for."""
    sample = config.sample
    if config.inverse_problem is not None and "count" in sample.model_fields_set and found < sample.count:
        warn(f"{folder}: sample.count asks for {sample.count} test images, there are {found}; all of them are taken")


def masked_test_items(config: Config) -> tuple[list[str], Measurement]:
    """Names and measurements of the first sample.count photos of the test split, or of a store."""
    folder, account = data_folder(config, "the folder with the photos, or a store of them"), Account()
    items = list(islice(masked_items(config.data, folder, "test", account), config.sample.count))
    if not items:
        raise DataError(f"{folder}: no photo of the test split has anything there; correct setting.dataset_dir")
    _tell(config.data, folder, account)
    _tell_of_few(config, folder, len(items))
    names, found = zip(*items)
    return list(names), joined(found)


def other_items(config: Config, first: int) -> Iterator[Source]:
    """Items of the test split from number `first` on; none if the folder is not there."""
    folder = config.setting.dataset_dir
    if folder is None or not folder.is_dir() or config.data.kind == "masked":
        return iter(())
    return islice(sources(config.data, folder, "test"), first, None)


def trained_on(config: Config, given: Path | None) -> MeasurementStore | None:
    """The store that the run's weights were trained on: the one given, or what lies in the training run's folder."""
    if given is not None:
        return MeasurementStore(given)
    weights = config.setting.pretrained_model_dir
    run = None if weights is None else weights_folder(weights).parent
    if run is None or not is_run(run):
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
    """`trained_names` of the store beside the run's weights; none, with a warning, if it cannot be read there."""
    reason = "it is not there any more"
    try:
        store = trained_on(config, None)
    except MsmError as error:
        store, reason = None, str(error)
    weights = config.setting.pretrained_model_dir
    if store is None and weights is not None and is_run(weights_folder(weights).parent):
        warn(f"{weights}: whether it was trained on the test images is not known: its measurements, {reason}")
    return trained_names(config, store)
