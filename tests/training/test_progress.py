"""How far a run is, and what came of it."""

from pathlib import Path

from fastmlp.training.progress import Progress, Result


def test_steps_add_up_in_the_run_and_in_its_log_interval() -> None:
    progress = Progress()
    for loss in (3.0, 2.0):
        progress.advance(loss, 16)
    assert (progress.step, progress.words) == (2, 32)
    assert (progress.interval_loss, progress.interval_steps, progress.interval_words) == (5.0, 2, 32)
    progress.begin_interval(2.5)
    progress.advance(1.0, 8)
    assert (progress.step, progress.words, progress.last_loss) == (3, 40, 2.5)
    assert (progress.interval_loss, progress.interval_steps, progress.interval_words) == (1.0, 1, 8)


def test_the_result_has_the_figures_of_the_kept_weights() -> None:
    kept = {"kept_step": 20, "kept_val_loss": 1.5}
    progress = Progress(step=30, last_loss=2.5, before={"a": "a b"}, after={"a": "a c"}, kept=kept)
    assert progress.result(Path("runs/a"), finished=True) == Result(
        Path("runs/a"), True, 30, 2.5, kept_step=20, kept_val_loss=1.5, before={"a": "a b"}, after={"a": "a c"}
    )
    stopped = Progress(step=3).result(None, finished=False)
    assert (stopped.folder, stopped.finished, stopped.loss, stopped.kept_step) == (None, False, None, None)
