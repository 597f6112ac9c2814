"""Figures: what is drawn, and that the same input gives the same files."""

import numpy as np
import pytest

from l2l_compare import figures, reliability, setting_figures

STEPS = np.arange(0, 1001, 100)


def runs(count, slope=1.0):
    return [(STEPS, slope * STEPS + 10.0 * i) for i in range(count)]


@pytest.fixture
def axes(monkeypatch):
    """The axes of the figures that are drawn from now on, with few bootstrap draws."""
    caught, save = [], figures.save
    watched = lambda draw, *rest, **more: save(lambda axes: (caught.append(axes), draw(axes)), *rest, **more)  # noqa: E731
    monkeypatch.setattr(figures, "save", watched)
    quick = lambda groups: reliability.bootstrap_interval(groups, n=50)  # noqa: E731
    monkeypatch.setattr(figures, "bootstrap_interval", quick)
    return caught


def labelled(axes):
    return {line.get_label(): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}


def test_the_same_input_gives_the_same_file_beside_a_stem_with_dots(tmp_path):
    groups, labels = {"a": runs(3), "b": runs(1, 2.0)}, {"ylabel": "y", "title": "T", "reference": {"expert": 500.0}}
    one, two = (figures.learning_curves(groups, tmp_path / name / "Env-v4_0.5", **labels) for name in ("one", "two"))
    assert one == tmp_path / "one" / "Env-v4_0.5.png"
    assert one.read_bytes().startswith(b"\x89PNG")
    assert one.read_bytes() == two.read_bytes()
    assert [path.name for path in one.parent.iterdir()] == [one.name]


def test_a_group_is_drawn_as_interquartile_mean_runs_and_band(tmp_path, axes):
    groups, labels = {"a": runs(4), "two": runs(2), "one": runs(1)}, {"ylabel": "y", "title": "T"}
    figures.learning_curves(groups, tmp_path / "f", reference={"expert": 600.0}, **labels)
    lines = labelled(axes[0])
    assert list(lines) == ["a (n = 4)", "two (n = 2)", "one (n = 1)", "expert"]
    assert lines["expert"].get_ydata()[0] == 600.0
    assert len(axes[0].get_lines()) == 5 + 3 + 1 + 1  # one run has no mean
    # Runs are 0, 10, 20 and 30 above the line: the middle two are 15 above it on average.
    mean = lines["a (n = 4)"]
    assert np.allclose(mean.get_ydata(), mean.get_xdata() + 15.0)
    (band,) = axes[0].collections  # from three runs on
    at_end = {round(float(y), 6) for x, y in band.get_paths()[0].vertices if x == STEPS[-1]}
    finals = [values[-1] for _, values in runs(4)]
    assert sorted(at_end) == pytest.approx(reliability.bootstrap_interval([finals], n=50))


def test_the_worst_run_is_dotted(tmp_path, axes):
    groups = {"a": runs(4), "b": runs(2)}
    figures.learning_curves(groups, tmp_path / "f", ylabel="y", title="T", worst={"a": 2, "b": 0})
    dotted = [line.get_ydata().tolist() for line in axes[0].get_lines() if line.is_dashed()]
    assert dotted == [groups["a"][2][1].tolist(), groups["b"][0][1].tolist()]


def test_the_mean_is_of_the_stretch_that_all_runs_cover(tmp_path, axes):
    short = (STEPS[2:6], STEPS[2:6] * 1.0)
    apart = [([0, 1], [0.0, 1.0]), ([5, 6], [0.0, 1.0])]
    figures.learning_curves({"a": [*runs(2), short], "apart": apart}, tmp_path / "f", ylabel="y", title="T")
    grid = labelled(axes[0])["a (n = 3)"].get_xdata()
    assert (grid[0], grid[-1]) == (200.0, 500.0)
    assert len(axes[0].get_lines()) == 4 + 2  # runs without a common stretch are still drawn


