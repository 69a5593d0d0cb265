"""What SECURITY.md promises and no other test shows: nothing in a file runs, leads elsewhere or claims memory."""

import ast
import copy
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hostile_files import claim_length
from PIL import EpsImagePlugin, Image
from stores import write_scans
from training import trainer, write_store

import msm
from msm.data.decode import Rules
from msm.data.images import load_image
from msm.data.store import MeasurementStore
from msm.errors import DataError, MsmError, TrainingError
from msm.network.stored import read_tensors
from msm.output.files import read_arrays
from msm.raw.readers import read_scans
from msm.raw.readers.given_maps import MAPS
from msm.report.svg import Series, chart
from msm.sample.kept_batches import Parts
from msm.system.manifest import seal
from msm.system.packed import refuse_packed

SOURCE = Path(msm.__file__).parent


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_the_attack_works(tmp_path):
    torch.save(Attack(tmp_path / "ran"), tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    store = write_store(tmp_path / "store.h5")
    trainer(store, tmp_path / "run", images=16).run()
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    torch.save(Attack(tmp_path / "ran"), folder / "optimizer.pt")
    (folder / "SHA256SUMS").unlink()
    seal(folder)  # as an attacker would
    with pytest.raises(TrainingError, match="damaged"):
        trainer(store, tmp_path / "run").run()
    assert not (tmp_path / "ran").exists()


def test_code_in_a_kept_batch_is_not_run(tmp_path):
    parts, drawn = Parts(tmp_path, "0" * 64), []
    work = parts.keep(lambda numbers: drawn.append(numbers) or torch.ones(1))
    work(range(1))
    (path,) = (tmp_path / "parts").rglob("*.pt")
    work(range(1))
    assert len(drawn) == 1  # the batch is read from there
    torch.save(Attack(tmp_path / "ran"), path)
    content = path.read_bytes()
    assert torch.equal(work(range(1)), torch.ones(1)) and len(drawn) == 2 and not (tmp_path / "ran").exists()
    path.write_bytes(parts._digest(range(1), content) + content)  # as an attacker would
    with pytest.raises(DataError, match="something else than tensors"):
        work(range(1))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_code_in_the_arrays_of_a_run_is_not_run(tmp_path, save):
    with (tmp_path / "a.npz").open("wb") as file:
        save(file, np.array([Attack(tmp_path / "ran")], dtype=object))
    with pytest.raises(ValueError, match=r"a.npz: damaged"):
        read_arrays(tmp_path / "a.npz", "make it again")
    assert not (tmp_path / "ran").exists()


def test_code_in_an_array_of_k_space_is_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Attack(tmp_path / "ran")], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        list(read_scans(tmp_path / "a.npy"))
    assert not (tmp_path / "ran").exists()


def pack(path):
    """The archive anew, its entries deflated: zeros take a thousandth of their size then."""
    with zipfile.ZipFile(path) as plain:
        entries = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def read_kept(path):
    Parts(path.parent, "0")._tensors(range(1), path.read_bytes())


def read_optimizer(path):
    run = path.parent / "run"
    trainer(write_store(path.parent / "store.h5"), run, images=16).run()
    (folder,) = (run / "checkpoints").iterdir()
    path.rename(folder / "optimizer.pt")
    (folder / "SHA256SUMS").unlink()
    seal(folder)
    trainer(path.parent / "store.h5", run).run()


