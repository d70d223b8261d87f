"""Success of the shipped student on scanned copies of generated objects, beside the originals.

`pytest -m slow -s tests/policies/test_scanned_success.py` prints both rates; SCAN_OBJECTS=30 SCAN_TRIALS=600 for all.
Both libraries go the way of the importer, with equal masses, and the trials have equal numbers.
"""

import os

import numpy as np
import pytest
import trimesh

pytest.importorskip("open3d", reason="needs the extra `scan`")

import dexgrasp
from dexgrasp.perception.calibration.board_layout import BoardCfg
from dexgrasp.perception.cameras.open import open_camera
from dexgrasp.perception.scanning.board_poses import poses_from_board
from dexgrasp.perception.scanning.frames import ScanError, read_frames
from dexgrasp.perception.scanning.fusion import ply_bytes
from dexgrasp.perception.scanning.scan import scan_pass
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.objects.import_settings import ImportSettings
from dexgrasp.sim.objects.importer import add_mesh
from tests.helpers import synthetic_scan

COUNT, TRIALS = int(os.environ.get("SCAN_OBJECTS", "4")), int(os.environ.get("SCAN_TRIALS", "100"))
FRAMES = 24


def scan_of(model, folder):
    """Return the scanned surface of a model in its likeliest resting pose, and the true mesh there."""
    scene, T = synthetic_scan.scene_of(model, int(np.argmax(model.rest_prob)))
    vertices = model.vertices @ T[:3, :3].T + T[:3, 3]
    extents = np.ptp(vertices, axis=0)
    board = BoardCfg(columns=11, rows=7) if extents[:2].max() > 0.1 else BoardCfg()
    target, distance_m = (0, 0, extents[2] / 2), 0.34 + 0.8 * float(extents.max())
    poses = synthetic_scan.hand_held(FRAMES, distance_m, target=target)
    with open_camera(str(synthetic_scan.render(scene, poses, board=board).save(folder))) as source:
        scanned = scan_pass(poses_from_board(read_frames(source, FRAMES), board))
    return scanned.surface, trimesh.Trimesh(vertices, model.faces, process=False)


@pytest.mark.slow
def test_the_student_grasps_scanned_copies_as_the_originals(tmp_path):
    library = open_library("generated:36:validation")
    names = [library.names[i] for i in np.linspace(0, len(library) - 1, COUNT).astype(int)]
    scans = {"scanned": {}, "original": {}}
    for entry in (library.entries[library.names.index(name)] for name in names):
        try:
            surface, original = scan_of(library[entry.name], tmp_path / "frames" / entry.name)
        except ScanError as error:
            print(f"{entry.name} refused: {error}", flush=True)
            continue
        settings = ImportSettings(scale=1.0, mass_min=entry.mass, mass_max=entry.mass)
        for kind, known in scans.items():
            mesh = tmp_path / kind / f"scans/{entry.name}.ply"
            mesh.parent.mkdir(parents=True, exist_ok=True)
            if kind == "scanned":
                mesh.write_bytes(ply_bytes(surface))
            else:
                original.export(mesh)
            add_mesh(tmp_path / kind, mesh, entry.name, settings, scans=known, command="test")
            known[entry.name] = {}
    rates = {}
    for kind in scans:
        done = dexgrasp.evaluate(
            "allegro/student", tmp_path / kind, trials=TRIALS, camera="d435", videos=0, out=str(tmp_path / f"of_{kind}")
        )
        low, high = done.interval
        rates[kind] = done.success_rate
        print(f"{kind}: {done.successes} of {done.trials}, {100 * low:.1f} to {100 * high:.1f} %", flush=True)
    assert len(scans["scanned"]) >= 0.8 * COUNT
    assert abs(rates["scanned"] - rates["original"]) < 0.03 + 1.96 * np.sqrt(0.5 / TRIALS) * 0.6
