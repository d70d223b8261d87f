"""Settings of every test: one thread per process, because the suite itself runs in parallel."""

import os
import shutil
import sys

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before anything imports torch
    os.environ.setdefault(variable, "1")

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")  # before anything imports messages

import tempfile  # noqa: E402

os.environ.setdefault("DEXGRASP_CACHE", os.path.join(tempfile.gettempdir(), f"dexgrasp-tests-{os.getuid()}"))

import pytest  # noqa: E402


def pytest_addoption(parser):
    """`pytest -m regression --regenerate` writes the golden files of tests/data/regression anew.

    That is right when a policy is shipped, when a change is meant to alter what the simulation or a policy does, and
    when versions in constraints.txt change. The commit says which, and what became of the successes; written anew
    without such a reason, a golden file hides what its test has found.
    """
    parser.addoption("--regenerate", action="store_true", help="write the golden files of the regression tests anew")


def pytest_collection_modifyitems(items):
    """Let a test with ROS nodes fail once: discovery and timers are those of the machine; the summary counts reruns."""
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True)
def denormals():
    """Restore IEEE arithmetic before a test: a native library leaves flush-to-zero set, which Hypothesis refuses."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def balanced():
    """The physics preset of training."""
    return _preset("balanced")


@pytest.fixture(scope="session")
def reference():
    """The physics preset of every reported number."""
    return _preset("reference")


def _preset(name):
    from dexgrasp import configs
    from dexgrasp.sim.scene import PhysicsCfg

    return configs.load_option(PhysicsCfg, "physics", name)


@pytest.fixture(scope="session")
def allegro():
    """The right Allegro hand."""
    from dexgrasp.sim.robots.hand import HandSpec

    return HandSpec.load("allegro")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """Fills a folder once for all processes of the test run: `made_once(name, fill)` returns its path."""
    import fcntl

    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent  # of one process, and of all

    def folder(name, fill):
        place, done = root / f"shared_{name}", root / f"shared_{name}.done"
        with open(root / f"shared_{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)  # of a process that failed
                place.mkdir()
                fill(place)
                done.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def household(made_once):
    """A small library: one generated object each of a box, a mug with many pieces, a hammer and a capsule."""
    from dexgrasp.sim.objects import open_library
    from dexgrasp.sim.objects.generator import generate

    families = ["box", "mug", "hammer", "capsule"]

    def fill(place):
        generate(4, place, families=families, workers=1, progress=False)

    return open_library(str(made_once("household", fill)))


@pytest.fixture(scope="session")
def ros_domain(tmp_path_factory):
    """A ROS domain that no other process on this machine uses, set in the environment of this one and its children."""
    pytest.importorskip("rclpy", reason="needs the extra `ros`")
    from tests.helpers.ros import domain

    with domain(tmp_path_factory.mktemp("ros")) as number:
        yield number


@pytest.fixture
def ros(ros_domain):
    """A node beside those under test: listens, publishes, calls, waits."""
    from tests.helpers.ros import Peer

    peer = Peer(ros_domain)
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def sim_robot(ros_domain, tmp_path_factory):
    """The process of a simulated robot without a camera, in the state in which the last test has left it."""
    from tests.helpers.ros import Process

    with Process("dexgrasp_ros.nodes.sim_robot_node", tmp_path_factory.mktemp("robot"), camera_rate_hz=0.0) as process:
        yield process


@pytest.fixture
def robot(sim_robot, ros):
    """That process with arm and hand at rest where they start, whatever an earlier test has commanded."""
    from std_srvs.srv import Trigger

    assert ros.call(Trigger, "/sim_robot/reset", timeout_s=180.0).success, sim_robot.text()  # it may be starting
    return sim_robot


@pytest.fixture(scope="session")
def student_run(made_once):
    """Run directory of a student with random weights, whose actions are neither small nor clipped."""
    from tests.helpers.untrained_checkpoint import make_run

    return made_once("student", make_run)


@pytest.fixture(scope="session")
def bundle(student_run, household, made_once):
    """That student as a bundle, signed by the key whose public part is public.pem beside it."""
    pytest.importorskip("onnxscript", reason="needs the extra `export`")
    from dexgrasp import configs
    from dexgrasp.policies.export.export import ExportCfg, export
    from dexgrasp.sim.scene import PhysicsCfg
    from tests.helpers.keys import write_keys

    physics = configs.load_option(PhysicsCfg, "physics", "turbo")

    def fill(place):
        objects, out, key = str(household.path), str(place / "bundle"), str(write_keys(place))
        export(ExportCfg(str(student_run), out, objects=objects, trials=12, physics=physics, sign=key))

    return made_once("exported", fill) / "bundle"
