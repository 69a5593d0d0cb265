"""A page of very many records, or of ranks among very many samples: as large as any other, and soon made."""

import resource
import shutil
import time

import pytest
from runs import msm

from msm.evaluate.records import read_records
from msm.system.manifest import write_listed


def many_images(records):
    """100,000 records: of an image and method each."""
    for n in range(100_000 // len(records)):
        for record in records:
            plain = record.plain.model_copy(update={"psnr": record.plain.psnr + n % 97 / 10})
            yield record.model_copy(update={"image": f"{n:06d}", "plain": plain})


def many_ranks(records):
    """Of 10⁶ samples, in all pixels and in both parts."""
    parts = ("ranks", "ranks_measured", "ranks_unmeasured")
    for n, record in enumerate(records):
        found = {part: tuple(float(n + k % 3) for k in range(10**6 + 1)) for part in parts}
        yield record.model_copy(update=found if record.ranks else {})


@pytest.mark.parametrize("many", [many_images, many_ranks])
def test_a_page_is_bounded(runs, tmp_path, many):
    folder = shutil.copytree(runs / "hole", tmp_path / "hole")
    assert msm("report", folder, "-o", tmp_path / "usual.html") == 0
    records = read_records(folder)
    records = [record for record in records if record.image == records[0].image] if many is many_images else records
    lines = (record.model_dump_json(exclude_none=True) + "\n" for record in many(records))
    write_listed(folder / "records.jsonl", "".join(lines))
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert msm("report", folder, "-o", tmp_path / "large.html") == 0
    sizes = [(tmp_path / name).stat().st_size for name in ("usual.html", "large.html")]
    print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sizes)
    assert sizes[1] < 1.5 * sizes[0]
    assert time.process_time() - began < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**6  # kilobytes
