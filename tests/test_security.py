"""What SECURITY.md promises and no other test shows: nothing in a file runs, leads elsewhere or claims memory."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from stores import write_scans
from training import trainer, write_store

import msm
from msm.data.store import MeasurementStore
from msm.errors import DataError, TrainingError
from msm.sample.kept_batches import Parts
from msm.train.checkpoints import _digests

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
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"sha256": _digests(folder)}))  # as an attacker would
    with pytest.raises(TrainingError, match="damaged"):
        trainer(store, tmp_path / "run").run()
    assert not (tmp_path / "ran").exists()


def test_code_in_a_kept_batch_is_not_run(tmp_path):
    parts = Parts(tmp_path, "0" * 64)
    parts.folder.mkdir(parents=True)
    torch.save(Attack(tmp_path / "ran"), parts.folder / "000000.pt")
    result = parts.keep(lambda numbers: torch.ones(1))(range(1))
    assert torch.equal(result, torch.ones(1)) and not (tmp_path / "ran").exists()


RUNS = {"eval", "exec", "compile", "__import__"}
READS = {"load", "loads", "unsafe_load", "full_load", "Unpickler", "system", "popen"}
KNOWN = {"json.loads", "ADMNetwork.load", "type(self.network).load"}


def test_no_call_in_the_source_can_run_what_it_reads():
    """torch.load says weights_only, np.load no pickle, nothing imports pickle or a shell; YAML has its own loader."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not {name.split(".")[0] for name in names} & {"pickle", "subprocess", "shelve", "marshal"}, path
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


def unwritten(file, field, content):
    file.create_dataset(field, (2, 3, 10**5, 10**5), content.dtype, chunks=(1, 1, 100, 100))


LEADS = [(external_link, "missing"), (soft_link, "missing"), (external_storage, "points into other files")]
LEADS += [(virtual, "points into other files"), (plugin, "filter 32015, a plugin"), (unwritten, "claims|has shape")]


@pytest.mark.parametrize("field", ["values", "maps"])
@pytest.mark.parametrize(("make", "message"), LEADS, ids=[make.__name__ for make, _ in LEADS])
def test_a_store_that_leads_elsewhere_is_refused(store, field, make, message):
    replaced(store, field, make)
    with pytest.raises(DataError, match=message) as caught:
        MeasurementStore(store)
    assert "\n" not in str(caught.value)


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
    assert "claims 1.2e+10 bytes" in message and int(kilobytes) < 20_000