def test_over_a_setting_every_run_is_a_dot_and_a_line_joins_the_means(tmp_path, axes):
    groups = {"adam": {"3e-5": [10.0, 50.0, 0.0], "1e-4": [90.0]}, "l2l": {"3e-5": [], "1e-4": [80.0, 90.0]}}
    labels = {"title": "T", "xlabel": "rate", "ylabel": "%"}
    setting_figures.over_setting(groups, tmp_path / "f", reference={"expert": 100.0}, **labels)
    lines = labelled(axes[0])
    assert list(lines["adam"].get_ydata()) == [20.0, 90.0]
    assert list(lines["l2l"].get_ydata()) == [85.0]
    dots = [list(line.get_ydata()) for line in axes[0].get_lines() if line.get_marker() == "o"]
    assert dots == [[10.0, 50.0, 0.0], [90.0], [80.0, 90.0]]
    bands = [band.get_paths()[0].get_extents() for band in axes[0].collections]
    assert [(band.y0, band.y1) for band in bands] == [(0.0, 90.0), (80.0, 90.0)]
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["3e-5", "1e-4"]
    assert set(lines) == {"adam", "l2l", "expert"}
    assert "1 or 2 or 3 at a value" in axes[0].figure.get_supxlabel()


def test_long_words_stay_in_the_picture_and_leave_the_curves_their_room(tmp_path, axes):
    title = "rules without a penalty: HalfCheetah-v4, 1 demonstration, 3e-5: the rate that the rule chose"
    name = "rate 3e-3, l2l, score with penalty 1, anchored, rate within 100 times"
    figures.learning_curves({name: runs(3)}, tmp_path / "f", ylabel="y", title=title, worst={name: 0})
    figure, renderer = axes[0].figure, axes[0].figure.canvas.get_renderer()
    (legend,) = axes[0].get_legend().get_texts()
    shown = {axes[0]._left_title: title, legend: f"{name} (n = 3)"}
    for text, whole in shown.items():
        assert text.get_text().replace("\n", " ") == whole
    assert figure._supxlabel.get_text().startswith("thick")
    for text in (axes[0]._left_title, figure._supxlabel):
        assert text.get_window_extent(renderer).x1 <= figure.bbox.x1
    assert axes[0].get_window_extent().width > 0.55 * figure.bbox.width


@pytest.mark.parametrize("groups", [{}, {"a": []}])
def test_nothing_to_draw_is_refused(tmp_path, groups):
    labels = {"title": "T", "xlabel": "x", "ylabel": "y"}
    for draw, content in (
        (figures.learning_curves, groups),
        (figures.frontier, {name: (1.0, runs) for name, runs in groups.items()}),
        (setting_figures.over_setting, {name: {"3e-5": runs} for name, runs in groups.items()}),
    ):
        with pytest.raises(ValueError, match="at least one"):
            draw(content, tmp_path / "f", **labels)


def test_a_frontier_has_a_point_and_a_bar_a_method(tmp_path, axes):
    points = {"cheap": (0.4, [60.0, 63.0, 66.0]), "dear": (1.0, [70.0]), "beaten": (1.1, [65.0, 66.0])}
    figures.frontier(points, tmp_path / "f", title="t", xlabel="x", ylabel="y")
    line, _, (bars,) = axes[0].containers[0].lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0.4], [63.0])
    half = reliability.mean_interval([60.0, 63.0, 66.0])
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([63 - half, 63 + half])
    assert not any(container.lines[2] for container in axes[0].containers[1:])  # too few runs for an interval
    steps = next(line for line in axes[0].lines if line.get_drawstyle() == "steps-post")
    assert list(steps.get_xdata()) == [0.4, 1.0]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["cheap (3)", "dear (1)", "beaten (2)"]


def test_a_frontier_keeps_the_looks_of_a_method_and_shares_above_nothing(tmp_path, axes):
    points = {"l2l": (0.4, [1.0, 2.0, 9.0]), "pgd": (1.0, [70.0])}
    for some in (points, dict(reversed(points.items()))):
        figures.frontier(some, tmp_path / "f", title="t", xlabel="x", ylabel="y", looks=("pgd", "l2l"))
    one, other = ([bar.lines[0].get_color() for bar in some.containers] for some in axes)
    assert one == other[::-1] == [figures.COLOURS[1], figures.COLOURS[0]]
    assert axes[0].get_ylim()[0] == 0
