"""Random input gives a result or one line of explanation, never another error; and what holds, holds for odd shapes.

MSM_FUZZ=100 multiplies the number of examples (the default takes seconds).
"""

import io
import os
from math import ceil
from uuid import uuid4

import h5py
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from PIL import Image
from prepared_files import write as write_prepared
from prepared_files import write_outside
from raw_files import GOOD, read

from msm.config.load import Config, ConfigError, dump_config, load_config
from msm.config.schema import DataConfig, NetworkConfig, SampleConfig, TrainConfig
from msm.data.decode import Rules
from msm.data.images import load_image
from msm.data.prepared_fastmri import scans
from msm.data.store import MeasurementStore, StoreWriter
from msm.denoiser import EDM, Epsilon, PartialDenoiser, Sense
from msm.errors import DataError
from msm.losses import noiseless_loss, noisy_loss
from msm.masks import BoxMasks, CartesianMasks, EmpiricalMasks, VariableDensityMasks
from msm.measurement import Measurement
from msm.sampling import Sampler, generate
from msm.schedule import VPSchedule
from msm.transforms import Identity, MultiCoil

SCALE = int(os.environ.get("MSM_FUZZ", "1"))


def fuzz(examples):
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=examples * SCALE,
        deadline=None,
        suppress_health_check=checks,
        database=None,
        derandomize=SCALE == 1,  # `make test` says the same of the same code; MSM_FUZZ goes on looking
    )


# ---- settings


BLOCKS = {"data": DataConfig, "network": NetworkConfig, "train": TrainConfig, "sample": SampleConfig}
KEYS = [f"{block}.{key}" for block, model in BLOCKS.items() for key in model.model_fields]
NUMBERS = st.integers(-(2**70), 2**70) | st.integers(-2, 300) | st.floats() | st.sampled_from([0.4, 1e-5, 2**31])
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.none() | st.text(max_size=6) | st.sampled_from(["images", "slices", "bf16", "chain"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["kind", "drop", "x"]), inner),
    max_leaves=5,
)
CONFIG = """
setting: {save_dir: runs/a}
data: {kind: images, image_size: 32, mask: {kind: box}}
network: {image_size: 32, in_channels: 3, num_channels: 32, channel_mult: [1, 2], attention_resolutions: [16]}
"""


