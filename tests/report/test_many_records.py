"""A page of very many records, or of ranks among very many samples: as large as any other, and soon made."""

import resource
import shutil
import time

import pytest
from runs import msm

from msm.evaluate.records import read_records
from msm.system.manifest import write_listed


def many_images(records):
    """100,000 lines: of an image and method each."""
    lines = [line(record) for record in records if record.image == records[0].image]
    psnr = [f'"psnr":{record.plain.psnr}' for record in records]
    for n in range(100_000 // len(lines)):
        for text, score in zip(lines, psnr):
            other = text.replace(f'"image":"{records[0].image}"', f'"image":"{n:06d}"')
            yield other.replace(score, f'"psnr":{n % 97 + 0.5}')


def many_ranks(records):
    """Of 10⁶ samples, in all pixels and in both parts."""
    parts = ("ranks", "ranks_measured", "ranks_unmeasured")
    for n, record in enumerate(records):
        found = {part: tuple(float(n + k % 3) for k in range(10**6 + 1)) for part in parts}
        yield line(record.model_copy(update=found if record.ranks else {}))


def line(record):
    return record.model_dump_json(exclude_none=True) + "\n"


@pytest.mark.parametrize("many", [many_images, many_ranks])
def test_a_page_is_bounded(runs, tmp_path, many):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    assert msm("report", folder, "-o", tmp_path / "usual.html") == 0
    write_listed(folder / "records.jsonl", "".join(many(read_records(folder))))
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert msm("report", folder, "-o", tmp_path / "large.html") == 0
    assert time.process_time() - began < 30
    usual, large = ((tmp_path / name).stat().st_size for name in ("usual.html", "large.html"))
    assert large < 1.5 * usual
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kilobytes
