"""fastMRI as its authors prepared it: made-up files in their layout, and one clear line for each kind of bad file."""

import sys

import h5py
import numpy as np
import pytest
import torch
from prepared_files import COILS, HEIGHT, SLICES, WIDTH, noise, write, write_outside

from msm.cli import main
from msm.data.prepared_fastmri import scans
from msm.data.store import MeasurementStore
from msm.errors import DataError
from msm.transforms import MultiCoil

HEADER = "INDEX,FILE,DROP,SLICE_START,SLICE_END\n"


def names(folder, split="train", demo=False):
    return [source.name for source in scans(folder, split, 8, demo)]


def test_slices_are_cropped_and_scaled(tmp_path):
    write(tmp_path, "brain_1.5T")
    sources = list(scans(tmp_path, "train", 8))
    assert [source.name for source in sources] == [f"brain_1.5T:{i}" for i in range(SLICES - 5)]
    with h5py.File(tmp_path / "x_hat" / "brain_1.5T.h5") as x, h5py.File(tmp_path / "smps_hat" / "brain_1.5T.h5") as s:
        x_hat, maps = x["x_hat"][:, 2:10, 1:9], s["smps_hat"][:, :, 2:10, 1:9]
    for i, source in enumerate(sources):
        assert source.image.shape == (1, 8, 8) and source.image.dtype == torch.complex64
        magnitude = abs(x_hat[i])  # the published scaling: of the crop, slice by slice, phase kept
        expected = (magnitude - magnitude.min()) / (magnitude.max() - magnitude.min()) * np.exp(1j * np.angle(x_hat[i]))
        np.testing.assert_allclose(source.image[0].numpy(), expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(source.maps.numpy(), maps[i])


def test_without_a_table_volumes_go_by_name(tmp_path):
    for k, name in enumerate(["b", "a"]):
        write(tmp_path, name, slices=6, seed=k)
    assert names(tmp_path) == names(tmp_path, "test") == ["a:0", "b:0"]


def test_a_volume_of_five_slices_has_none_to_keep(tmp_path):
    write(write(tmp_path, "a", slices=5), "b", slices=6)
    assert names(tmp_path) == ["b:0"]


def test_table(tmp_path):
    """As the authors read it: FILE has no suffix, an empty field is the default, numbers may be written as floats."""
    for name in "abcde":
        write(tmp_path, name)
    rows = ["3,d,0.0,,", "0,a,0,2,4", "1,b,1,,", "2,c.h5,False,6.0,", "4,e,False,,1.0"]
    (tmp_path / "table.csv").write_text(HEADER + "\n".join(rows) + "\n")
    assert names(tmp_path) == ["a:2", "a:3", "d:0", "d:1", "d:2", "e:0"]


KEPT = ["0", "0.0", "-0", "false", "False", " FALSE ", "0.00"]
DROPPED = ["", "  ", "1", "1.0", "true", "yes", "maybe", "nan", "0 ?", "no"]


def test_only_zero_under_drop_keeps_a_volume(tmp_path, capsys):
    """In the authors' table most fields are empty, with further columns beside: those volumes are left out."""
    rows = [f"{k},v{k},{drop},,,16,memo" for k, drop in enumerate(KEPT + DROPPED)]
    (tmp_path / "table.csv").write_text(HEADER.strip() + ",NUM_OF_COIL,Memo\n" + "\n".join(rows) + "\n")
    for k in range(len(KEPT)):
        write(tmp_path, f"v{k}", slices=6)
    assert names(tmp_path) == [f"v{k}:0" for k in range(len(KEPT))]
    told = f"{tmp_path / 'table.csv'}: keeps {len(KEPT)} of {len(KEPT + DROPPED)} volumes, those with 0 under DROP"
    assert capsys.readouterr().err == f"msm: note: {told}\n"


def test_slices_of_a_volume_left_out_do_not_matter(tmp_path):
    write(tmp_path, "a", slices=6)
    (tmp_path / "table.csv").write_text(HEADER + "0,a,0,,\n1,b,,all,of them\n")
    assert names(tmp_path) == ["a:0"]


def test_of_two_tables_the_demo_has_its_own(tmp_path):
    write(write(tmp_path, "a", slices=6), "b", slices=6)
    (tmp_path / "DEMO_table.csv").write_text(HEADER + "0,a,0,,\n")
    assert names(tmp_path) == names(tmp_path, demo=True) == ["a:0"]  # the only one
    (tmp_path / "table.csv").write_text(HEADER + "0,b,0,,\n")
    (tmp_path / "._table.csv").write_text("what macOS leaves beside a file")
    assert (names(tmp_path), names(tmp_path, demo=True)) == (["b:0"], ["a:0"])
    (tmp_path / "DEMO_more.csv").write_text(HEADER + "0,b,0,,\n")
    with pytest.raises(DataError, match=r"data.demo=true takes the one .* named DEMO_…, there are 2; leave"):
        names(tmp_path, demo=True)


def test_split_counts_dropped_volumes(tmp_path):
    """Volume 1355 begins the test set whatever was dropped before it."""
    for name in ("v1354", "v1355", "v1376", "v1377"):
        write(tmp_path, name, slices=6)
    rows = [f"{k},v{k},{int(k not in (1354, 1355, 1376, 1377))},," for k in range(1378)]
    (tmp_path / "table.csv").write_text(HEADER + "\n".join(rows) + "\n")
    assert names(tmp_path, "train") == ["v1354:0"]
    assert names(tmp_path, "test") == ["v1355:0", "v1376:0"]


@pytest.mark.parametrize("name", ["../../outside", "../../outside.h5", "{}/outside"])
def test_a_table_does_not_lead_out_of_the_folder(tmp_path, name):
    write_outside(tmp_path / "outside.h5")
    (tmp_path / "inside").mkdir()
    write(tmp_path / "inside", "a")
    (tmp_path / "inside" / "table.csv").write_text(HEADER + f"0,{name.format(tmp_path)},0,,\n")
    with pytest.raises(DataError, match=r"inside/x_hat/outside\.h5: no such file"):
        names(tmp_path / "inside")


def replace(path, kind, data):
    with h5py.File(path, "w") as file:
        file[kind] = data


TABLES = {
    "table without a column": "INDEX,FILE\n0,a\n",
    "table with a word for a number": HEADER + "0,a,0,first,4\n",
    "table that keeps none": HEADER + "0,a,,,\n1,b,1,,\n",
    "table of semicolons": HEADER.replace(",", ";") + "0;a;0;;\n",
    "table past the last slice": HEADER + f"0,a,0,0,{SLICES + 1}\n",
    "table with too few fields": HEADER + "0,a\n",
    "empty table": HEADER,
    "two tables": HEADER + "0,a,0,,\n",
    "table of a missing volume": HEADER + "0,z,0,,\n",
}


def spoil_table(folder, what):
    """Write a bad table; returns what the message must name."""
    (folder / "table.csv").write_text(TABLES[what])
    if what == "two tables":
        (folder / "more.csv").write_text(TABLES[what])
        return folder
    return folder / "x_hat" / "z.h5" if what == "table of a missing volume" else folder / "table.csv"


def spoil_maps(folder, what):
    """Break the maps of volume "a"; returns their path."""
    path = folder / "smps_hat" / "a.h5"
    if what == "missing maps":
        path.unlink()
    elif what == "maps of another size":
        replace(path, "smps_hat", noise(SLICES, COILS, HEIGHT, WIDTH - 2))
    elif what == "maps without coils":
        replace(path, "smps_hat", noise(SLICES, HEIGHT, WIDTH))
    return path


def spoil_images(folder, what):
    """Break the images of volume "a"; returns what the message must name."""
    path = folder / "x_hat" / "a.h5"
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-900])
    elif what == "missing dataset":
        replace(path, "kspace", noise(SLICES, HEIGHT, WIDTH))
    elif what == "flipped bits":
        with h5py.File(path, "w") as file:
            file.create_dataset("x_hat", data=noise(SLICES, HEIGHT, WIDTH), chunks=(1, HEIGHT, WIDTH), fletcher32=True)
            at = file["x_hat"].id.get_chunk_info(1).byte_offset
        content = bytearray(path.read_bytes())
        content[at] ^= 255
        path.write_bytes(content)
    elif what == "unwritten":
        with h5py.File(path, "w") as file:
            file.create_dataset("x_hat", (SLICES, 10**5, 10**5), "c8", chunks=(1, 100, 100))
    elif what == "another file":
        path.rename(path.with_name("b.h5x"))
        with h5py.File(path, "w") as file:
            file["x_hat"] = h5py.ExternalLink("b.h5x", "x_hat")
    elif what == "one slice only":
        replace(path, "x_hat", noise(HEIGHT, WIDTH))
    elif what == "magnitudes":
        replace(path, "x_hat", abs(noise(SLICES, HEIGHT, WIDTH)))
    elif what == "not finite":
        replace(path, "x_hat", noise(SLICES, HEIGHT, WIDTH) * np.nan)
    elif what == "small slices":
        replace(path, "x_hat", noise(SLICES, 6, 6))
        replace(folder / "smps_hat" / "a.h5", "smps_hat", noise(SLICES, COILS, 6, 6))
    elif what == "no files":
        path.unlink()
        return path.parent
    elif what == "no folder":
        path.unlink()
        path.parent.rmdir()
        return folder
    return path


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        ("truncated", "damaged or cut off .* make it again"),
        ("missing dataset", "x_hat is missing; .*make it again"),
        ("flipped bits", "damaged .*; copy or make the file again"),
        ("unwritten", "x_hat claims 6.4e.11 bytes, .* make it again"),
        ("another file", "x_hat is missing; .*make it again"),
        ("one slice only", "2 axes, expected 3; make it again"),
        ("magnitudes", "float32, expected complex numbers; prepare"),
        ("not finite", "not finite; prepare"),
        ("small slices", "6×6 are smaller than data.image_size = 8; set it lower"),
        ("missing maps", "no such file; .* prepare it"),
        ("maps of another size", "does not fit x_hat .* prepare both"),
        ("maps without coils", "3 axes, expected 4; make it again"),
        ("no files", "prepare the scans first"),
        ("no folder", "needs the folders x_hat and smps_hat; set setting.dataset_dir"),
        ("table without a column", "has no column DROP .line 1: INDEX, .*; add it"),
        ("table with a word for a number", "line 2 .*first.* correct it"),
        ("table that keeps none", "keeps none of its 2 volumes; write 0 under DROP"),
        ("table of semicolons", "has no column INDEX .line 1: INDEX, .*; add it"),
        ("table past the last slice", "line 2: SLICE_END: found 9, but a.h5 has 8 slices; correct it"),
        ("table with too few fields", "line 2 .* correct it"),
        ("empty table", "prepare the scans first"),
        ("two tables", "more.csv, table.csv.*; leave the one to use"),
        ("table of a missing volume", "no such file; .* prepare it"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, what, remedy):
    write(tmp_path, "a")
    spoil = spoil_table if "table" in what else spoil_maps if "maps" in what else spoil_images
    named = spoil(tmp_path, what)
    with pytest.raises(DataError, match=remedy) as caught:
        names(tmp_path)
    assert str(caught.value).startswith(str(named)) and "\n" not in str(caught.value)


