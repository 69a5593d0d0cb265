"""Entries of a raw scan that are held out, to judge a reconstruction by."""

from dataclasses import replace

import torch

from ..errors import DataError
from ..measurement import Measurement
from ..sample.shares import Shares, of_k_space
from .coil_maps import calibration_part, calibration_region, espirit_maps
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
        kept = calibration_part(scan)
    except DataError:
        if len(maps) > 1 and scan.maps is None:
            raise
        kept = slice(0), slice(0)  # one coil needs no calibration region, nor do given maps
    shares = of_k_space(measurement, kept, scan.name)
    judged = shares.judged[0]
    seen = replace(scan, mask=scan.mask & ~judged, k_space=torch.where(judged, 0, scan.k_space))
    if len(maps) > 1 and scan.maps is None and calibration_region(seen) != calibration_region(scan):
        shares = replace(shares, measurement=replace(measurement, maps=espirit_maps(seen)[None]))
    return shares
