"""Progress of a scan: coverage of the sides, preview in a browser, frames of a live camera kept in a folder."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from dexgrasp.perception.calibration.board_layout import BoardCfg
from dexgrasp.perception.cameras.depth import EndOfFramesError
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.scanning.board_poses import poses_from_board
from dexgrasp.perception.scanning.coverage import SIDES, Coverage
from dexgrasp.perception.scanning.frames import read_frames
from dexgrasp.perception.scanning.recording import RecordedSource
from dexgrasp.policies.real_to_sim.scan_watch import DOME_M, LiveWatch, ScanWatch, side_patch
from tests.helpers import browser
from tests.helpers import synthetic_scan as synthetic

HALF_M = (0.03, 0.02, 0.025)
GROUND = (0, 0, 0)
POSES = np.concatenate([synthetic.ring(10, 32, 0.3, first_deg=5), synthetic.ring(6, 58, 0.3, first_deg=10)])


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A folder of 16 frames of a box on the board."""
    scan = synthetic.render(synthetic.box_scene(HALF_M), POSES, camera=synthetic.SMALL)
    return scan.save(tmp_path_factory.mktemp("scan") / "box")


def covered(*rings):
    coverage = Coverage()
    for ring in rings:
        for T in ring:
            coverage.add(T)
    return coverage


def test_coverage_of_rings_counted_by_hand():
    low = synthetic.ring(12, 30, 0.4, first_deg=15, target=GROUND)  # one in the middle of each sector
    half_turn = synthetic.ring(6, 50, 0.4, first_deg=15, turn_deg=180, target=GROUND)
    above = synthetic.ring(1, 80, 0.4, target=GROUND)
    assert covered().text() == "0 % of the sides seen, missing: low 0-360 deg; half height 0-360 deg; from above"
    assert covered(low).share == 12 / 25
    assert covered(low, half_turn).text() == "72 % of the sides seen, missing: half height 180-360 deg; from above"
    few = covered(low[[0, 3, 4]], synthetic.ring(12, 50, 0.4, first_deg=15, target=GROUND), above)
    assert few.text() == "64 % of the sides seen, missing: low 30-90, 150-360 deg"
    rest = synthetic.ring(12, 50, 0.4, first_deg=15, target=GROUND)
    assert covered(low, rest, above).text() == "100 % of the sides seen"


def test_the_patches_of_the_dome_are_where_their_cameras_count():
    for side in SIDES:
        vertices, faces = side_patch(side)
        np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), DOME_M, rtol=1e-6)
        for middle in vertices[faces].mean(1):
            T = np.eye(4)
            T[:3, 3] = middle
            assert covered([T]).seen == {side}


def test_frames_are_told_as_their_poses_are_found(box, capsys):
    with ScanWatch(preview=False, port=0) as watch:
        with open_camera(str(box)) as source:
            frames = read_frames(source, 100)
        with watch.begin("pass 1", len(frames)):
            poses_from_board(frames, BoardCfg(), watch.frame)
    assert watch.coverage.seen == covered(POSES).seen
    assert "pass 1: 16/16 (100 %), " in (said := capsys.readouterr().err) and watch.coverage.text() in said


def test_a_live_camera_is_watched_and_recorded(box, tmp_path):
    with ScanWatch(preview=False, port=0) as watch, open_camera(str(box)) as source, watch.begin("live", 16):
        look = LiveWatch(watch, BoardCfg())
        kept = RecordedSource(source, tmp_path / "kept/pass_1", every_s=0.2)  # of 16 frames, 0.1 s apart
        first = kept.read()
        look(replace(first, color=np.zeros_like(first.color)))  # no board in it
        look._last_s = -np.inf
        look(first)
        later, look._last_s = kept.read(), time.monotonic()  # however long the look before took
        look(later)  # too soon
        with pytest.raises(EndOfFramesError):
            while True:
                kept.read()
    assert watch.coverage.seen == covered(POSES[:1]).seen
    with open_camera(str(box)) as source, open_camera(str(tmp_path / "kept/pass_1")) as again:
        given, found = [source.read() for _ in range(16)][::2], [again.read() for _ in range(8)]
        with pytest.raises(EndOfFramesError):
            again.read()
    for one, other in zip(given, found, strict=True):
        np.testing.assert_array_equal(one.depth_m, other.depth_m)
        np.testing.assert_array_equal(np.asarray(one.color), np.asarray(other.color))
        assert (one.intrinsics, one.stream) == (other.intrinsics, other.stream)
    with pytest.raises(FileExistsError, match="holds files already: scan from it"):
        RecordedSource(source, tmp_path / "kept/pass_1")


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium: apt-get install chromium")
def test_the_preview_shows_the_missing_sides(box, tmp_path, capsys):
    pytest.importorskip("viser", reason="needs the extra `viz`")
    with open_camera(str(box)) as source:
        frames = read_frames(source, 100)
    with ScanWatch(preview=True, port=0) as watch:
        url = capsys.readouterr().out.split()[-1]
        with watch.begin("pass 1", len(frames)):
            poses_from_board(frames, BoardCfg(), watch.frame)
        (tmp_path / "profile").mkdir()
        with browser.Browser(url, tmp_path / "profile") as page:

            def shows_red_and_green(picture):
                red, green, blue = picture.astype(int).transpose(2, 0, 1)
                middle = np.s_[100:400, 320:660]
                return ((red - blue)[middle] > 40).mean() > 0.01 and ((green - red)[middle] > 5).mean() > 0.01

            picture = page.until(shows_red_and_green)
            assert shows_red_and_green(picture) and "from above" in page.text()


@pytest.mark.slow
def test_a_killed_scan_starts_again_from_its_recording_and_gives_the_same_bytes(box, tmp_path):
    pytest.importorskip("open3d", reason="needs the extra `scan`")
    command = [sys.executable, "-m", "dexgrasp", "objects", "scan", str(box), "fusion.region_m=0.3", "name=box"]
    out = f"out={tmp_path / 'killed'}"
    with subprocess.Popen([*command, out], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        assert any("pass 1: 16/16" in line for line in process.stderr)  # poses are found, the fusion begins
        process.kill()
    assert process.returncode == -signal.SIGKILL
    for out in ("killed", "whole"):
        subprocess.run([*command, f"out={tmp_path / out}"], check=True, stdout=subprocess.DEVNULL)
    first, second = (tmp_path / out / "scans/box.ply" for out in ("killed", "whole"))
    assert first.read_bytes() == second.read_bytes()