CONFIG = """
setting: {{save_dir: {0}/run, dataset_dir: {0}}}
data: {{kind: fastmri, image_size: 8, mask: {{kind: cartesian, acceleration: 2, center: 2}}}}
network: {{image_size: 8, in_channels: 2, num_channels: 32, num_res_blocks: 1, channel_mult: [1],
  attention_resolutions: [], num_head_channels: 32}}
"""


def test_acquire_from_the_command_line(tmp_path, monkeypatch):
    write(tmp_path, "a")
    (tmp_path / "config.yaml").write_text(CONFIG.format(tmp_path))
    monkeypatch.setattr(sys, "argv", ["msm", "acquire", f"{tmp_path}/config.yaml", "-o", f"{tmp_path}/store.h5"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    store = MeasurementStore(tmp_path / "store.h5")
    assert store.is_mri and store.shape == (COILS, 8, 8) and store.names(range(3)) == ["a:0", "a:1", "a:2"]
    batch = store.batch(range(3))
    for i, source in enumerate(scans(tmp_path, "train", 8)):
        assert torch.equal(batch.maps[i], source.maps)
        z = MultiCoil(source.maps[None]).forward(source.image[None])[0]
        assert torch.equal(batch.values[i], torch.where(batch.mask[i], z, 0))
    columns = batch.mask[:, 0, 0]
    assert torch.equal(batch.mask, columns[:, None, None].expand(-1, 1, 8, -1)) and columns[:, 3:5].all()
