"""The report: one file that needs nothing beside it, and says what a reader must know before quoting its number."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from dexgrasp import configs
from dexgrasp.policies.evaluation import html_report
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import diagnostics, speed, summarise
from dexgrasp.policies.evaluation.html_report import Bar, interval_gauge, rate_chart, share_chart, write_report
from dexgrasp.policies.evaluation.summary import print_scoreboard, warnings
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.rendering.offscreen import RenderUnavailable, backend
from dexgrasp.sim.task.outcomes import Outcome

FACTS = {"versions": {"python": "3.11", "mujoco": "4.0.0"}, "git": {"hash": "abc123", "dirty": True}}


def run_of(folder, cfg=None, failure="missed", **facts):
    """A run directory of eight trials on the first four shipped objects; the second fails always, the first once."""
    library = open_library("shipped")
    cfg = cfg or EvaluateCfg(trials=8)
    failed = {0, 1, 5}
    outcomes = [
        Outcome(
            trial=i,
            object=library.names[i % 4],
            disturbance="none",
            success=i not in failed,
            failure=failure if i in failed else "",
            lift_m=0.15,
            slip_m=0.01,
            penetration_m=0.001,
        )
        for i in range(8)
    ]
    notes = diagnostics(outcomes, library) | speed(8, 2.0) | facts
    (folder / "result.json").write_text(json.dumps(summarise(cfg, outcomes, FACTS)))
    (folder / "diagnostics.json").write_text(json.dumps(notes))
    return folder


def page_of(folder):
    return write_report(folder).read_text()


def screen_of(folder):
    result, notes = (json.loads((folder / name).read_text()) for name in ("result.json", "diagnostics.json"))
    console = Console(width=120, record=True, file=io.StringIO())
    print_scoreboard(result, notes, console)
    return console.export_text()


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without pictures."""
    monkeypatch.setattr(html_report, "draw_object", lambda model: b"")


def test_the_report_needs_no_file_and_no_network(tmp_path, undrawn):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/success_2_mug.mp4").write_bytes(b"film")
    page = page_of(run_of(tmp_path))
    assert "://" not in page
    assert "<link" not in page
    assert "@import" not in page
    assert "url(" not in page
    sources = re.findall(r"(?:src|href)\s*=\s*.{16}", page)
    assert sources
    assert all(source.startswith(('src="data:image/p', 'src="data:video/m')) for source in sources)


def test_the_report_opens_with_the_rate_its_interval_the_physics_and_the_seed(tmp_path, undrawn):
    page = page_of(run_of(tmp_path, EvaluateCfg(trials=8, seed=42)))
    # 5 of 8: (0.625 + 0.24010 -+ 1.95996 sqrt(0.0292969 + 0.0150059)) / 1.48018
    for words in ("<b>62.5<i>%</i></b>", "5 of 8 trials succeeded", "95 % interval 30.6 – 86.3 %", "</small>42<"):
        assert words in page
    assert "<small>physics</small>reference" in page
    assert "abc123 with local changes" in page


def test_objects_stand_worst_first(tmp_path, undrawn):
    names = open_library("shipped").names
    page = page_of(run_of(tmp_path))
    chart = page[page.index("By object, worst first") :]
    places = [chart.index(f">{name}<") for name in (names[1], names[0], names[2])]
    assert places == sorted(places)
    assert "0 %  ·  0/2" in chart


def test_only_objects_that_failed_have_a_picture(tmp_path):
    try:
        backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))
    page = page_of(run_of(tmp_path))
    assert page.count("data:image/png;base64,iVBOR") == 2  # the first bytes of every PNG


def test_the_picture_of_an_object_shows_it_on_a_pale_table():
    try:
        backend()
    except RenderUnavailable as error:
        pytest.skip(str(error))
    import imageio.v3 as iio

    library = open_library("shipped")
    picture = iio.imread(html_report.draw_object(library[library.names[0]], size=96))
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    orange = (red > blue + 60) & (red > green + 30)
    assert 0.05 < orange.mean() < 0.7
    assert picture[~orange].mean() > 150


def test_objects_that_have_gone_leave_a_sentence_instead_of_pictures(tmp_path):
    run = run_of(tmp_path, EvaluateCfg(trials=8, objects=str(tmp_path / "gone")))
    assert "No pictures: the objects are not where they were" in page_of(run)


def test_without_opengl_the_report_says_why_it_has_no_pictures(tmp_path, monkeypatch):
    def unavailable(model):
        raise RenderUnavailable({"egl": "<none>"})

    monkeypatch.setattr(html_report, "draw_object", unavailable)
    assert "No pictures: no headless OpenGL for pictures and videos (egl: &lt;none&gt;)" in page_of(run_of(tmp_path))


def test_large_videos_are_named_and_not_embedded(tmp_path, undrawn, monkeypatch):
    monkeypatch.setattr(html_report, "MOST_VIDEO_BYTES", 3)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/success_2_mug.mp4").write_bytes(b"film")
    page = page_of(run_of(tmp_path))
    assert "<video" not in page
    assert "videos/success_2_mug.mp4" in page