PACKED = {
    "weights.pt": (read_tensors, "unpacks to 4e.07 bytes"),
    "kept.pt": (read_kept, "unpacks to 4e.07 bytes"),
    "optimizer.pt": (read_optimizer, "all 1 checkpoints are damaged"),
    "gallery.npz": (lambda path: read_arrays(path, "make it again"), "unpacks to 4e.07 bytes"),
    "maps.npz": (MAPS[".npz"], "unpacks to 4e.07 bytes"),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_unpacks_to_far_more_than_the_file_is_refused(tmp_path, name):
    path, zeros = tmp_path / name, np.zeros(10**7, np.float32)
    if path.suffix == ".pt":
        torch.save({"a": torch.from_numpy(zeros)}, path)
    else:
        np.savez(path, maps=zeros)
    refuse_packed(path, name)
    pack(path)
    read, message = PACKED[name]
    with pytest.raises(MsmError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_entries_of_an_archive_that_are_one_are_refused(tmp_path):
    """A table of contents that names the same bytes a hundred times."""
    np.savez(tmp_path / "a.npz", maps=np.zeros(10**4, np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        entry = archive.infolist()[0]
        for number in range(99):
            again = copy.copy(entry)
            again.filename = f"{number}.npy"
            archive.filelist.append(again)
        archive._didModify = True
    with pytest.raises(DataError, match=r"unpacks to 4.01e.06 bytes, the file holds"):
        refuse_packed(tmp_path / "a.npz", "a.npz")


def test_a_program_named_a_photo_is_not_run(tmp_path, monkeypatch):
    """Pillow tells a file by its content, and hands PostScript to Ghostscript."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **more: ran.append(given))
    with pytest.raises(DataError, match=r"a.png: not a readable image .cannot identify"):
        load_image(tmp_path / "a.png", 8, Rules(3))
    assert not ran


def test_a_photo_of_too_many_pixels_is_refused(tmp_path):
    def part(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") + (60_000).to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    parts = part(b"IHDR", header), part(b"IDAT", zlib.compress(bytes(100))), part(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataError, match=r"a.png: not a readable image .*3600000000 pixels"):
        load_image(tmp_path / "a.png", 8, Rules(1))


def test_a_chart_escapes_its_texts():
    line = Series("</svg><script>x</script> $\\frac$ --><b>", [1, 2], [3, 4])
    svg = chart("<b>'\"", "x<b>", "y<b>", [line], levels=[("level<b>", 3.5)])
    assert "<b>" not in svg and "<script" not in svg and svg.count("</svg>") == 2  # for narrow pages and for wide


RUNS = {"eval", "exec", "compile", "__import__"}
READS = {"load", "loads", "load_all", "safe_load", "unsafe_load", "full_load", "read_pickle", "read_array", "Unpickler"}
READS |= {"system", "popen", "execv", "execve", "execvp", "spawnv", "spawnl", "posix_spawn", "startfile"}
MODULES = {"pickle", "subprocess", "shelve", "marshal", "dill", "cloudpickle", "joblib", "builtins", "pty"}
KNOWN = {"json.loads", "ADMNetwork.load", "PartialDenoiser.load", "cls.load"}


def test_no_call_in_the_source_can_run_what_it_reads():
    """torch.load says weights_only, np.load no pickle, nothing imports pickle or a shell; YAML has its own loader."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not {name.split(".")[0] for name in names} & MODULES, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "torch.load":
                    assert "weights_only=True" in ast.unparse(node), path
                elif called == "np.load":
                    assert "allow_pickle=False" in ast.unparse(node), path
                elif called == "yaml.load":
                    assert "_Loader" in ast.unparse(node), path
                else:
                    assert called not in RUNS, (path, called)
                    assert called in KNOWN or called.split(".")[-1] not in READS, (path, called)


@pytest.fixture
def store(tmp_path):
    return write_scans(tmp_path / "store.h5", 2)


def replaced(path, field, make):
    """The dataset made anew by `make`(file, field, its content); the old content also lies in another file."""
    with h5py.File(path, "r+") as file, h5py.File(path.with_name("other.h5"), "w") as other:
        content = file[field][:]
        other[field] = content
        del file[field]
        make(file, field, content)


def external_link(file, field, content):
    file[field] = h5py.ExternalLink("other.h5", field)


def soft_link(file, field, content):
    file["elsewhere"] = content
    file[field] = h5py.SoftLink("/elsewhere")


def external_storage(file, field, content):
    raw = Path(file.filename).with_name("raw.bin")
    raw.write_bytes(content.tobytes())
    file.create_dataset(field, content.shape, content.dtype, external=[(str(raw), 0, content.nbytes)])


def virtual(file, field, content):
    layout = h5py.VirtualLayout(content.shape, content.dtype)
    layout[:] = h5py.VirtualSource("other.h5", field, content.shape)
    file.create_virtual_dataset(field, layout)


def plugin(file, field, content):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk(content.shape)
    layout.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # zstd, which HDF5 would look for in its plugin folder
    space = h5py.h5s.create_simple(content.shape)
    h5py.h5d.create(file.id, field.encode(), h5py.h5t.py_create(content.dtype, logical=True), space, layout)
    file[field][...] = content


def group(file, field, content):
    file.create_group(field)


def unwritten(file, field, content):
    file.create_dataset(field, (2, 3, 10**5, 10**5), content.dtype, chunks=(1, 1, 100, 100))


def chunk(file, field, content):
    """A chunk of 10 gigabytes, of which a hundred bytes are stored."""
    size = (1, 3, 20_000, 20_000)
    data = file.create_dataset(field, content.shape, content.dtype, maxshape=(None,) * 4, chunks=size, compression=4)
    data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(10**4)))


LEADS = [(external_link, "missing"), (soft_link, "missing"), (external_storage, "points into other files")]
LEADS += [(virtual, "points into other files"), (plugin, "filter 32015, a plugin"), (unwritten, "claims 4.8e.11 bytes")]
LEADS += [(chunk, "claims 9.6e.09 bytes"), (group, "missing")]


@pytest.mark.parametrize("field", ["values", "maps"])
@pytest.mark.parametrize(("make", "message"), LEADS, ids=[make.__name__ for make, _ in LEADS])
def test_a_store_that_leads_elsewhere_is_refused(store, field, make, message):
    replaced(store, field, make)
    with pytest.raises(DataError, match=message) as caught:
        MeasurementStore(store)
    assert "\n" not in str(caught.value)


def test_a_name_that_claims_four_gigabytes_is_refused(store):
    claim_length(store, "name")
    with pytest.raises(DataError, match=r"a value of /name claims 4.29e.09 bytes"):
        MeasurementStore(store)


CLAIM = """
import resource, sys
from msm.data.store import DataError, MeasurementStore
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    MeasurementStore(sys.argv[1])
except DataError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)
"""


def test_no_memory_is_taken_for_a_claim(tmp_path):
    """A store of a few kilobytes says that it holds 10⁹ items of 12 gigabytes."""
    with h5py.File(tmp_path / "store.h5", "w") as file:
        file.attrs.update(format="msm-measurements", version=1, provenance="{}")
        count, size = 10**9, (10**5, 10**4)
        file.create_dataset("values", (count, 3, *size), "f4", chunks=(1, 1, 100, 100))
        file.create_dataset("mask", (count, 1, *size), "?", chunks=(1, 1, 100, 100))
        file.create_dataset("noise_std", (count,), "f4", chunks=(1000,))
        file.create_dataset("name", (count,), h5py.string_dtype(), chunks=(1000,))
        file["noise_std"][:10] = np.zeros(10)
    done = subprocess.run(
        [sys.executable, "-c", CLAIM, str(tmp_path / "store.h5")], capture_output=True, text=True, check=True
    )
    message, kilobytes = done.stdout.splitlines()
    assert "values claims 1.2e+19 bytes" in message and int(kilobytes) < 20_000
