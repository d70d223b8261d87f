"""The report: one file that needs nothing beside it, and says what a reader must know before quoting its number."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dexgrasp import configs
from dexgrasp.policies.evaluation import html_report
from dexgrasp.policies.evaluation.config import EvaluateCfg
from dexgrasp.policies.evaluation.evaluate import diagnostics, object_facts, speed, summarise
from dexgrasp.policies.evaluation.html_report import STOPS, Bar, rate_colour, shares, split_by_trials, write_report
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
            opposed_share=i / 10,
        )
        for i in range(8)
    ]
    notes = diagnostics(outcomes, object_facts(outcomes, library)) | speed(8, 2.0) | facts
    (folder / "result.json").write_text(json.dumps(summarise(cfg, outcomes, [FACTS])))
    (folder / "diagnostics.json").write_text(json.dumps(notes))
    return folder


def page_of(folder):
    return write_report(folder).read_text()


def screen_of(folder, capsys):
    result, notes = (json.loads((folder / name).read_text()) for name in ("result.json", "diagnostics.json"))
    capsys.readouterr()
    print_scoreboard(result, notes)
    return capsys.readouterr().out


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


def text_of(page):
    """Words of a page as a reader sees them, with single blanks."""
    return " ".join(" ".join(text for text in Parsed(page).texts if text).split())


def test_the_report_opens_with_both_rates_their_intervals_and_the_conditions(tmp_path, undrawn):
    run = run_of(tmp_path, EvaluateCfg(trials=8, seed=42), at_first_attempt={"none": 4})
    (run / "run.json").write_text(json.dumps({"starts": ["2026-01-02T03:04:05Z"]}))
    page = page_of(run)
    text = text_of(page)
    # 5 of 8: (0.625 + 0.24010 -+ 1.95996 sqrt(0.0292969 + 0.0150059)) / 1.48018; 4 of 8: 0.5 -+ 0.2848
    assert (
        "50.0 % success at the first attempt: 4 of 8 trials 95 % interval 21.5 – 78.5 % (Wilson) "
        "62.5 % success with up to 3 attempts: 5 of 8 trials 95 % interval 30.6 – 86.3 % (Wilson)" in text
    )
    # successes are trials 2, 3, 4, 6 and 7, with a tenth of their number each
    assert "touch the object in 44.0 % of the hold of a success (mean), at least 20 %" in text
    for words in (
        "camera first frame only, moved with the palm",
        "camera errors none",
        "start noise palm ±12 mm, approach ±20 mm, tilt sd 3.4°, fingers ±2.9°",
        "perception simulated points of the visible surface",
        "randomization off",
        "engine MuJoCo (CPU)",
        "physics reference",
        "hold 3 s",
        "attempts up to 3",
        "seed 42",
        "date 2026-01-02 03:04:05 UTC",
        "commit abc123 with local changes",
        "Command that repeats it dexgrasp evaluate trials=8 seed=42",
        "Success: in the whole hold of 3 s the object is at least 10 cm above its start, moves less than 8 cm",
    ):
        assert words in text
    assert page.index("Command that repeats it") < page.index("How trials ended")


def test_videos_stand_before_the_charts_successes_first(tmp_path, undrawn):
    (tmp_path / "videos").mkdir()
    for name in ("failure_1_cup", "success_2_mug"):
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"film")
    page = page_of(run_of(tmp_path))
    places = [page.index(words) for words in ("success: trial 2, mug", "failure: trial 1, cup", "How trials ended")]
    assert places == sorted(places)


def test_families_of_few_trials_are_collapsed_and_others_are_not(tmp_path, undrawn):
    bars = [Bar("a", 5, 10), Bar("b", 9, 9), Bar("c", 100, 100)]
    assert [[bar.label for bar in part] for part in split_by_trials(bars)] == [["a", "c"], ["b"]]
    page = page_of(run_of(tmp_path))
    assert "4 families with fewer than 10 trials each" in page
    family = page[page.index("By family") :]
    assert family.index("<details>") < family.index('class="bars"') < family.index("</details>")


def test_objects_stand_worst_first(tmp_path, undrawn):
    names = open_library("shipped").names
    page = page_of(run_of(tmp_path))
    chart = page[page.index("Objects, worst first (4)") :]
    places = [chart.index(f">{name}<") for name in (names[1], names[0], names[2])]
    assert places == sorted(places)
    assert "0 % · 0/2" in chart


def luminance(rgb):
    """Relative luminance of WCAG 2."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(rgb) / 255]
    return np.dot([0.2126, 0.7152, 0.0722], parts)


