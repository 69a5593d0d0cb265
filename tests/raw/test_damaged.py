"""Raw files that are damaged or hostile: one clear line for each."""

import numpy as np
import pytest
from dataset_files import DATASETS
from hostile_files import HOSTILE
from raw_files import GOOD, read
from twix_files import TWIX

from msm.errors import DataError

GOOD = GOOD | DATASETS | TWIX


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_file_is_one_clear_line(tmp_path, case):
    make, message = HOSTILE[case]
    if "ismrmrd" in make.__code__.co_names:
        pytest.importorskip("ismrmrd")
    path = make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(str(path.with_suffix(""))) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.99])
def test_truncated_files(tmp_path, kind, share):
    path = GOOD[kind](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", GOOD)
def test_flipped_bytes_never_end_in_another_error(tmp_path, kind):
    """Damage anywhere gives scans or a DataError of one line."""
    path = GOOD[kind](tmp_path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 4000), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except DataError as error:
            assert "\n" not in str(error)