@pytest.mark.parametrize(
    ("length_cm", "label"),
    [(4.9, "below 5 cm"), (5.0, "5 – 8 cm"), (7.9, "5 – 8 cm"), (8.0, "8 – 11 cm"), (20.0, "above 11 cm")],
)
def test_sides_are_binned_between_the_edges(length_cm, label):
    assert html_report._bin_label(length_cm, (5, 8, 11)) == label


def test_objects_of_one_family_need_no_chart_by_family(tmp_path, undrawn):
    run = run_of(tmp_path)
    assert "By family" in page_of(run)
    notes = json.loads((run / "diagnostics.json").read_text())
    for facts in notes["objects"].values():
        facts["family"] = "mesh"
    (run / "diagnostics.json").write_text(json.dumps(notes))
    assert "By family" not in page_of(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "turbo", "timestep_s": 0.01}, "physics is 'turbo', not 'reference'"),
        ({"condim": 3}, "physics is a changed 'reference', not 'reference'"),
    ],
)
def test_physics_other_than_the_reference_is_said_on_screen_and_in_the_report(tmp_path, undrawn, change, words):
    cfg = EvaluateCfg(trials=8)
    run = run_of(tmp_path, replace(cfg, physics=replace(cfg.physics, **change)))
    assert f"Careful: {words}" in screen_of(run)
    assert words.replace("'", "&#39;") in page_of(run)


def test_objects_of_the_training_split_are_said_on_screen_and_in_the_report(tmp_path, undrawn):
    run = run_of(tmp_path, trained_on=["box", "mug"])
    assert "Careful: 2 of 4 objects are of the training split" in screen_of(run)
    assert "2 of 4 objects are of the training split" in page_of(run)


def test_a_reference_run_on_unseen_objects_carries_no_warning():
    assert warnings(configs.as_dict(EvaluateCfg()), {"trained_on": [], "objects": {}}) == []


def test_the_screen_shows_rate_interval_failures_worst_objects_and_penetration(tmp_path):
    names = open_library("shipped").names
    text = screen_of(run_of(tmp_path))
    for words in ("62.5 %", "30.6 – 86.3 %", "missed 3", f"{names[1]} 0/2, {names[0]} 1/2", "1.00 mm at the 99th"):
        assert words in text


def test_a_bar_is_as_long_as_its_rate_and_carries_its_interval():
    chart = rate_chart([Bar("mug", 1, 2)])
    # the track is 760 - 200 - 120 = 440 wide, half of it 220; Wilson of 1/2 is 0.0945 .. 0.9055
    assert 'width="220.0"' in chart
    assert "M241.6 12.0H598.4" in chart
    assert "M241.6" not in rate_chart([Bar("mug", 1, 2)], intervals=False)


def test_a_stacked_bar_shares_its_width_by_count_and_leaves_out_nothings():
    chart = share_chart({"success": (3, "#111"), "missed": (1, "#222"), "unstable": (0, "#333")})
    assert re.findall(r'width="([\d.]+)"', chart) == ["568.5", "188.5"]  # 760 in the ratio 3 : 1, less the gaps
    assert "unstable" not in chart


class Parsed(HTMLParser):
    """Tags, attribute values and texts of a page, as a browser would read them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.values, self.texts = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_hostile_names_of_objects_policies_and_videos_stay_text(tmp_path, undrawn, monkeypatch):
    run = run_of(tmp_path, EvaluateCfg(trials=8, policy="random"))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "success_1.mp4").write_bytes(b"film")
    harmless = Parsed(page_of(run))
    evil, name = "\"><script>x</script>'{{ 7 }}", open_library("shipped").names[1]
    for file in ("result.json", "diagnostics.json"):
        text = (run / file).read_text().replace(json.dumps(name), json.dumps(evil))
        (run / file).write_text(text.replace('"random"', json.dumps(evil)))
    (tmp_path / "videos" / "success_1.mp4").rename(tmp_path / "videos" / "<script>.mp4")
    monkeypatch.setattr(html_report, "open_library", lambda _: dict.fromkeys([*open_library("shipped").names, evil]))
    page = Parsed(page_of(run))
    assert page.tags == harmless.tags and "script" not in page.tags
    assert page.values.count(evil) == harmless.values.count(name) == 1  # alt of its picture
    assert page.texts.count(evil) == harmless.texts.count(name) + harmless.texts.count("random") > 3
    assert f"{evil} on allegro: 62.5 %" in page.texts
    assert "<script>" in page.texts


def test_names_are_escaped_in_charts():
    assert "<b>" not in rate_chart([Bar("<b>", 1, 2)])


def test_the_gauge_puts_the_rate_inside_its_band():
    gauge = interval_gauge(0.5, 0.25, 0.75)
    assert '<rect x="200.0" y="9" width="360.0"' in gauge
    assert 'cx="380.0"' in gauge
