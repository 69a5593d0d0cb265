"""msm acquire on raw files: store, manifest, any number of workers, going on; bad files through the commands."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from disc_scans import H, W, disc, undersampled, write_config
from hostile_files import HOSTILE
from raw_files import GOOD, header, noise, write_fastmri
from runs import PHOTOS, run
from runs import write_config as write_photos

from msm.data.store import MeasurementStore
from msm.errors import ConfigError
from msm.raw import import_store as raw_store
from msm.raw.prepare import prepare
from msm.raw.read_through import ReadThrough
from msm.raw.readers import import_scans, left_out, raw_files
from msm.raw.reconstruct import survey
from msm.runs import inputs
from msm.system.files import digest


def write_scans(folder, count=3, coils=4):
    """fastMRI files of two slices, in folders of their own, every name alike."""
    for i in range(count):
        (folder / f"subject{i}").mkdir(parents=True)
        slices = [undersampled(disc(f"{i}{j}", coils=coils)[0] + 0.003 * noise((coils, H, W), i)) for j in range(2)]
        write_fastmri(folder / f"subject{i}" / "scan.h5", torch.stack(slices), header(H, W))
    return sorted(str(path) for path in folder.rglob("*.h5"))


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_store_and_manifest(tmp_path, monkeypatch, capsys):
    """Every slice is stored as `prepare` makes it; the manifest says what each file gave."""
    files = write_scans(tmp_path / "raw", 2)
    assert run(monkeypatch, "acquire", *files, "-o", f"{tmp_path}/out/all.h5", "--size", "32", "24") == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"all.h5", "all.manifest.jsonl"}
    store = MeasurementStore(tmp_path / "out" / "all.h5")
    assert store.names(range(4)) == [f"subject{i}/scan:{j}" for i in range(2) for j in range(2)]
    lines = [json.loads(line) for line in (tmp_path / "out" / "all.manifest.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [f"../raw/subject{i}/scan.h5" for i in range(2)]
    for i, scan in enumerate(import_scans(map(Path, files))):
        made, stored, line = prepare(scan, (32, 24)), store[i], lines[i // 2]
        assert torch.equal(stored.values[0], made.scan.k_space) and torch.equal(stored.mask[0], made.scan.mask)
        assert torch.equal(stored.maps[0], made.maps)
        assert stored.noise_std.item() == pytest.approx(made.noise_std, rel=1e-4)  # the workers have one thread each
        found = [line[key][i % 2] for key in ("scale", "noise_std", "maps_residual")]
        assert found == pytest.approx([made.scan.provenance["scale"], made.noise_std, made.residual], rel=1e-4)
        assert line["sha256"] == digest(Path(files[i // 2])) and line["slices"] == 2 and line["shape"] == [4, 32, 24]
    assert "4 slices of 32×24 from 4 coils" in capsys.readouterr().out


def test_what_a_file_was_taken_for_is_told_and_kept(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a.npy", undersampled(disc("a")[0]).numpy())
    assert run(monkeypatch, "acquire", f"{tmp_path}/a.npy", "-o", f"{tmp_path}/all.h5") == 0
    told = f"note: {tmp_path}/a.npy: taken for k-space (coils, H, W), H the readout, measured where it is not zero"
    assert told in " ".join("".join(capsys.readouterr()).split())
    (line,) = map(json.loads, (tmp_path / "all.manifest.jsonl").read_text().splitlines())
    assert line["taken_for"].startswith("taken for k-space (coils, H, W)")
    read = ReadThrough([tmp_path / "a.npy"])
    assert survey(read)["a"].taken_for == line["taken_for"] and line["taken_for"] in next(iter(read.remarks))


def test_a_store_is_neither_made_again_nor_replaced(tmp_path, monkeypatch, capsys):
    """Unless it is forced: by other settings, other maps, or of other files."""
    files, store = write_scans(tmp_path / "raw", 1), tmp_path / "all.h5"
    np.savez(tmp_path / "maps.npz", maps=disc("00", coils=4)[1].numpy())
    words, size = ["acquire", *files, "-o", str(store)], ["--size", "32", "24"]
    assert run(monkeypatch, *words, *size) == 0
    before = store.read_bytes()
    capsys.readouterr()
    for same in ([], size):
        assert run(monkeypatch, *words, *same) == 0
        assert "holds these files already, at 32×24 from 4 coils" in capsys.readouterr().out
    others = (["--size", "32", "32"], ["--coils", "2"], ["--maps", f"{tmp_path}/maps.npz"])
    for other in others:
        assert run(monkeypatch, *words, *other) == 2
        assert "is there already; choose another name" in capsys.readouterr().err
    assert store.read_bytes() == before
    assert run(monkeypatch, *words, "--coils", "2", "--force") == 0 and store.read_bytes() != before


def test_coil_maps_need_no_sigpy(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", disc("a", 40, 50)[0].numpy())
    for module in [name for name in sys.modules if name.partition(".")[0] == "sigpy"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert run(monkeypatch, "acquire", f"{tmp_path}/a.npy", "-o", f"{tmp_path}/s.h5") == 0
    assert MeasurementStore(tmp_path / "s.h5").is_mri


def test_the_largest_size_that_pads_nothing(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", disc("a", 40, 50)[0].numpy())
    np.save(tmp_path / "b.npy", disc("b", 70, 35)[0].numpy())
    assert run(monkeypatch, "acquire", f"{tmp_path}/a.npy", f"{tmp_path}/b.npy", "-o", f"{tmp_path}/s.h5") == 0
    assert MeasurementStore(tmp_path / "s.h5").shape == (4, 32, 32)


def test_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch):
    files = write_scans(tmp_path / "raw")
    for workers in ("1", "2"):
        out = f"{tmp_path}/{workers}/s.h5"
        assert run(monkeypatch, "acquire", *files, "-o", out, "--size", "32", "24", "--workers", workers) == 0
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_a_stopped_import_goes_on(tmp_path, monkeypatch):
    """Stopped in the third file: the first two are not imported again, and the store is the same."""
    files = write_scans(tmp_path / "raw")
    command = ("acquire", *files, "--size", "32", "24", "-o")
    assert run(monkeypatch, *command, f"{tmp_path}/whole/s.h5") == 0
    prepared, original = [], raw_store.prepare

    def stopping(*given):
        if len(prepared) == 5 and not (tmp_path / "go").exists():
            raise ConfigError("stopped")  # a DataError would be the file's, which is skipped
        prepared.append(given[0].name)
        return original(*given)

    monkeypatch.setattr(raw_store, "prepare", stopping)
    assert run(monkeypatch, *command, f"{tmp_path}/out/s.h5") == 2
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"s.h5.parts"}
    (tmp_path / "go").touch()
    assert run(monkeypatch, *command, f"{tmp_path}/out/s.h5") == 0
    assert len(prepared) == 7 and content(tmp_path / "out") == content(tmp_path / "whole")


def refuse_to_import(*given):
    raise AssertionError("a slice was imported")


def test_coils(tmp_path, monkeypatch, capsys):
    """Files of 4 and 6 coils: refused together, before any is imported, until both are compressed."""
    np.save(tmp_path / "a.npy", disc("a")[0].numpy())
    np.save(tmp_path / "b.npy", disc("b", coils=6)[0].numpy())
    command = ("acquire", f"{tmp_path}/a.npy", f"{tmp_path}/b.npy", "-o", f"{tmp_path}/out/s.h5")
    with monkeypatch.context() as importing:
        importing.setattr(raw_store, "prepare", refuse_to_import)
        for size in ((), ("--size", "16", "16")):
            assert run(monkeypatch, *command, *size) == 2
            error = capsys.readouterr().err
            assert "b.npy: has 6 coils" in error and "a.npy has 4" in error and "--coils 4" in error
            assert run(monkeypatch, *command, *size, "--coils", "5") == 2
            assert "a.npy: has 4 coils, --coils asks for 5; ask for at most 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(monkeypatch, *command, "--coils", "3") == 0
    assert MeasurementStore(tmp_path / "out" / "s.h5").shape[0] == 3


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bad_file_is_skipped(tmp_path, monkeypatch, capsys, workers):
    """The store is that of the others; all of them bad is an error, and nothing is written."""
    files = write_scans(tmp_path / "raw", 2)
    (tmp_path / "raw" / "bad.npy").write_bytes(b"damaged")
    out = ["--size", "32", "24", "--workers", workers, "-o"]
    assert run(monkeypatch, "acquire", f"{tmp_path}/raw", *out, f"{tmp_path}/out/s.h5") == 3
    error = capsys.readouterr().err
    assert f"skipped {tmp_path}/raw/bad.npy: " in error and "1 of 3 files were skipped" in error
    assert run(monkeypatch, "acquire", *files, *out, f"{tmp_path}/whole/s.h5") == 0
    one, other = (MeasurementStore(tmp_path / name / "s.h5") for name in ("out", "whole"))
    assert torch.equal(one.batch(range(4)).values, other.batch(range(4)).values)
    (tmp_path / "raw" / "worse.npy").write_bytes(b"damaged")
    bad = [f"{tmp_path}/raw/{name}.npy" for name in ("bad", "worse")]
    assert run(monkeypatch, "acquire", *bad, *out, f"{tmp_path}/none/s.h5") == 2
    assert not (tmp_path / "none").exists()


def test_a_size_that_no_network_takes_is_refused(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a.npy", disc("a")[0].numpy())
    command = ("acquire", f"{tmp_path}/a.npy", "-o", f"{tmp_path}/s.h5", "--size")
    for size in (("0", "10"), ("16", "7"), ("-8", "16")):
        assert run(monkeypatch, *command, *size) == 2
        expected = f"msm: --size: found {' '.join(size)}; height and width should be at least 8"
        assert capsys.readouterr().err.startswith(expected)
    assert run(monkeypatch, *command, "8", "8") == 0


def test_a_path_that_cannot_be_written_is_found_before_any_work(tmp_path, monkeypatch, capsys):
    """Of raw files and of simulations, for the store and for the truth; nothing is left behind."""
    np.save(tmp_path / "a.npy", disc("a")[0].numpy())
    simulate, good = ("acquire", write_photos(tmp_path, **PHOTOS)), ("-o", f"{tmp_path}/good.h5")
    importing = ("acquire", f"{tmp_path}/a.npy")
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setattr(raw_store, "_smallest", refuse_to_import)
    monkeypatch.setattr(inputs, "acquire", refuse_to_import)
    cases = [("p.npz", "will be written as HDF5; choose a name that ends in .h5")]
    cases += [(f"{name}/s.h5", "cannot be written (Not a directory); choose another") for name in ("a.npy", "a.npy/b")]
    if os.geteuid() != 0:  # root may write anywhere
        cases += [
            (f"locked/{name}", "cannot be written (Permission denied); choose another") for name in ("s.h5", "b/s.h5")
        ]
    before = sorted(tmp_path.rglob("*"))
    for name, expected in cases:
        path = f"{tmp_path}/{name}"
        for command in ((*importing, "-o", path), (*simulate, "-o", path), (*simulate, *good, "--truth", path)):
            assert run(monkeypatch, *command) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"msm: {path}: {expected}") and error.count("\n") == 1, error
        assert sorted(tmp_path.rglob("*")) == before


def test_train_on_an_imported_store(tmp_path, monkeypatch):
    """Non-square items, and a config of data.kind raw all the way."""
    files = write_scans(tmp_path / "raw", 1)
    assert run(monkeypatch, "acquire", *files, "-o", f"{tmp_path}/s.h5", "--size", "32", "24") == 0
    overrides = ["setting.pretrained_model_dir=null", "train={images: 4, batch_size: 2}", "setting.save_dir={}/run"]
    config = write_config(tmp_path, tmp_path / "s.h5")
    assert run(monkeypatch, "train", config, *(o.format(tmp_path) if "{}" in o else o for o in overrides)) == 0
    assert (tmp_path / "run" / "weights" / "model.safetensors").exists()


def test_options_of_the_other_kind_are_refused(tmp_path, monkeypatch, capsys):
    config, scan = write_photos(tmp_path, **PHOTOS), f"{tmp_path}/a.npy"
    np.save(scan, disc("a")[0].numpy())
    assert run(monkeypatch, "acquire", scan, "-o", f"{tmp_path}/s.h5", "--truth", f"{tmp_path}/t.h5") == 2
    assert "raw files have no ground truth" in capsys.readouterr().err
    assert run(monkeypatch, "acquire", config, "-o", f"{tmp_path}/s.h5", "--size", "16", "16") == 2
    assert "--size, --coils, --maps and --workers are for raw files" in capsys.readouterr().err


def test_raw_files_of_a_folder(tmp_path):
    for name in ("b.cfl", "b.hdr", "a.h5", "notes.txt"):
        (tmp_path / name).touch()
    assert raw_files([tmp_path]) == [tmp_path / "a.h5", tmp_path / "b.cfl"]
    assert raw_files([tmp_path / "b.hdr", tmp_path / "b.cfl"]) == [tmp_path / "b.cfl"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("deep/er/c.H5", "deep/D.HDR", "deep/D.CFL", ".hidden/e.h5", "deep/.f.h5"):
        (tmp_path / name).touch()
    deeper = [tmp_path / "deep" / "D.CFL", tmp_path / "deep" / "er" / "c.H5"]
    assert raw_files([tmp_path]) == [tmp_path / "a.h5", tmp_path / "b.cfl", *deeper]
    assert left_out([tmp_path]) == {".txt": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no raw files in it; give some of \.h5"):
        raw_files([tmp_path / "empty"])


# ---- damaged and hostile files


CASES = [
    *("missing", "unknown kind", "real npy", "empty npy", "swapped axes", "pickled", "npy of 10^30", "NaN", "zero"),
    *("hdr of 10^12", "no hdr", "struct mat", "unwritten", "real kspace", "empty kspace", "swapped kspace", "virtual"),
    *("bomb", "huge XML", "matrix of 10^9", "matrix of 65536", "too few columns", "external link"),
]


def refused(root, monkeypatch, capfd, path):
    """Both commands refuse a file in one line, exit code 2, and leave nothing behind; returns the lines."""
    config, errors = write_config(root, path), []
    before, importing = content(root), ["acquire", str(path), "-o", f"{root}/new/s.h5"]
    for command in (["sample", config], importing, [*importing, "--size", "16", "16"]):
        capfd.readouterr()
        assert run(monkeypatch, *command) == 2
        error = capfd.readouterr().err
        assert error.startswith("msm: ") and error.count("\n") == 1 and "Traceback" not in error, error
        assert content(root) == before and not list(root.rglob("*.parts"))
        errors.append(error)
    return errors


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, case):
    make, _ = HOSTILE[case]
    if case.startswith(("matrix", "too few")):
        pytest.importorskip("ismrmrd")
    path = make(tmp_path)
    assert all(path.stem in error for error in refused(tmp_path, monkeypatch, capfd, path))


@pytest.mark.parametrize("kind", GOOD)
def test_a_truncated_file_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, kind):
    path = GOOD[kind](tmp_path)
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    assert all(str(path) in error for error in refused(tmp_path, monkeypatch, capfd, path))


def test_nan_in_the_last_slice_is_found_before_the_first_is_sampled(tmp_path, monkeypatch, capfd):
    k_space = torch.stack([disc(f"{i}")[0] for i in range(3)])
    k_space[2, :, 5] = torch.nan
    path = write_fastmri(tmp_path / "a.h5", k_space, header(H, W))
    assert all("slice 2" in e and "not finite" in e for e in refused(tmp_path, monkeypatch, capfd, path))