@fuzz(150)
@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=4))
def test_settings(tmp_path, changes):
    """Overrides and the same values in the file; what is accepted is read back to the same."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in changes]
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        assert str(error).replace("\n  ", "").isprintable() and str(path) in str(error)
        return
    assert isinstance(config, Config)
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


# ---- stores


def write_store(path, coils, size):
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(path, {"from": "fuzz"}) as writer:
        for i in range(3):
            dtype = torch.complex64 if coils else torch.float32
            values = torch.randn(coils or 3, *size, dtype=dtype, generator=generator)
            maps = torch.ones_like(values) / max(1, coils) ** 0.5 if coils else None
            mask = torch.rand(1, *size, generator=generator) < 0.5
            mask[0, 0, 0] = True
            writer.add(f"item{i}", values, mask, maps, 0.1)
    return path


def read_store(path):
    """All items, or the one line that says why not."""
    try:
        store = MeasurementStore(path)
        batch = store.batch(range(len(store)))
        store.names(range(len(store)))
        store.masks()
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        return None
    assert batch.values.dtype in (torch.float32, torch.complex64) and torch.isfinite(batch.values.abs()).all()
    assert batch.mask.dtype == torch.bool and batch.mask.flatten(1).any(1).all()
    assert torch.isfinite(batch.noise_std).all() and (batch.noise_std >= 0).all()
    assert (batch.maps is None) == (not batch.values.is_complex())
    return batch


DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)


def damaged(content, changes, cut):
    content = bytearray(content[: ceil(cut * len(content))])
    for share, scrap in changes:
        place = int(share * len(content))
        content[place : place + len(scrap)] = scrap
    return bytes(content)


@fuzz(60)
@given(st.integers(0, 2), DAMAGE, st.just(1.0) | st.floats(0, 1))
def test_damaged_stores(tmp_path, coils, changes, cut):
    path = write_store(tmp_path / "good.h5", coils, (8, 7))
    bad = tmp_path / f"{uuid4()}.h5"  # HDF5 takes a name that is still open for the same file
    bad.write_bytes(damaged(path.read_bytes(), changes, cut))
    read_store(bad)


KINDS = st.sampled_from(["f2", "f4", "f8", ">f4", "c8", "c16", "i1", "i8", "u2", "?", "S3", "V5"])
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 7, 8]), max_size=5).map(tuple)
FIELDS = st.sampled_from(["values", "mask", "maps", "noise_std", "name"])


@fuzz(100)
@given(
    st.integers(0, 2), FIELDS, KINDS, SHAPES | st.none(), st.floats(width=16), st.integers(0, 3).map(lambda n: n == 0)
)
def test_stores_of_other_content(tmp_path, coils, field, kind, shape, content, huge):
    """One dataset is of another type, shape and content, or claims a size that nothing was written of."""
    path = write_store(tmp_path / f"{uuid4()}.h5", coils, (8, 7))
    with h5py.File(path, "r+") as file:
        shape = (file[field].shape if field in file else (3, coils or 3, 8, 7)) if shape is None else shape
        file.pop(field, None)
        if huge and shape and all(shape):
            file.create_dataset(field, [n * 10**4 for n in shape], kind, chunks=(1000,) + (1,) * (len(shape) - 1))
        elif kind in ("S3", "V5"):
            file[field] = np.zeros(shape, kind)
        else:
            with np.errstate(all="ignore"):
                file[field] = np.full(shape, content).astype(kind)
    read_store(path)


@fuzz(30)
@given(st.sampled_from(["provenance", "format", "version"]), st.text(max_size=8) | st.integers(0, 9) | st.none())
def test_stores_of_other_attributes(tmp_path, name, value):
    path = write_store(tmp_path / f"{uuid4()}.h5", 0, (8, 7))
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value.replace("\0", "") if isinstance(value, str) else value
    read_store(path)


# ---- raw files, prepared scans, photos


@fuzz(30)
@given(st.data())
@pytest.mark.parametrize("kind", GOOD)
def test_damaged_raw_files(tmp_path, kind, data):
    path = GOOD[kind](tmp_path)
    path.write_bytes(damaged(path.read_bytes(), data.draw(DAMAGE), data.draw(st.just(1.0) | st.floats(0, 1))))
    try:
        slices = read(path)
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert all(torch.isfinite(torch.view_as_real(scan.k_space)).all() for scan in slices)


@fuzz(30)
@given(st.sampled_from(["x_hat", "smps_hat"]), DAMAGE, st.just(1.0) | st.floats(0, 1))
def test_damaged_prepared_scans(tmp_path, kind, changes, cut):
    folder = tmp_path / str(uuid4())
    folder.mkdir()
    write_prepared(folder, "a", slices=6)
    path = folder / kind / "a.h5"
    path.write_bytes(damaged(path.read_bytes(), changes, cut))
    try:
        sources = list(scans(folder, "train", 8))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(torch.isfinite(source.image.abs()).all() for source in sources)


@fuzz(100)
@given(st.text("0123456789.-aeN", max_size=5), st.text(max_size=12), st.sampled_from(["0", "1", "", "x"]), st.data())
def test_tables_of_prepared_scans(tmp_path, index, name, drop, data):
    """No row of the table leads out of the folder."""
    (tmp_path / "inside").mkdir(exist_ok=True)
    write_prepared(tmp_path / "inside", "a", slices=6)
    write_outside(tmp_path / "outside.h5")
    names = ["a", "../../outside", "../../outside.h5", f"{tmp_path}/outside", ".."]
    name = data.draw(st.sampled_from(names) | st.just(name))
    rows = f"INDEX,FILE,DROP,SLICE_START,SLICE_END\n{index},{name},{drop},,\n"
    (tmp_path / "inside" / "t.csv").write_bytes(rows.encode("utf-8", "surrogatepass"))
    try:
        found = {source.name for source in scans(tmp_path / "inside", "train", 8)}
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert found <= {"a:0"}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@fuzz(60)
@given(st.sampled_from(["png", "jpeg", "tiff", "bmp", "webp"]), DAMAGE, st.just(1.0) | st.floats(0, 1))
def test_damaged_photos(tmp_path, kind, changes, cut):
    content, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, kind)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(damaged(content.getvalue(), changes, cut))
    try:
        image = load_image(path, 8, Rules(3))
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert image.shape == (3, 8, 8) and image.abs().max() <= 1


# ---- masks


SIDES = st.integers(1, 9)


@st.composite
def families(draw):
    """A family of masks of any size, and how many covering draws it needs to hold all that it can."""
    kind = draw(st.sampled_from(["box", "random", "uniform", "empirical", "density"]))
    height, width = draw(SIDES), draw(SIDES)
    if kind == "box":
        grid = draw(st.integers(1, 5))
        try:
            family = BoxMasks((grid * height, grid * width), draw(st.floats(0, 1, exclude_max=True)), grid)
        except ValueError:  # so near to 1 that no box is left
            reject()
        return family, ceil(grid**2 / family.boxes_kept)
    if kind == "density":
        corners, pattern = draw(st.booleans()), draw(st.sampled_from(["poisson", "random"]))
        center = draw(st.integers(0, min(height, width)))
        try:
            family = VariableDensityMasks((height, width), draw(st.floats(1, 9)), center, pattern, corners)
        except ValueError:  # less is off the corners than the acceleration asks for
            reject()
        return family, ceil(1 / family.probability[family.probability > 0].min().item())
    if kind == "empirical":
        seed = draw(st.integers(0, 99))
        masks = (
            torch.rand(draw(st.integers(1, 5)), 1, height, width, generator=torch.Generator().manual_seed(seed)) < 0.4
        )
        masks[:, 0, 0, 0] = True
        return EmpiricalMasks(masks), len(masks)
    acceleration = draw(st.integers(1, 9) if kind == "uniform" else st.floats(1, 9))
    return CartesianMasks((height, width), acceleration, draw(st.integers(0, width)), kind), ceil(acceleration)


@fuzz(150)
@given(families(), st.integers(0, 3), st.integers(0, 2**32))
def test_masks(made, batch, seed):
    family, needed = made
    generator = torch.Generator().manual_seed(seed)
    reachable = torch.ones(1, *family.size).bool()
    if isinstance(family, EmpiricalMasks):
        reachable = family.masks.any(0)
    if isinstance(family, VariableDensityMasks):
        reachable = family.probability[None] > 0
    mask = family.sample(batch, generator)
    assert mask.shape == (batch, 1, *family.size) and mask.dtype == torch.bool and 0 < family.kept <= 1
    assert not (mask & ~reachable).any()
    if isinstance(family, BoxMasks):
        assert (mask.sum((1, 2, 3)) == round(family.kept * mask[0].numel() if batch else 0)).all()
    if isinstance(family, CartesianMasks):
        assert mask[..., family.middle].all() and (mask == mask[:, :, :1]).all()
    u = torch.rand(batch, needed, family.variates, generator=generator)
    drawn = family.draw(u, covering=True)
    assert drawn.shape == (batch, needed, 1, *family.size) and (drawn.any(1) == reachable).all()
    part = family.submask(mask, torch.rand(batch, generator=generator), generator)
    assert part.shape == mask.shape and not (part & ~mask).any()
    chain = family.chain(torch.rand(batch, family.variates, generator=generator))
    assert (chain.masks.any(1) == reachable).all()
    count = (chain.weights[:, None, None, None] * chain.masks).sum(1)
    assert torch.equal(count, reachable.float().expand_as(count))


# ---- shapes


@fuzz(100)
@given(st.integers(1, 3), st.integers(1, 3), SIDES, SIDES, st.booleans(), st.integers(0, 2**32))
def test_coils(batch, coils, height, width, shared, seed):
    """Tᴴ T = I, ⟨T x, z⟩ = ⟨x, Tᴴ z⟩ and Tᴴ Sᵀ S T, whatever the sizes."""
    generator = torch.Generator().manual_seed(seed)
    count = 1 if shared else batch
    maps = torch.randn(count, coils, height, width, dtype=torch.complex128, generator=generator)
    transform = MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())
    x = torch.randn(batch, 1, height, width, dtype=torch.complex128, generator=generator)
    z = torch.randn(batch, coils, height, width, dtype=torch.complex128, generator=generator)
    mask = torch.rand(batch, 1, height, width, generator=generator) < 0.5
    torch.testing.assert_close(transform.adjoint(transform.forward(x)), x)
    one, two = (torch.vdot(a.flatten(), b.flatten()) for a, b in ((transform.forward(x), z), (x, transform.adjoint(z))))
    torch.testing.assert_close(one, two)
    expected = transform.adjoint(torch.where(mask, transform.forward(x), 0))
    torch.testing.assert_close(transform.normal(x, mask), expected)


def test_coils_of_an_empty_batch():
    transform = MultiCoil(torch.ones(1, 2, 4, 4, dtype=torch.complex64) / 2**0.5)
    z = transform.forward(torch.zeros(0, 1, 4, 4, dtype=torch.complex64))
    assert z.shape == (0, 2, 4, 4) and transform.adjoint(z).shape == (0, 1, 4, 4)
    assert transform.normal(transform.adjoint(z), torch.ones(0, 1, 4, 4, dtype=torch.bool)).shape == (0, 1, 4, 4)


class Half(torch.nn.Module):
    """A network for any shape."""

    def forward(self, u, t):
        return u / 2


@st.composite
def problems(draw):
    """A denoiser, its transform, a mask family and the shape of one z: odd sizes, one coil, one column."""
    height, width, coils = draw(SIDES), draw(SIDES), draw(st.integers(0, 3))
    batch = draw(st.integers(1 if coils else 0, 3))  # see test_coils_of_an_empty_batch
    family = CartesianMasks((height, width), draw(st.sampled_from([1, 2.5, 10**6])), 1)
    if not coils:
        denoiser = PartialDenoiser(Half(), VPSchedule(), draw(st.sampled_from([Epsilon(), EDM()])), family)
        return denoiser, Identity(), family, (batch, 3, height, width)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    maps = torch.randn(batch, coils, height, width, dtype=torch.complex64, generator=generator)
    transform = MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())
    denoiser = PartialDenoiser(Half(), VPSchedule(), draw(st.sampled_from([Epsilon(), Sense()])), family)
    return denoiser, transform, family, (batch, coils, height, width)


@fuzz(60)
@given(problems(), st.floats(0, 999), st.integers(0, 2**32))
def test_denoiser_and_loss(problem, t, seed):
    denoiser, transform, family, shape = problem
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if isinstance(transform, Identity) else torch.complex64
    z, mask = torch.randn(shape, dtype=dtype, generator=generator), family.sample(shape[0], generator)
    times = torch.full((shape[0],), t)
    s_hat = denoiser(z, mask, times, transform)
    assert s_hat.shape == shape and torch.isfinite(s_hat.abs()).all() and not s_hat[~mask.expand(shape)].any()
    measurement = Measurement(z, mask, getattr(transform, "maps", None), 0.1)
    for loss in (noiseless_loss, noisy_loss):
        value = loss(denoiser, measurement, times, generator)
        assert value.shape == shape[:1] and torch.isfinite(value).all()


@fuzz(30)
@given(problems(), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["average", "chain"]))
def test_sampler(problem, steps, draws, score):
    denoiser, transform, family, (batch, *shape) = problem
    if score == "chain" and family.acceleration > 100:
        draws, score = 1, "average"  # a chain is as long as the acceleration
    sampler = Sampler(steps=steps, draws=draws, score=score)
    z = generate(denoiser, shape, seeds=range(batch), transform=transform, sampler=sampler)
    assert z.shape == (batch, *shape) and torch.isfinite(z.abs()).all()
