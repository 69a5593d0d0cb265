"""The settings in the header of a Siemens scan: lines NAME = VALUE of its ASCCONV block, and two of its other parts."""

import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError

BEGIN, END = "### ASCCONV BEGIN", "### ASCCONV END"
TRAJECTORY = "sKSpace.ucTrajectory"
OVERSAMPLING = re.compile(
    r'<ParamDouble\."flReadoutOSFactor">\s{0,99}\{\s{0,99}(?:<Precision>\s{1,9}\d{1,9})?\s{0,99}([\d.]{1,20})'
)
REGRIDDING = re.compile(r'<ParamLong\."alRegridMode">\s{0,99}\{\s{0,99}(\d{1,9})')
EMBEDDED = (2, 128)  # kinds of reference scans whose lines belong to the image


@dataclass(frozen=True)
class Protocol:
    """What is needed of a protocol.

    Args:
        field_of_view: of readout, phase encoding and slice or slab, the latter two with oversampling, mm; 0: unknown.
        oversampling: of the readout; None if the header does not say.
        trajectory: 1 is Cartesian.
        bands: slices excited at a time.
        epi_factor: lines after an excitation, of EPI.
        regridding: more than 1 if the readout runs on the gradients' ramps.
        calibration: "embedded" if reference lines belong to the image, else "separate".
        dwell_us: time of a sample, µs; 0 if unknown.
    """

    field_of_view: tuple[float, float, float]
    oversampling: float | None
    trajectory: int
    bands: int
    epi_factor: int
    regridding: int
    calibration: str
    dwell_us: float


def read_protocol(path: Path, text: str) -> Protocol:
    """The protocol of a measurement.

    Args:
        path: the file, for messages.
        text: the header.

    Raises:
        DataError: if it holds none.
    """
    settings = _settings(text)
    if TRAJECTORY not in settings:
        raise DataError(f"{path}: its header holds no protocol (ASCCONV with {TRAJECTORY}); export the scan again")

    def number(name: str, default: float = 0.0) -> float:
        value = settings.get(name)
        try:
            found = default if value is None else float(int(value, 0)) if value[:2] == "0x" else float(value)
        except ValueError:
            raise DataError(f"{path}: {name} is {value!r:.40}, expected a number; export the scan again") from None
        if not abs(found) < 1e9:
            raise DataError(f"{path}: {name} is {found}, out of any range; export the scan again")
        return found

    oversampling, regridding = (pattern.search(text) for pattern in (OVERSAMPLING, REGRIDDING))
    of_slice, extra = "sSliceArray.asSlice[0].", "sKSpace.d{}OversamplingForDialog"
    factor = _factor(path, oversampling[1]) if oversampling else None
    return Protocol(
        (
            number(of_slice + "dReadoutFOV"),
            number(of_slice + "dPhaseFOV") * (1 + number(extra.format("Phase"))),
            number(of_slice + "dThickness") * (1 + number(extra.format("Slice"))),
        ),
        factor,
        int(number(TRAJECTORY)),
        int(number("sSliceAcceleration.lMultiBandFactor", 1)),
        int(number("sFastImaging.lEPIFactor", 1)),
        int(regridding[1]) if regridding else 1,
        "embedded" if int(number("sPat.ucRefScanMode", 1)) in EMBEDDED else "separate",
        number("sRXSPEC.alDwellTime[0]") / 1000,
    )


def _settings(text: str) -> dict[str, str]:
    """Settings by name: of the first block that holds the k-space's, empty if none does."""
    for block in text.split(BEGIN)[1:]:
        lines = (line.partition("=") for line in block.partition(END)[0].splitlines())
        settings = {name.strip(): value.split("#")[0].strip() for name, found, value in lines if found}
        if TRAJECTORY in settings:
            return settings
    return {}


def _factor(path: Path, text: str) -> float:
    """The oversampling of the readout."""
    try:
        if 1 <= float(text) <= 64:
            return float(text)
    except ValueError:
        pass
    raise DataError(f"{path}: flReadoutOSFactor is {text:.20}, expected 1 to 64; export the scan again")
