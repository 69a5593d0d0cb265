"""What `msm evaluate` does: find what the samples of a run are to be compared with, and judge them."""

from itertools import islice
from pathlib import Path

from ..config.load import Config
from ..errors import ConfigError
from ..evaluate.judge import HELD_OUT, evaluate_generation, evaluate_reconstruction
from ..evaluate.records import summary
from ..output.run_folder import JUDGED, run_config
from ..system.console import say, table
from ..system.lock import alone
from ..system.manifest import check_ours
from .held_out import evaluate_photos, evaluate_raw
from .inputs import other_items, seen_in_training, trained_names, trained_on

WITHOUT_TRUTH = {"raw": evaluate_raw, "masked": evaluate_photos}  # by data.kind


def run_evaluation(run: Path, store: Path | None) -> None:
    """Judge the samples in a run folder; generated ones also against the store trained on, given or looked for.

    Raises:
        ConfigError: the run has nothing to be judged by, or takes no store.
    """
    config = run_config(run)
    check_ours(run, JUDGED)
    with alone(run, folder=True):
        _evaluate(run, config, store)


def _evaluate(run: Path, config: Config, store: Path | None) -> None:
    if config.inverse_problem is not None and store is not None:
        raise ConfigError(f"--store: is for generated images; {run} holds reconstructions, leave it out")
    if config.inverse_problem is not None and (judge := WITHOUT_TRUTH.get(config.data.kind)):
        judge(run, config)
        return
    if config.inverse_problem is not None:
        more = other_items(config, config.sample.count)
        records = evaluate_reconstruction(run, config, more, seen_in_training(config))
        table(f"{run}: mean over {len({r.image for r in records})} images, convention plain", summary(records))
    else:
        real = list(islice(other_items(config, 0), HELD_OUT))
        seen = trained_on(config, store)
        records = evaluate_generation(run, config, real, seen, trained_names(config, seen))
    say(f"{run}: {len(records)} lines in records.jsonl; a page of it: msm report {run}")
