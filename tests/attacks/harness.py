"""Attack every file that msm reads back, and every command, and count what comes of it.

    python tests/attacks/harness.py OUT.json --flips 1000 --kills 200 --seed 0

A world is made by the command line: a trained run, its refinement, samples, an evaluation, stores, raw scans, and what
stopped commands keep. An attack spoils a copy of it and runs the command that reads what was spoilt:

    flip, cut, swap   one byte of a file changes, its end is gone, or two files of a kind change places
    kill              SIGKILL at a random moment of the command; then the same command again, to its end
    full              no file may grow beyond a random size, as on a full disk; then the same command again without

    detected    one line that says so, exit code 2
    harmless    the same results, bit for bit, as without the attack
    silent      exit code 0, and other results
    traceback   anything else that ends a command
    hang        no end within a minute
    lost        a file that is not msm's is gone or changed

Commands run in forks of one process, which has imported everything.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import h5py
import numpy as np
import torch
from PIL import Image

from msm.cli import main
from msm.evaluate.rounds import Standing
from msm.sample.kept_batches import Parts

PATIENCE = 60  # seconds
SAME_AGAIN = 100  # attacks: before more, it is seen that the same command makes the same bits
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


@dataclass(frozen=True)
class Job:
    """A command, what it makes, and which files it reads back: folders, and glob patterns in them."""

    name: str
    words: tuple[str, ...]
    makes: tuple[str, ...]
    reads: tuple[str, ...]
    swaps: bool = False  # whether two of the files may change places


def jobs() -> list[Job]:
    """All commands; {root} is the world."""
    config = "{root}/config.yaml"
    weights = "setting.pretrained_model_dir={root}/run/weights"
    hole = "inverse_problem={{operator: box, hole: 8}}"
    photos = "setting.dataset_dir={root}/photos"
    sample = ("sample", config, weights, photos, hole)
    return [
        Job("sample", (*sample, "setting.save_dir={root}/new"), ("new",), ("run/weights/*",)),
        Job("generate", ("sample", config, weights, "setting.save_dir={root}/new"), ("new",), ("run/weights/*",)),
        Job("sample again", (*sample, "setting.save_dir={root}/kept"), ("kept",), ("kept/parts/*/*",), swaps=True),
        Job("sample twice", (*sample, "setting.save_dir={root}/filled"), ("filled",), ("filled/*",)),
        Job("train", ("train", config, "setting.save_dir={root}/new"), ("new/weights",), ("store.h5",)),
        Job("train on", ("train", config), ("run/weights",), ("run/checkpoints/*/**/*", "run/*.yaml")),
        Job("train from its folder", ("train", "{root}/run"), ("run/weights",), ("run/*.yaml",)),
        Job("evaluate", ("evaluate", "{root}/filled"), JUDGED, ("filled/*",)),
        Job("report", ("report", "{root}/judged", "-o", "{root}/page.html"), ("page.html",), ("judged/*",)),
        Job("refine", ("refine", "{root}/run"), ("run/refined/weights",), ("run/weights/*", "store.h5")),
        Job("refine on", ("refine", "{root}/half"), ("half/refined/weights",), ("half/refined/round_*/**/*",)),
        Job("acquire", ("acquire", config, "-o", "{root}/new.h5", photos), ("new.h5",), ()),
        Job(
            "import",
            ("acquire", "{root}/raw", "-o", "{root}/scans.h5"),
            ("scans.h5",),
            ("scans.h5.parts/*",),
            swaps=True,
        ),
    ]


def fork(words: tuple[str, ...], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Start a command in a fork; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["msm", *words]
        prepare()
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, patience: float) -> int | None:
    """The exit code of a fork, negative for a signal; None if it had to be killed."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run(world: Path, job: Job, prepare: Callable[[], None] = lambda: None) -> tuple[int | None, str]:
    """A command to its end: exit code, and what it said."""
    log = world / "said.txt"
    code = ended(fork(tuple(word.format(root=world) for word in job.words), log, prepare), PATIENCE)
    return code, log.read_text(errors="replace")


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
    files = [f for place in ("photos", "raw") for f in (world / place).rglob("*") if f.is_file()]
    files += [world / "config.yaml", *world.glob("mine*")]
    return {f.relative_to(world).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def keep_everything() -> None:
    """A command that then removes nothing that it kept, and whose rounds are all taken."""
    Parts.remove = lambda self: None
    take_all_rounds()


def with_room(room: int) -> None:
    """A command whose files may not be larger than so many bytes."""
    take_all_rounds()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))


def take_all_rounds() -> None:
    """Networks that have learned nothing yet may become worse."""
    Standing.worse_than = lambda self, before: None


def make_world(world: Path) -> None:
    """Run every command once."""
    rng = np.random.default_rng(0)
    (world / "photos").mkdir(parents=True)
    for n in range(12):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(world / "photos" / f"{n:02d}.png")
    (world / "raw").mkdir()
    grid = np.hypot(*(np.indices((32, 32)) - 16))
    for n in range(2):
        k_space = (rng.normal(size=(3, 32, 32)) + 1j * rng.normal(size=(3, 32, 32))) / (1 + grid)
        np.save(world / "raw" / f"scan{n}.npy", k_space.astype(np.complex64))
    (world / "config.yaml").write_text(CONFIG.format(root=world))
    (world / "mine.txt").write_text("not msm's")
    by_name = {job.name: job for job in jobs()}

    def do(words: tuple[str, ...], prepare: Callable[[], None] = take_all_rounds) -> None:
        code, said = run(world, Job("", words, (), ()), prepare)
        assert code == 0, (words, said)

    config, photos = "{root}/config.yaml", "setting.dataset_dir={root}/photos"
    do(("acquire", config, "-o", "{root}/store.h5", photos))
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
    for file in ("standing.json", "SHA256SUMS"):
        (world / "half" / "refined" / "round_2" / file).unlink(missing_ok=True)
    do(by_name["import"].words, no_rmtree)
    for file in world.glob("scans*"):
        if file.is_file():
            file.unlink()


