"""Real ROS in tests: a domain of one's own, a peer of the nodes under test, nodes as processes, limited waits."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dexgrasp_ros import config

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ros2_ws" / "src" / "dexgrasp_ros"
WAIT_S = 60.0
"""Discovery alone may take 3 s; a busy machine starts a node in 10 s."""
DOMAINS = range(1, 100)
"""Higher ones use ports that Linux hands out to anybody."""

RELIABLE = QoSProfile(depth=10)
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@contextmanager
def domain(log_dir):
    """The first domain that no test on this machine holds, with the environment that every node gets."""
    number, lock = next(filter(None, map(_claim, DOMAINS)))
    os.environ.update(
        FASTRTPS_DEFAULT_PROFILES_FILE=str(config("fastdds.xml")),
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
        ROS_DOMAIN_ID=str(number),
        ROS_LOG_DIR=str(log_dir),
    )
    try:
        yield number
    finally:
        lock.close()


def _claim(number):
    lock = open(Path(tempfile.gettempdir()) / f"dexgrasp_ros_domain_{number}", "w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return number, lock


class Peer:
    """A node with a context of its own. Nodes under test in this process take `peer.context` and go to `peer.add`."""

    def __init__(self, number):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=number)
        self.node = Node("peer", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._nodes, self._clients = [], {}
        self.add(self.node)

    def add(self, node):
        """Spins a node of this process with the peer, and destroys it with the peer."""
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def listen(self, kind, topic, qos=RELIABLE):
        """The messages received on a topic: a list that grows while the peer spins."""
        received = []
        self.node.create_subscription(kind, topic, received.append, qos)
        return received

    def publisher(self, kind, topic, qos=RELIABLE, subscribers=1):
        """A publisher that so many subscribers have found."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.until(lambda: publisher.get_subscription_count() >= subscribers, f"{subscribers} subscribers of {topic}")
        return publisher

    def call(self, kind, name, request=None, timeout_s=WAIT_S):
        """The answer of a service."""
        if name not in self._clients:  # one for all calls: a second client of a service is now and then not matched
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        self.until(client.service_is_ready, f"service {name}", timeout_s)
        future = client.call_async(request or kind.Request())
        self.until(future.done, f"answer of {name}", timeout_s)
        return future.result()

    def spin(self, time_s):
        """Spins for so long."""
        end = time.monotonic() + time_s
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.01)

    def until(self, condition, what, timeout_s=WAIT_S):
        """Spins until the condition holds; fails with `what` was waited for."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"waited {timeout_s:.0f} s for {what}"
            self._executor.spin_once(timeout_sec=0.01)

    def close(self):
        """Destroys all nodes."""
        for node in self._nodes:
            self._executor.remove_node(node)
            node.destroy_node()
        self._executor.shutdown(timeout_sec=0.0)
        rclpy.try_shutdown(context=self.context)


class Process:
    """A node as a process of its own, ended at the end of the `with`. Its output is in `text()`."""

    def __init__(self, module, folder, /, remap=None, node=None, namespace="", **parameters):
        """`folder` takes the output; `node` and `namespace` name the node; parameters are declared by the node."""
        words = [f"{name}:={_yaml(value)}" for name, value in parameters.items()]
        names = [f"__{key}:={name}" for key, name in (("node", node), ("ns", namespace and f"/{namespace}")) if name]
        names += [f"{a}:={b}" for a, b in (remap or {}).items()]
        ros_args = [word for flag, given in (("-p", words), ("-r", names)) for item in given for word in (flag, item)]
        self.command = [sys.executable, "-m", module, *(["--ros-args", *ros_args] if ros_args else [])]
        self.output = Path(folder) / f"{(namespace.replace('/', '_') + (node or module))}.{time.monotonic_ns()}.log"
        path = os.pathsep.join([str(ROOT), str(PACKAGE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        with open(self.output, "w") as log:
            environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
            self.process = subprocess.Popen(
                self.command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def text(self):
        """What it has written."""
        return self.output.read_text()

    def alive(self):
        """Whether it still runs."""
        return self.process.poll() is None

    def send(self, number):
        """Sends a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s=WAIT_S):
        """Its exit code, once it has ended."""
        return self.process.wait(timeout_s)

    def stop(self, number=signal.SIGINT, timeout_s=WAIT_S):
        """Ends it as a launch would; the exit code."""
        self.send(number)
        return self.wait(timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.alive():
            self.send(signal.SIGTERM)
        try:
            self.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _yaml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, Path)):
        return f"'{value}'"
    return f"[{', '.join(map(_yaml, value))}]" if isinstance(value, (list, tuple)) else str(value)
