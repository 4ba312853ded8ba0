"""The map of words: the plane it draws them in, labels that can be read, and the same file each time."""

import re
import warnings

import matplotlib.image
import numpy as np
import pytest

from fastmlp.errors import CheckpointError
from fastmlp.pictures.word_map import draw_words, plot_words, principal_components


@pytest.fixture
def cloud(rng):
    """120 words in 5 dimensions, dense in the middle."""
    words = [f"{'w' * (1 + i % 9)}{i}" for i in range(120)]
    return words, rng.normal(size=(120, 5)) * (3, 2, 1, 1, 1)


def dots_of(figure):
    axes = figure.axes[0]
    return axes.transData.transform(axes.lines[0].get_xydata())


def boxes_of(figure):
    """The corners (M, 2, 2) of all labels in pixels, as matplotlib measures them."""
    return np.array([text.get_window_extent().get_points() for text in figure.axes[0].texts])


def test_the_plane_is_that_of_the_two_largest_variances(rng):
    vectors = rng.normal(size=(50, 6)).astype(np.float32)
    points, shares = principal_components(vectors)
    variances, directions = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))
    np.testing.assert_allclose(shares, variances[:-3:-1] / variances.sum())
    want = (vectors - vectors.mean(axis=0)) @ directions[:, :-3:-1]
    np.testing.assert_allclose(np.abs(points), np.abs(want), atol=1e-5)
    for axis in points.T:
        assert axis[np.abs(axis).argmax()] > 0


def test_vectors_on_a_line_or_all_the_same():
    points, shares = principal_components(np.array([[0.0], [1.0], [5.0]]))
    np.testing.assert_allclose(points, [[-2, 0], [-1, 0], [3, 0]], atol=1e-12)
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)
    points, shares = principal_components(np.ones((4, 3)))
    np.testing.assert_array_equal(points, 0)
    np.testing.assert_array_equal(shares, 0)


def test_what_it_shows(cloud):
    words, vectors = cloud
    figure = draw_words(words, vectors, "Barchester Towers: 120 words")
    axes = figure.axes[0]
    points, shares = principal_components(vectors)
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), points)
    assert axes.get_title() == "Barchester Towers: 120 words"
    assert axes.get_xlabel() == f"first principal component: {shares[0]:.0%} of the variance"
    assert axes.get_ylabel() == f"second: {shares[1]:.0%}"
    (x, y), (right, up) = axes.transData.transform([(0, 0), (1, 1)])
    assert right - x == pytest.approx(up - y)  # a step is as long upwards as to the right


def test_labels_cover_neither_each_other_nor_dots_and_lie_within_the_frame(cloud):
    figure = draw_words(*cloud, "")
    figure.canvas.draw()
    dots, boxes = dots_of(figure), boxes_of(figure)
    assert len(boxes) > 80
    slack = 2  # pixels, from one way to measure to another
    for i, (low, high) in enumerate(boxes):
        others = np.delete(boxes, i, axis=0)
        assert not ((others[:, 0] < high - slack) & (others[:, 1] > low + slack)).all(axis=1).any()
        assert not ((dots > low + slack) & (dots < high - slack)).all(axis=1).any()
    frame = figure.axes[0].bbox.get_points()
    assert (boxes[:, 0] >= frame[0] - slack).all()
    assert (boxes[:, 1] <= frame[1] + slack).all()


def test_a_label_is_beside_its_dot_or_a_line_leads_to_it(cloud):
    words, vectors = cloud
    figure = draw_words(words, vectors, "")
    figure.canvas.draw()
    axes = figure.axes[0]
    dots = dict(zip(words, dots_of(figure), strict=True))
    leaders = np.array([axes.transData.transform(line) for line in axes.collections[0].get_segments()])
    assert 0 < len(leaders) < len(axes.texts) / 2
    for text, (low, high) in zip(axes.texts, boxes_of(figure), strict=True):
        dot = dots[text.get_text()]
        distance = np.abs(dot - np.clip(dot, low, high)).max()
        if distance > 10:
            begins_here = np.abs(leaders[:, 0] - dot).max(axis=1) < 1
            ((_, end),) = leaders[begins_here]
            assert np.abs(end - np.clip(end, low, high)).max() < 3


def test_where_there_is_no_room_the_first_words_have_their_labels():
    words = [f"word{i}" for i in range(300)]
    vectors = np.ones((300, 3))
    vectors[-1] = 2  # far from all others
    axes = draw_words(words, vectors, "").axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert shown == [*words[: len(shown) - 1], words[-1]]
    assert 5 < len(shown) < 30
    assert len(axes.lines[0].get_xydata()) == 300


def test_the_file_is_what_its_name_says_and_the_same_each_time(cloud, tmp_path):
    written = {}
    for name in ("a.png", "b.PNG", "a.svg", "b.SVG"):
        plot_words(*cloud, tmp_path / name, title="Barchester Towers")
        written[name] = (tmp_path / name).read_bytes()
    assert written["a.png"] == written["b.PNG"]
    assert written["a.svg"] == written["b.SVG"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(written)
    image = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    assert image.shape == (1350, 1500, 3)
    assert (image[[0, -1]] == 1).all()  # nothing is cut off at the edges
    assert (image[:, [0, -1]] == 1).all()
    assert written["a.svg"].startswith(b"<?xml")
    assert b"<!-- ww1 -->" in written["a.svg"]
    assert not re.search(rb"20\d\d-\d\d-\d\d", written["a.svg"])


def test_a_font_is_chosen_that_has_the_letters(monkeypatch):
    fonts = matplotlib.font_manager.fontManager.ttflist
    plain = {font.name: font for font in fonts if (font.style, font.weight) == ("normal", 400)}
    usual, other = plain["DejaVu Sans"], plain["STIXGeneral"]
    known = [set(matplotlib.font_manager.get_font(font.fname).get_charmap()) for font in (usual, other)]
    letter = chr(min(code for code in known[1] - known[0] if code > 0xFF))
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", [usual, other])
    words = ["the", letter, "and"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes = draw_words(words, np.eye(3), "").axes[0]
    assert axes.texts[1].get_fontfamily() == ["sans-serif", "STIXGeneral"]
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", [usual])
    with pytest.warns(UserWarning, match=f"no font of this machine has 1 of the letters, .* the map: {letter};"):
        draw_words(words, np.eye(3), "")


@pytest.mark.filterwarnings("error", "ignore:no font of this machine")
def test_any_word_and_title(tmp_path):
    words = ["$a_b$", "三國", "lone \udcff", "NUL \0", "<p>--&", "дом"]
    for name in ("words.png", "words.svg"):
        figure = plot_words(words, np.eye(6), tmp_path / name, title="$\\frac{ \udcff\n")
        assert [text.get_text() for text in figure.axes[0].texts][:4] == ["$a_b$", "三國", "lone ?", "NUL ?"]


def test_an_unwritable_file_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot write .*map\.png"):
        plot_words(["a", "b", "c"], np.eye(3), tmp_path / "missing" / "map.png", title="")
