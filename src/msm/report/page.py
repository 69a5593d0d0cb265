"""Evaluated runs → one self-contained HTML page, with a section for runs of the same measurements."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..config import identity
from ..config.load import Config, dump_config
from ..config.measured import CartesianMaskConfig, UndersamplingProblem
from ..evaluate.records import Run, read_run
from ..output.figures import MAKER
from ..output.run_folder import LOG, RECORDS, ROUND, versions
from ..system.files import write_text
from ..system.lock import alone
from ..system.manifest import MANIFEST, write_listed
from ..system.places import weights_folder
from . import calibration
from .charts import cost_chart, loss_chart, neighbour_chart
from .figure import write_figure
from .gallery import Viewer, viewer
from .held_out import certainty_chart, certainty_table, held_out_summary, image_table, prediction_table
from .tables import Table, distance_table, neighbour_table, score_table

TEMPLATES = Path(__file__).parent


@dataclass
class Section:
    """Runs that may be compared, and what the page shows of them."""

    title: str
    summary: list[tuple[str, str]]
    viewer: Viewer
    notes: list[str]
    tables: list[Table] = field(default_factory=list)
    details: list[Table] = field(default_factory=list)
    charts: list[tuple[str, str]] = field(default_factory=list)


def write_page(path: Path, folders: Sequence[Path], command: str, figure: Path | None = None) -> None:
    """Write the page of some runs.

    Args:
        path: the HTML file.
        folders: evaluated runs; training runs, for their loss curve, may be among them.
        command: how the page was asked for.
        figure: also draw the pictures, into this PDF, SVG or PNG file.

    Raises:
        DataError: a folder holds neither records nor a training log, or files of it are damaged.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    training = [folder for folder in folders if _logs(folder) and not (folder / RECORDS).is_file()]
    chosen = [folder for folder in dict.fromkeys(folders) if folder not in training]
    short = len({folder.resolve().name for folder in chosen}) == len(chosen)
    runs = [read_run(folder, folder.resolve().name if short else str(folder)) for folder in chosen]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_comparable(run), []).append(run)
    if figure is not None:
        write_figure(figure, list(groups.values()))
    given = [run.config.setting.pretrained_model_dir for run in runs]
    logs = [
        log for folder in (*training, *(weights_folder(path).parent for path in given if path)) for log in _logs(folder)
    ]
    template = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    html = template.get_template("page.html").render(
        title=" · ".join(dict.fromkeys(folder.resolve().name for folder in folders)),
        sections=[_section(group) for group in groups.values()],
        losses=[loss_chart(log) for log in dict.fromkeys(logs)],
        runs=[(run.label, run.made, dump_config(run.config)) for run in runs],
        command=command,
        maker=MAKER,
        versions=versions(),
    )
    if (path.parent / MANIFEST).is_file():
        with alone(path.parent, folder=True):
            write_listed(path, html)
    else:
        write_text(path, html)


def _logs(folder: Path) -> list[Path]:
    """The log of a training run, or those of the rounds of a refinement."""
    return [folder / LOG] if (folder / LOG).is_file() else sorted(folder.glob(f"{ROUND}*/{LOG}"))


def _comparable(run: Run) -> str:
    """The same for runs of the same measurements."""
    if run.config.inverse_problem is None:
        return f"generation {run.folder}"
    return repr((identity.measurements(run.config), sorted({record.image for record in run.records})))


def _section(group: list[Run]) -> Section:
    first = group[0]
    notes = list(dict.fromkeys(note for run in group for note in run.evaluation.notes))
    section = Section(_title(first.config), _summary(group), viewer(group), notes)
    if first.evaluation.kind == "held-out":
        return _held_out(section, group)
    if first.evaluation.kind == "generation":
        section.tables = [t for t in (distance_table(first), neighbour_table(first)) if t]
        if chart := neighbour_chart(first.records):
            section.charts.append(("Distance to the nearest training measurement", chart))
        return section
    section.tables = [score_table(group, "plain"), score_table(group, "published")]
    section.details = [t for t in (calibration.calibration_table(group), calibration.uncertainty_table(group)) if t]
    section.charts = calibration.charts(group)
    if len(group) > 1:
        section.charts.append(("Quality against network calls (plain)", cost_chart(group)))
    else:
        section.notes.append(
            "Quality against network calls: give `msm report` several runs of the same measurements with other "
            "sample.steps or sample.draws"
        )
    return section


def _held_out(section: Section, group: list[Run]) -> Section:
    """The section of runs without truth."""
    section.title = "Judged by held-out measurements"
    made = [(name, text) for name, text in section.summary if name == "Model" or name.startswith("Run ")]
    section.summary = [*held_out_summary(group[0]), *made]
    section.tables = [prediction_table(group), certainty_table(group)]
    section.details = [image_table(run) for run in group if len(run.evaluation.verdicts) > 1]
    section.charts = [("Calibration: how often intervals hold the measured value", certainty_chart(group))]
    return section


def _title(config: Config) -> str:
    problem = config.inverse_problem
    if problem is None:
        return "Generated images"
    given = problem.model_dump(exclude={"operator", "noise_std", "mask"})
    if isinstance(problem, UndersamplingProblem) and isinstance(problem.mask, CartesianMaskConfig):
        given["R"] = problem.mask.acceleration
    words = [f"{name.replace('_', ' ')} {value:g}" for name, value in given.items()]
    return ", ".join([problem.operator.replace("_", " ").capitalize(), *words])


def _summary(group: list[Run]) -> list[tuple[str, str]]:
    """What was done, in a few lines."""
    config = group[0].config
    data, problem = config.data, config.inverse_problem
    count = len({r.image for r in group[0].records if r.kind != "held-out"})
    source = f", from the test split of {config.setting.dataset_dir}" if problem is not None else ""
    facts = [("Images", f"{count}, of {data.image_size} × {data.image_size} px{source}")]
    trained = f"{data.mask.kind.replace('_', ' ')} masks, noise {data.noise}"
    weights = ", ".join(dict.fromkeys(str(run.config.setting.pretrained_model_dir) for run in group))
    facts.append(("Model", f"trained on {trained}: {weights}"))
    if problem is not None:
        noise = data.noise if problem.operator == "missing" else f"{problem.noise_std:g}"
        facts.append(("Measurement noise", noise))
    for run in group:
        s = run.config.sample
        masks = f"{s.draws} masks" if s.score == "average" else "chain of masks"
        words = [f"{s.steps} steps", masks, f"η = {s.eta:g}"]
        if s.data_step is not None:
            words.append(f"data step {s.data_step.kind}")
            how = s.data_step.model_dump(exclude={"kind"})
            words += [f"{name.replace('_', ' ')} {value:g}" for name, value in how.items()]
        facts.append((f"Run {run.label}", ", ".join(words)))
    return [*facts, *group[0].evaluation.settings.items()]
