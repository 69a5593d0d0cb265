"""Attack every file that msm reads back, and every command, and count what comes of it.

    python tests/attacks/harness.py OUT.json --flips 1000 --kills 200 --seed 0

A world is made by the command line (`world.py`): a trained run, its refinement, samples, an evaluation, stores, raw
scans, and what stopped commands keep. An attack spoils a copy of it and runs the command that reads what was spoilt:

    flip, cut, swap   one byte of a file changes, its end is gone, or two files of a kind change places
    kill              SIGKILL at a random moment of the command, of two processes to one or both; then the same command
                      again, to its end
    full              no file may grow beyond a random size, as on a full disk; then the same command again without
    memory            it may take a random size more than it has at its start; then the same command again without

    detected    one line that says so, exit code 2; or 3, of several files of others
    harmless    the same results, bit for bit, as without the attack
    taken       other results, of a file of others that was spoilt: nobody knows what was in it
    silent      exit code 0, and other results
    traceback   anything else that ends a command
    hang        no end within ten minutes
    lost        a file that is not msm's is gone or changed
    left over   half-written files, or a lock, lie about at the end
"""

import argparse
import json
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from world import (
    Job,
    ended,
    fresh,
    import_everything,
    jobs,
    leftovers,
    make_world,
    others,
    results,
    run,
    start,
    take_all_rounds,
)

SAME_AGAIN = 100  # attacks: before more, it is seen that the same command makes the same bits
KINDS = ("spoilt", "killed", "full disk", "low memory")
GOOD = ("detected", "harmless", "taken")


def spoil(rng: random.Random, files: list[Path], partners: list[Path]) -> str:
    """Spoil one of the files, or make it change places with a partner of its kind; what was done."""
    file = rng.choice(files)
    held = bytearray(file.read_bytes())
    like = [f for f in partners if f != file and f.suffix == file.suffix and f.read_bytes() != held]
    kind = rng.choice(["flip", "flip", "flip", "cut", *(["swap"] if like else [])])
    if kind == "swap":
        other = rng.choice(like)
        file.write_bytes(other.read_bytes())
        other.write_bytes(held)
        return f"swap {file.name} and {other.parent.name}/{other.name}"
    if kind == "flip" and held:
        held[rng.randrange(len(held))] ^= 1 << rng.randrange(8)
        file.write_bytes(held)
    else:
        file.write_bytes(held[: rng.randrange(len(held) + 1) if held else 0])
    return f"{kind} {file.name}"


def with_room(room: int) -> None:
    """A command whose files may not be larger than so many bytes."""
    take_all_rounds()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))


def with_memory(room: int) -> None:
    """A command that may take so many bytes more than it has."""
    take_all_rounds()
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + room, has + room))


def judged(code: int | None, said: str, *, same: bool, kept: bool, foreign: bool) -> str:
    """What came of an attack."""
    if not kept:
        return "lost"
    if code is None:
        return "hang"
    ignored = said.count("Exception ignored in")  # Python's note of what ends nothing, with a traceback
    if said.count("Traceback (most recent call last)") > ignored or code not in (0, 2, 3):
        return "traceback"
    if code == 2 or (code == 3 and foreign):
        lines = [
            line
            for line in said.splitlines()
            if line.startswith("msm: ") and not line.startswith(("msm: note", "msm: warning"))
        ]
        return "detected" if lines or code == 3 else "traceback"
    return "harmless" if same else "taken" if foreign else "silent"


