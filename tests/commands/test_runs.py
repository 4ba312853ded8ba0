"""fastmlp runs as its users see it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fastmlp.trainer import train
from tests.commands.helpers import call
from tests.runs import metrics_of, small_config, stop_after, write_text

pytestmark = pytest.mark.usefixtures("elsewhere")
OLD = Path(__file__).parents[1] / "data" / "runs_of_0e6bef8" / "numpy"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs: with counts, stopped, and of an earlier version."""
    folder = tmp_path_factory.mktemp("made")
    text = write_text(folder)
    train(small_config(text, folder / "whole", counts=True, test_fraction=0.1))
    train(small_config(text, folder / "begun"), should_stop=stop_after(12))
    shutil.copytree(OLD, folder / "old")
    (folder / "no-run").mkdir()
    return folder


def test_a_table_of_what_there_is(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "runs", made)
    assert (status, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["run", "text", "network", "passes", "minutes", "network", "mixed", "test"]
    assert {row.split()[0] for row in rows} == {"whole", "begun", "old"}
    [whole] = [row for row in rows if row.startswith("whole")]
    first, *_, last = metrics_of(made / "whole")
    assert "story.txt" in whole
    assert "3 words of 6, hidden 12, 10" in whole
    passes, _, network, mixed, test = whole.split()[-5:]
    assert float(passes) == pytest.approx(last["words"] / first["training_words"], abs=0.006)
    assert float(network) == pytest.approx(last["kept_val_perplexity"], abs=0.06)
    assert float(mixed) == pytest.approx(last["mixture"]["network+counts+cache"], abs=0.06)
    assert float(test) == pytest.approx(last["kept_test_perplexity"], abs=0.06)
    [begun] = [row for row in rows if row.startswith("begun")]
    assert "(not finished)" in begun


def test_one_run_and_json(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(call(capsys, "runs", made / "whole")[1].splitlines()) == 2
    lines = [json.loads(line) for line in call(capsys, "runs", made, "--json")[1].splitlines()]
    found = {line["name"]: line for line in lines}
    assert found["whole"]["finished"]
    assert found["begun"]["steps"] == metrics_of(made / "begun")[-1]["step"]
    assert found["old"]["passes"] is None  # nobody knows
    assert found["begun"]["mixed_perplexity"] is None


def test_the_curves_over_each_other(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, object]] = []
    from fastmlp.pictures import plot

    real = plot.plot_runs

    def watched(runs: dict[str, object], path: Path) -> object:
        figure = real(runs, path)
        drawn.append({line.get_label(): line.get_xydata()[-1].tolist() for line in figure.axes[0].lines})
        return figure

    monkeypatch.setattr(plot, "plot_runs", watched)
    status, out, err = call(capsys, "runs", made, "--plot", "--out", "curves.png")
    assert (status, err) == (0, "their curves: curves.png\n")
    assert len(out.splitlines()) == 4
    assert Image.open("curves.png").size == (1200, 900)
    validated = [line for line in metrics_of(made / "whole") if "val_loss" in line]
    assert drawn[0]["whole"] == [validated[-1]["seconds"] / 60, validated[-1]["val_loss"]]
    assert set(drawn[0]) == {"whole", "begun", "old"}


def test_what_is_not_there_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    for arguments, why in (
        ((), "runs: no such folder"),
        (("empty",), "empty: no runs in it"),
        (("empty", "--out", "a.png"), "--out: it is where --plot draws"),
        (("empty", "--plot", "--out", "a.pdf"), "--out: "),
    ):
        status, out, err = call(capsys, "runs", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert why in err
