"""Sampling that was stopped: no batch is drawn twice, none is taken from other settings, the results are the same."""

import errno

import numpy as np
import pytest
import torch
from runs import PHOTOS, PROBLEMS, run, save_weights, write_config

import msm.sample.draw
from msm.network import ADMNetwork
from msm.sample.kept_batches import Parts
from msm.system.files import fingerprint


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """sample(folder, *overrides, fail=n) -> (exit code, batches drawn); the n-th batch fails."""
    config = write_config(tmp_path, **PHOTOS)
    save_weights(tmp_path / "w")

    def command(folder, *overrides, fail=None):
        drawn = []
        for name in ("generate", "reconstruct"):

            def counted(*arguments, original=getattr(msm.sampling, name), **options):
                drawn.append(options["seeds"])
                if len(drawn) == fail:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return original(*arguments, **options)

            monkeypatch.setattr(msm.sample.draw, name, counted)
        weights = f"setting.pretrained_model_dir={tmp_path}/w"
        code = run(monkeypatch, "sample", config, weights, f"setting.save_dir={tmp_path}/{folder}", *overrides)
        return code, drawn

    return command


@pytest.mark.parametrize("problem", [[], [f"inverse_problem={PROBLEMS['images']}", "sample.samples=2"]])
def test_a_stopped_run_goes_on(sample, tmp_path, problem):
    size = 2 if problem else 1  # samples a batch
    settings = ["sample.count=3", f"sample.batch_size={size}", *problem]
    assert sample("whole", *settings) == (0, [[n] if not problem else [2 * n, 2 * n + 1] for n in range(3)])
    assert len(sample("cut", *settings, fail=3)[1]) == 3
    (kept,) = (tmp_path / "cut" / "parts").iterdir()
    (kept / f"{size:06d}-{2 * size:06d}.pt").write_bytes(b"damaged")
    code, drawn = sample("cut", *settings)
    assert code == 0 and [seeds[0] for seeds in drawn] == ([2, 4] if problem else [1, 2])
    whole, cut = ({p.relative_to(tmp_path / r): p for p in (tmp_path / r).rglob("*.npy")} for r in ("whole", "cut"))
    assert whole.keys() == cut.keys() and len(whole) == (2 if problem else 1)
    assert all(np.array_equal(np.load(whole[name]), np.load(cut[name])) for name in whole)
    assert not (tmp_path / "cut" / "parts").exists()


@pytest.mark.parametrize("change", ["sample.seed=7", "sample.steps=2", "weights"])
def test_nothing_is_taken_from_another_run(sample, tmp_path, change):
    settings = ["sample.count=2", "sample.batch_size=1"]
    assert len(sample("run", *settings, fail=2)[1]) == 2
    if change == "weights":
        torch.manual_seed(1)
        save_weights(tmp_path / "w")
    else:
        settings.append(change)
    assert len(sample("run", *settings)[1]) == 2


def test_fingerprint_tells_apart():
    x = torch.arange(4.0)
    seen = {fingerprint(t, [v]) for t in (["a", "b"], ["ab"], ["b", "a"]) for v in (x, x.view(2, 2), x.long(), x + 1)}
    assert len(seen) == 12 and fingerprint(["a"], [x]) == fingerprint(["a"], [x.clone()])


def test_complex_parts_keep_their_bits(tmp_path):
    value = torch.randn(2, 3, dtype=torch.complex64), torch.zeros(1, dtype=torch.bool)
    first = Parts(tmp_path, "0" * 64).keep(lambda numbers: value)(range(2))
    reused = []
    again = Parts(tmp_path, "0" * 64).keep(lambda numbers: 1 / 0, reused.append)(range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again)) and reused == [range(2)]


@pytest.mark.parametrize("problem", [[], [f"inverse_problem={PROBLEMS['images']}", "sample.samples=2"]])
def test_batches_too_large_for_memory_are_halved(sample, tmp_path, monkeypatch, capsys, problem):
    settings = ["sample.count=5", "sample.batch_size=5", *problem]
    assert sample("whole", *settings)[0] == 0
    forward = ADMNetwork.forward

    def with_little_memory(network, u, t):
        if len(u) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes.")
        return forward(network, u, t)

    monkeypatch.setattr(ADMNetwork, "forward", with_little_memory)
    capsys.readouterr()
    code, drawn = sample("halved", *settings)
    assert code == 0 and [len(seeds) for seeds in drawn[:4]] == [5, 2, 2, 1]
    assert all(len(seeds) <= 2 for seeds in drawn[1:])
    assert "does not suffice for sample.batch_size; going on with 2" in capsys.readouterr().err
    for name in ("images.npy", "samples.npy")[: 2 if problem else 1]:
        whole, halved = (np.load(tmp_path / run / name) for run in ("whole", "halved"))
        assert len(whole) == 5 and np.allclose(whole, halved, atol=1e-4)


def test_memory_that_suffices_for_no_image(sample, monkeypatch, capsys):
    def without_memory(network, u, t):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(ADMNetwork, "forward", without_memory)
    code, drawn = sample("run", "sample.count=4", "sample.batch_size=4")
    assert code == 2 and [len(seeds) for seeds in drawn] == [4, 2, 1]
    assert "memory does not suffice for a single image" in capsys.readouterr().err