def no_rmtree() -> None:
    """An import whose parts stay."""
    from msm.raw import import_store

    import_store.shutil = type("kept", (), {"rmtree": staticmethod(lambda *given, **options: None)})


def spoil(rng: random.Random, files: list[Path], swaps: bool) -> str:
    """Spoil one of the files, or two; what was done."""
    file = rng.choice(files)
    kind = rng.choice(["flip", "flip", "flip", "cut", *(["swap"] if swaps and len(files) > 1 else [])])
    held = bytearray(file.read_bytes())
    if kind == "swap":
        other = rng.choice([f for f in files if f != file and f.suffix == file.suffix] or [file])
        first, second = file.read_bytes(), other.read_bytes()
        file.write_bytes(second)
        other.write_bytes(first)
    elif kind == "flip" and held:
        place = rng.randrange(len(held))
        held[place] ^= 1 << rng.randrange(8)
        file.write_bytes(held)
    else:
        file.write_bytes(held[: rng.randrange(len(held) + 1) if held else 0])
    return f"{kind} {file.name}"


def judged(code: int | None, said: str, same: bool, kept: bool) -> str:
    """What came of an attack."""
    if not kept:
        return "lost"
    if code is None:
        return "hang"
    if "Traceback" in said or code not in (0, 2, 3):
        return "traceback"
    if code == 2:
        lines = [
            line
            for line in said.splitlines()
            if line.startswith("msm: ") and not line.startswith(("msm: note", "msm: warning"))
        ]
        return "detected" if lines else "traceback"
    return "harmless" if same else "silent"


def attacks(world: Path, count: int, kills: int, seed: int) -> Iterator[tuple[str, str, str, str]]:
    """Command, what was done, outcome, and what was said where the outcome is bad."""
    rng, copy = random.Random(seed), world.with_name("world")
    baseline, took = {}, {}
    for job in jobs():
        fresh(world, copy)
        began = time.monotonic()
        code, said = run(copy, job, take_all_rounds)
        took[job.name] = time.monotonic() - began
        assert code == 0, (job, said)
        baseline[job.name] = results(copy, job)
        if count > SAME_AGAIN:
            fresh(world, copy)
            assert run(copy, job, take_all_rounds)[0] == 0 and results(copy, job) == baseline[job.name], job
    fresh(world, copy)
    readers, mine = [job for job in jobs() if job.reads], others(copy)
    for number in range(count + 2 * kills):
        fresh(world, copy)
        if number < count:
            job = readers[number % len(readers)]
            files = sorted({f for pattern in job.reads for f in copy.glob(pattern) if f.is_file()})
            done = spoil(rng, files, job.swaps)
        else:
            job = jobs()[number % len(jobs())]
            wait = rng.uniform(0, 1.05 * took[job.name])
            words = tuple(word.format(root=copy) for word in job.words)
            if number < count + kills:
                late = ended(fork(words, copy / "said.txt", take_all_rounds), wait) is not None
                done, first = "kill, too late" if late else "kill", "harmless"
            else:
                room = int(10 ** rng.uniform(3.6, 6))  # what is said goes to a file too
                code, said = run(copy, job, lambda: with_room(room))  # noqa: B023
                done, first = f"full, {room} bytes", judged(code, said, results(copy, job) == baseline[job.name], True)
                if first in ("detected", "harmless") and (left := leftovers(copy)):
                    first, said = "left over", ", ".join(left)
                if first not in ("detected", "harmless"):
                    yield job.name, done, first, said
                    continue
        code, said = run(copy, job, take_all_rounds)
        outcome = judged(code, said, results(copy, job) == baseline[job.name], others(copy) == mine)
        if outcome == "harmless" and (left := leftovers(copy)):
            outcome, said = "left over", ", ".join(left)
        yield job.name, done, outcome, said if outcome not in ("detected", "harmless") else ""


def leftovers(world: Path) -> list[str]:
    """Half-written files, and locks, that lie about after a command has ended well."""
    return [
        path.relative_to(world).as_posix() for path in world.rglob(".*") if ".tmp" in path.name or "lock" in path.name
    ]


def fresh(world: Path, copy: Path) -> None:
    """Put a copy in the place where the world was made: paths in its files stay right."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(world, copy)


def count(out: Path | None, flips: int, kills: int, seed: int) -> dict[str, object]:
    """Make the attacks; the counts of their outcomes, and each bad one."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        made, world = Path(root) / "world", Path(root) / "kept"
        make_world(made)
        made.rename(world)
        outcomes: dict[str, Counter[str]] = {"spoilt": Counter(), "killed": Counter(), "full disk": Counter()}
        bad = []
        for name, done, outcome, said in attacks(world, flips, kills, seed):
            kind = "killed" if done.startswith("kill") else "full disk" if done.startswith("full") else "spoilt"
            outcomes[kind][outcome] += 1
            if outcome not in ("detected", "harmless"):
                bad.append({"command": name, "attack": done, "outcome": outcome, "said": said[-2000:]})
                print(f"{name}, {done}: {outcome}", flush=True)
    record = {"seed": seed, **{kind: dict(sorted(found.items())) for kind, found in outcomes.items()}, "bad": bad}
    if out is not None:
        out.write_text(json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = count(options.out, options.flips, options.kills, options.seed)
    print(json.dumps({key: value for key, value in found.items() if key != "bad"}))