def contrast(a, b):
    high, low = sorted([luminance(a), luminance(b)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def numbers(colour):
    return [int(part) for part in re.findall(r"\d+", colour)]


def test_colours_of_rates_stand_out_from_page_and_track_and_run_between_their_stops():
    for rate in np.linspace(0, 1, 21):
        colour = numbers(rate_colour(rate))
        assert contrast(colour, (255, 255, 255)) > 3  # WCAG 1.4.11: graphics
        assert contrast(colour, (232, 236, 241)) > 3
    assert numbers(rate_colour(0.25)) == [152, 70, 12]  # halfway between (124, 45, 18) and (180, 95, 6)
    with pytest.raises(ValueError, match=r"a rate lies in 0\.\.1, got 1\.5"):
        rate_colour(1.5)


def test_a_reader_without_red_or_green_cones_tells_low_rates_from_high_ones():
    # Vienot, Brettel and Mollon (1999): matrices in linear RGB for protanopia and deuteranopia
    matrices = (
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    )
    for matrix in matrices:
        seen = [np.array(matrix) @ (np.array(rgb) / 255) ** 2.2 for _, rgb in STOPS]
        blue_share = [colour[2] / colour.sum() for colour in seen]
        assert blue_share[1] < 0.1 < 0.3 < blue_share[2] < blue_share[3]


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


def test_large_videos_are_linked_and_not_embedded(tmp_path, undrawn, monkeypatch):
    monkeypatch.setattr(html_report, "MOST_VIDEO_BYTES", 3)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/success_2_mug.mp4").write_bytes(b"film")
    page = page_of(run_of(tmp_path))
    assert 'src="videos/success_2_mug.mp4"' in page
    assert "base64" not in page.split("How trials ended")[0]


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
        (["physics=turbo"], "physics is 'turbo', not 'reference'"),
        (["physics.condim=3"], "physics is 'reference, changed', not 'reference'"),
        (["physics=turbo", "physics.condim=4"], "physics is 'turbo, changed', not 'reference'"),
    ],
)
def test_physics_other_than_the_reference_is_said_on_screen_and_in_the_report(tmp_path, undrawn, capsys, change, words):
    run = run_of(tmp_path, configs.load(EvaluateCfg, "evaluate", ["trials=8", *change]))
    assert f"Careful: {words}" in screen_of(run, capsys)
    assert words.replace("'", "&#39;") in page_of(run)


def test_objects_of_the_training_split_are_said_on_screen_and_in_the_report(tmp_path, undrawn, capsys):
    run = run_of(tmp_path, trained_on=["box", "mug"])
    assert "Careful: 2 of 4 objects are of the training split" in screen_of(run, capsys)
    assert "2 of 4 objects are of the training split" in page_of(run)


def test_a_reference_run_on_unseen_objects_carries_no_warning():
    assert warnings(configs.as_dict(EvaluateCfg()), {"trained_on": [], "objects": {}}) == []


def test_the_screen_shows_rate_interval_failures_worst_objects_and_penetration(tmp_path, capsys, monkeypatch):
    names = open_library("shipped").names
    monkeypatch.setattr("dexgrasp.utils.text.terminal_width", lambda: 80)
    text = screen_of(run_of(tmp_path), capsys)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("62.5 % (30.6 – 86.3)", "missed 3", f"{names[1]} 0/2, {names[0]} 1/2", "1.00 mm at the 99th"):
        assert words in text


def test_a_bar_is_as_long_as_its_rate_and_carries_its_interval(tmp_path, undrawn):
    page = page_of(run_of(tmp_path))
    assert '<i style="width:62.50%;background:rgb' in page
    assert '<s style="left:30.57%;width:55.74%"></s>' in page  # 30.57 to 86.32 %


def test_the_whole_is_divided_by_count_and_leaves_out_nothings():
    parts = shares({"success": (3, "#111"), "missed": (1, "#222"), "unstable": (0, "#333")})
    assert [(part.label, part.count, part.total) for part in parts] == [("success", 3, 4), ("missed", 1, 4)]


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
    assert page.values.count(evil) == harmless.values.count(name) == 2  # alt of its picture, title of its bar
    assert page.texts.count(evil) == harmless.texts.count(name) + harmless.texts.count("random") == 3
    assert f"{evil} on allegro: 62.5 %" in page.texts
    assert "<script>" in page.texts
