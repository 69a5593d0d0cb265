"""What a residual far from 1 means, in words: it depends on who made the image."""

from collections.abc import Mapping, Sequence

from ..evaluate.records import Kind, Record

FAR = (0.8, 1.25)  # beyond, a residual is explained
BELOW: dict[Kind, str] = {
    "input": "it is the measurement itself, noise included",
    "classical": "it is nearer to the measured values than their noise allows, so part of that noise is in the image",
    "sample": "they are nearer to the measured values than a draw from the posterior, so part of the noise is in them: "
    "the data step maximises instead of drawing, its likelihood_weight is above 1, or noise_std is set too large",
    "mean": "a mean lies below a single sample by rights, since what the samples differ by has averaged out",
}
ABOVE: dict[Kind, str] = {
    "input": "what was not measured is missing in it, so it does not even give the measured values back",
    "classical": "its regularisation smooths away what was measured, or its model of the measurement is another",
    "sample": "the samples miss the measured values by more than their noise: more sample.steps, or with data_step "
    "proximal more iterations, bring them nearer; a noise_std that is set too small looks the same",
}


def residual_remarks(found: Mapping[tuple[str, str], Sequence[Record]]) -> list[str]:
    """A sentence for each way to miss 1, with the methods that do; none if all residuals are near it.

    Args:
        found: records by (method, run).
    """
    said: dict[str, list[str]] = {}
    for (method, label), records in found.items():
        known, kind = [r.residual for r in records if r.residual is not None], records[0].kind
        value = sum(known) / len(known) if known else 1.0
        if FAR[0] <= value <= FAR[1]:
            continue
        why = BELOW.get(kind) if value < 1 else ABOVE.get("sample" if kind == "mean" else kind)
        if why is not None:
            said.setdefault(why, []).append(f"{', '.join(filter(None, (method, label)))} ({value:.2f})")
    return [f"Residual of {' and of '.join(names)}: {why}." for why, names in said.items()]