class Attacks:
    """The commands of a world, what they make and how long they take.

    Args:
        world: as it was made; nothing changes in it.
        twice: whether it is seen that the same command makes the same bits.
    """

    def __init__(self, world: Path, twice: bool):
        self.world, self.copy = world, world.with_name("world")
        self.baseline, self.took = {}, {}
        for job in jobs():
            for again in range(1 + twice):
                fresh(self.world, self.copy)
                began = time.monotonic()
                code, said = run(self.copy, job, take_all_rounds)
                self.took[job.name] = time.monotonic() - began
                made = results(self.copy, job)
                assert code == 0 and made, (job, code, said)
                assert not again or made == self.baseline[job.name], job
                self.baseline[job.name] = made

    def spoilt(self, rng: random.Random, job: Job) -> tuple[str, str, str]:
        """A file that the command reads is spoilt: what was done, outcome, what was said."""
        fresh(self.world, self.copy)
        files, partners = ([f for p in of for f in self.copy.glob(p) if f.is_file()] for of in (job.reads, job.swaps))
        done = spoil(rng, sorted(files), sorted(partners))
        return done, *self.afterwards(job, others(self.copy), foreign=job.foreign)

    def killed(self, rng: random.Random, job: Job) -> tuple[str, str, str]:
        """The command is killed, and started again."""
        fresh(self.world, self.copy)
        mine, wait = others(self.copy), rng.uniform(0, 1.05 * self.took[job.name])
        words = tuple(word.format(root=self.copy) for word in job.words)
        children = start(words, self.copy / "said.txt", take_all_rounds, job.processes)
        victims = rng.choice([children, *([child] for child in children)])
        late = ended(children, wait, victims) is not None
        return "kill, too late" if late else "kill", *self.afterwards(job, mine)

    def without_room(self, rng: random.Random, job: Job) -> tuple[str, str, str]:
        """The command meets a full disk, and is started again with room."""
        room = int(10 ** rng.uniform(3.6, 6))  # what is said goes to a file too
        return f"full, {room} bytes", *self.limited(job, lambda: with_room(room))

    def without_memory(self, rng: random.Random, job: Job) -> tuple[str, str, str]:
        """The command gets no memory, and is started again with it."""
        room = int(10 ** rng.uniform(6, 8.5))
        return f"memory, {room} bytes", *self.limited(job, lambda: with_memory(room))

    def limited(self, job: Job, limit: Callable[[], None]) -> tuple[str, str]:
        """The command under a limit, then without."""
        fresh(self.world, self.copy)
        mine = others(self.copy)
        outcome, said = self.judge(job, *run(self.copy, job, limit), mine)
        if outcome in GOOD and (left := leftovers(self.copy)):
            return "left over", ", ".join(left)
        return self.afterwards(job, mine) if outcome in GOOD else (outcome, said)

    def judge(self, job: Job, code: int | None, said: str, mine: dict[str, str], foreign: bool = False):
        """Outcome of a command, and what it said."""
        same = results(self.copy, job) == self.baseline[job.name]
        return judged(code, said, same=same, kept=others(self.copy) == mine, foreign=foreign), said

    def afterwards(self, job: Job, mine: dict[str, str], foreign: bool = False) -> tuple[str, str]:
        """Run the command to its end after an attack: outcome, and what was said."""
        outcome, said = self.judge(job, *run(self.copy, job, take_all_rounds), mine, foreign)
        if outcome in GOOD and outcome != "detected" and (left := leftovers(self.copy)):
            return "left over", ", ".join(left)
        return outcome, said


def attacks(world: Path, flips: int, kills: int, starved: int, seed: int) -> Iterator[tuple[str, str, str, str, str]]:
    """Kind, command, what was done, outcome, and what was said."""
    made = Attacks(world, flips > SAME_AGAIN)
    ways = {
        "spoilt": made.spoilt,
        "killed": made.killed,
        "full disk": made.without_room,
        "low memory": made.without_memory,
    }
    rngs = {kind: random.Random(f"{kind} {seed}") for kind in KINDS}
    totals = {"spoilt": flips, "killed": kills, "full disk": kills, "low memory": starved}
    plan = sorted((n / total, kind, n) for kind, total in totals.items() for n in range(total))  # a bit of each
    for _, kind, number in plan:
        # Two processes get their memory: else PyTorch's store of addresses ends them, in C++ where nothing is caught.
        able = [job for job in jobs() if kind != "low memory" or job.processes == 1]
        job = able[number % len(able)]
        yield kind, job.name, *ways[kind](rngs[kind], job)


def count(out: Path | None, flips: int, kills: int, starved: int, seed: int) -> dict[str, object]:
    """Make the attacks; the counts of their outcomes, in all and by command, and each bad one.

    They are written now and then: a run that is stopped has made so many.
    """
    import_everything()
    record: dict[str, Any] = {
        "seed": seed,
        "attacks": 0,
        **{kind: Counter() for kind in KINDS},
        "commands": {},
        "bad": [],
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        made, world = Path(root) / "world", Path(root) / "kept"
        make_world(made)
        made.rename(world)
        for kind, name, done, outcome, said in attacks(world, flips, kills, starved, seed):
            record["attacks"] += 1
            record[kind][outcome] += 1
            record["commands"].setdefault(name, Counter())[outcome] += 1
            if outcome not in GOOD:
                record["bad"].append({"command": name, "attack": done, "outcome": outcome, "said": said[-2000:]})
                print(f"{name}, {done}: {outcome}", flush=True)
            if record["attacks"] % 20 == 0 or record["attacks"] == flips + 2 * kills + starved:
                print(f"{record['attacks']} attacks, {(time.monotonic() - began) / 60:.0f} minutes", flush=True)
                if out is not None:
                    out.write_text(json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=200, help="and as many full disks")
    parser.add_argument("--starved", type=int, default=200, help="commands under little memory")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = count(options.out, options.flips, options.kills, options.starved, options.seed)
    print(json.dumps({key: value for key, value in found.items() if key != "bad"}))
