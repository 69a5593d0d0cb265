"""A world to attack: every command was run in it once, and what stopped commands keep is there; and how commands run.

Commands run in forks of one process, which has imported everything.
"""

import gc
import hashlib
import os
import pkgutil
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200", "GLOO_SOCKET_IFNAME": "lo"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import h5py
import numpy as np
import torch
from dataset_files import DATASETS
from PIL import Image
from raw_files import GOOD
from twix_files import TWIX

import msm
from msm.cli import main
from msm.evaluate import rounds
from msm.evaluate.rounds import Standing
from msm.sample.kept_batches import Parts

PATIENCE = 600  # seconds until a command hangs: on a busy machine the slowest, of ten seconds, takes minutes
GRACE = 5  # seconds between SIGTERM and SIGKILL for the others, where one of several processes has failed
OURS_THAT_VARY = ("log.jsonl", "versions.json", "events.out", ".lock")  # times of day, and the command as it was asked
CONFIG = """
setting: {{save_dir: {root}/run, dataset_dir: {root}/store.h5}}
data: {{kind: images, image_size: 16, held_out: 4, mask: {{kind: box}}}}
network: {{image_size: 16, in_channels: 3, num_channels: 32, num_res_blocks: 1, channel_mult: [1],
  attention_resolutions: [], num_head_channels: 32, num_groups: 8}}
diffusion: {{parametrisation: edm}}
train: {{images: 24, batch_size: 4, checkpoint_images: 8, validation_share: 0.2, pictures: 0, lr: 1.0e-3}}
refine: {{rounds: 2, images: 16, steps: 3}}
sample: {{count: 2, samples: 2, steps: 3, batch_size: 1}}
"""
JUDGED = ("filled/records.jsonl", "filled/evaluation.json", "filled/gallery.npz")
SCANS = GOOD | DATASETS | TWIX


@dataclass(frozen=True)
class Job:
    """A command, what it makes, and which files it reads back: folders, and glob patterns in them.

    Args:
        swaps: patterns of files that those it reads may change places with.
        foreign: whether they are others' files, of which nobody knows what was in them.
        processes: how many run it together, as torchrun starts them.
    """

    name: str
    words: tuple[str, ...]
    makes: tuple[str, ...]
    reads: tuple[str, ...]
    swaps: tuple[str, ...] = ()
    foreign: bool = False
    processes: int = 1


def jobs() -> list[Job]:
    """All commands; {root} is the world."""
    config, new = "{root}/config.yaml", "setting.save_dir={root}/new"
    weights = "setting.pretrained_model_dir={root}/run/weights"
    hole = "inverse_problem={{operator: box, hole: 8}}"
    photos = "setting.dataset_dir={root}/photos"
    kept, parts = "kept/parts/*/*", "scans.h5.parts/*"
    checkpoints, rounds = "run/checkpoints/*/**/*", "half/refined/round_*/**/*"
    sample, others = ("sample", config, weights, photos, hole), ("half/refined/weights/*",)
    report = ("report", "{root}/judged", "-o", "{root}/page.html")
    foreign = ("acquire", "{root}/foreign", "-o", "{root}/new.h5", "--coils", "1", "--size", "8", "8")
    return [
        Job("sample", (*sample, new), ("new",), ("run/weights/*",), others),
        Job("generate", ("sample", config, weights, new), ("new",), ("run/weights/*",), others),
        Job("sample again", (*sample, "setting.save_dir={root}/kept"), ("kept",), (kept,), (kept,)),
        Job("sample twice", (*sample, "setting.save_dir={root}/filled"), ("filled",), ("filled/*",), ("judged/*",)),
        Job("train", ("train", config, new), ("new/weights",), ("store.h5",)),
        Job("train, two processes", ("train", config, new), ("new/weights",), ("store.h5",), processes=2),
        Job("train on", ("train", config), ("run/weights",), (checkpoints, "run/*.yaml"), (checkpoints,)),
        Job("train on the store", ("train", config), ("run/weights",), ("store.h5",), ("other.h5",)),
        Job("train from its folder", ("train", "{root}/run"), ("run/weights",), ("run/*.yaml",)),
        Job("evaluate", ("evaluate", "{root}/filled"), JUDGED, ("filled/*",), ("filled/*", "judged/*")),
        Job("report", report, ("page.html",), ("judged/*",), ("filled/*",)),
        Job("refine", ("refine", "{root}/run"), ("run/refined/weights",), ("run/weights/*", "store.h5"), others),
        Job("refine on", ("refine", "{root}/half"), ("half/refined/weights",), (rounds,), (rounds,)),
        Job("acquire", ("acquire", config, "-o", "{root}/new.h5", photos), ("new.h5",), ("photos/*",), foreign=True),
        Job("import", ("acquire", "{root}/raw", "-o", "{root}/scans.h5"), ("scans.h5",), (parts,), (parts,)),
        Job("import others' files", foreign, ("new.h5",), ("foreign/*/*",), foreign=True),
    ]


