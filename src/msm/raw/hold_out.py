"""Entries of a raw scan that are held out, to judge a reconstruction by."""

from dataclasses import replace

import torch

from ..errors import DataError
from ..measurement import Measurement
from ..sample.shares import Shares, of_k_space
from .coil_maps import CALIBRATION_WIDTH, calibration_size, espirit_maps
from .prepare import Prepared


def hold_out(prepared: Prepared) -> Shares:
    """Share out what was measured of a slice; coil maps are estimated from what everyone keeps.

    Args:
        prepared: the slice.

    Raises:
        DataError: if too little was measured outside of the calibration region.
    """
    scan, maps = prepared.scan, prepared.maps
    measurement = Measurement(scan.k_space[None], scan.mask[None], maps[None], prepared.noise_std)
    try:
        height, width = calibration_size(scan)
    except DataError:
        if len(maps) > 1:
            raise
        height, width = 0, 0  # one coil needs no calibration region
    kept = min(height, CALIBRATION_WIDTH), min(width, CALIBRATION_WIDTH)
    shares = of_k_space(measurement, kept, scan.name)
    judged = shares.judged[0]
    seen = replace(scan, mask=scan.mask & ~judged, k_space=torch.where(judged, 0, scan.k_space))
    if len(maps) > 1 and calibration_size(seen) != (height, width):
        shares = replace(shares, measurement=replace(measurement, maps=espirit_maps(seen)[None]))
    return shares