def import_everything() -> None:
    """All modules of msm, and what they import: commands do so one by one. Nothing here starts a thread."""
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(msm.__path__, "msm."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    gc.freeze()  # so that forks do not copy what they only look through


# ---- how commands run


def start(words: tuple[str, ...], log: Path, prepare: Callable[[], None], processes: int = 1) -> list[int]:
    """Start a command in forks; their numbers."""
    log.write_text("")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    met = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(processes):
        environment = {**met, "RANK": rank, "LOCAL_RANK": rank} if processes > 1 else {}
        children.append(os.fork())
        if not children[-1]:
            _command(words, log, prepare, environment)
    return children


def _command(words: tuple[str, ...], log: Path, prepare: Callable[[], None], environment: dict[str, object]) -> None:
    """The command, in a fork; does not return."""
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update({name: str(value) for name, value in environment.items()})
        sys.argv = ["msm", *words]
        prepare()
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # on a full disk, too: the fork must not go on as its parent, and remove the world
            os._exit(code)


def ended(children: list[int], patience: float, victims: list[int] | None = None) -> int | None:
    """The exit code of forks, that of the first that failed, negative for a signal; None if they had to be killed.

    Where one fails the others get SIGTERM, and SIGKILL after a while, as from torchrun.

    Args:
        children: the forks.
        patience: seconds.
        victims: those that are killed after them, with what happens to the others then; None for all.
    """
    left, code, killed = list(children), 0, False
    deadline = time.monotonic() + patience
    while left:
        for child in list(left):
            found, status = os.waitpid(child, os.WNOHANG)
            if not found:
                continue
            left.remove(child)
            if (its := os.waitstatus_to_exitcode(status)) and not code:
                code = its
                if not killed:
                    deadline = min(deadline, time.monotonic() + GRACE)
                for other in left:
                    os.kill(other, signal.SIGTERM)
        if left and time.monotonic() > deadline:
            struck = left if code or killed or victims is None else [child for child in left if child in victims]
            killed = killed or not code
            for child in struck:
                os.kill(child, signal.SIGKILL)
            deadline = time.monotonic() + GRACE
        time.sleep(0.002)
    return None if killed else code


def run(world: Path, job: Job, prepare: Callable[[], None] = lambda: None) -> tuple[int | None, str]:
    """A command to its end: exit code, and what it said."""
    log = world / "said.txt"
    words = tuple(word.format(root=world) for word in job.words)
    code = ended(start(words, log, prepare, job.processes), PATIENCE)
    return code, log.read_text(errors="replace")


def keep_everything() -> None:
    """A command that then removes nothing that it kept, and whose rounds are all taken."""
    Parts.remove = lambda self: None
    take_all_rounds()


def take_all_rounds() -> None:
    """Networks that have learned nothing yet may become worse, and are not worth long judging."""
    Standing.worse_than = lambda self, before: None
    rounds.GENERATED = 3


def no_rmtree() -> None:
    """An import whose parts stay."""
    from msm.raw import import_store

    import_store.shutil = type("kept", (), {"rmtree": staticmethod(lambda *given, **options: None)})


# ---- the world


def make_world(world: Path) -> None:
    """Run every command once."""
    write_inputs(world)
    by_name = {job.name: job for job in jobs()}

    def do(words: tuple[str, ...], prepare: Callable[[], None] = take_all_rounds) -> None:
        code, said = run(world, Job("", words, (), ()), prepare)
        assert code == 0, (words, said)

    config, photos = "{root}/config.yaml", "setting.dataset_dir={root}/photos"
    do(("acquire", config, "-o", "{root}/store.h5", photos))
    do(("acquire", config, "-o", "{root}/other.h5", photos, "data.seed=1"))
    do(by_name["train on"].words)
    shutil.copytree(world / "run", world / "half")
    for name in ("kept", "filled", "judged"):
        words = (*by_name["sample"].words[:-1], f"setting.save_dir={{root}}/{name}")
        do(words, keep_everything if name == "kept" else take_all_rounds)
    for file in (world / "kept").iterdir():
        if file.is_file():
            file.unlink()
    shutil.rmtree(world / "kept" / "images")
    do(("evaluate", "{root}/judged"))
    do(("refine", "{root}/half", "refine.rounds=1"), keep_everything)
    do(by_name["refine on"].words)
    for name in ("standing.json", "SHA256SUMS"):
        (world / "half" / "refined" / "round_2" / name).unlink(missing_ok=True)
    do(by_name["import"].words, no_rmtree)
    for file in world.glob("scans*"):
        if file.is_file():
            file.unlink()


def write_inputs(world: Path) -> None:
    """What others made: photos, raw scans, a config, and a file that has nothing to do with it."""
    rng = np.random.default_rng(0)
    (world / "photos").mkdir(parents=True)
    for n in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(world / "photos" / f"{n:02d}.png")
    (world / "raw").mkdir()
    grid = np.hypot(*(np.indices((32, 32)) - 16))
    for n in range(2):
        k_space = (rng.normal(size=(3, 32, 32)) + 1j * rng.normal(size=(3, 32, 32))) / (1 + grid)
        np.save(world / "raw" / f"scan{n}.npy", k_space.astype(np.complex64))
    for kind, write in SCANS.items():
        (world / "foreign" / kind).mkdir(parents=True)
        write(world / "foreign" / kind)
    (world / "config.yaml").write_text(CONFIG.format(root=world))
    (world / "mine.txt").write_text("not msm's")


def fresh(world: Path, copy: Path) -> None:
    """Put a copy in the place where the world was made: paths in its files stay right."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(world, copy)


# ---- what is there


def results(world: Path, job: Job) -> dict[str, str]:
    """What a command made, by file."""
    files = [
        f for made in job.makes for f in ([world / made] if (world / made).is_file() else (world / made).rglob("*"))
    ]
    return {
        file.relative_to(world).as_posix(): content(file)
        for file in files
        if file.is_file() and not any(name in file.name for name in OURS_THAT_VARY) and "checkpoints" not in file.parts
    }


def content(file: Path) -> str:
    """A hash of what a file says."""
    held = file.read_bytes()
    if file.name == "SHA256SUMS":
        held = b""  # of files that vary, too
    if file.suffix == ".h5":
        with h5py.File(file) as store:
            held = b"".join(
                np.asarray(store[name][:].astype("S") if store[name].dtype.kind == "O" else store[name]).tobytes()
                for name in store
            )
    return hashlib.sha256(held).hexdigest()


def others(world: Path) -> dict[str, str]:
    """Files that are not msm's."""
    files = [f for place in ("photos", "raw", "foreign") for f in (world / place).rglob("*") if f.is_file()]
    files += [world / "config.yaml", *world.glob("mine*")]
    return {f.relative_to(world).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def leftovers(world: Path) -> list[str]:
    """Half-written files, and locks, that lie about after a command has ended well."""
    return [
        path.relative_to(world).as_posix() for path in world.rglob(".*") if ".tmp" in path.name or "lock" in path.name
    ]
