"""The grasp machine's last promise: whatever comes in, no command gets past the limits and nothing is thrown."""

import math
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp_ros.grasping.types import REQUESTS
from dexgrasp_ros.object_estimate import ObjectEstimate
from tests.helpers.fake_robot import DT, Wild, in_state

nasty = st.one_of(st.just(math.nan), st.just(math.inf), st.floats(-1e3, 1e3), st.floats(-0.2, 0.2))
change = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"joints_stamp_s": nasty}),
    st.fixed_dictionaries({"palm_stamp_s": nasty}),
    st.fixed_dictionaries({"joint_pos": st.one_of(st.none(), st.lists(nasty, min_size=15, max_size=16))}),
    st.fixed_dictionaries({"palm_pos_w": st.one_of(st.none(), st.lists(nasty, min_size=3, max_size=3))}),
    st.fixed_dictionaries({"palm_quat_w": st.lists(nasty, min_size=4, max_size=4)}),
    st.fixed_dictionaries(
        {"estimate": st.one_of(st.none(), st.builds(ObjectEstimate, st.just("no"), nasty, st.booleans(), nasty))}
    ),
    st.fixed_dictionaries({"plan": st.one_of(st.none(), st.builds(PregraspPlan, *[st.lists(nasty, max_size=4)] * 6))}),
    st.fixed_dictionaries({"estop": st.just(True)}),
)
event = st.tuples(
    st.one_of(st.just(DT), st.just(DT), st.just(DT), nasty),  # step of the clock
    st.one_of(st.none(), st.none(), st.sampled_from(REQUESTS)),
    st.one_of(st.just({}), st.just({}), change),
    st.one_of(st.just(0.0), nasty, st.just(RuntimeError("boom"))),  # of the policy
    st.booleans(),  # whether the robot follows
)


@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from(["idle", "pregrasp", "grasp", "hold", "release"]), events=st.lists(event, max_size=40))
def test_no_sequence_of_inputs_gets_a_command_past_the_limits_or_an_exception_out(start, events):
    policy = Wild()
    world = in_state(start, policy)
    check = Limits(world)
    for step_s, name, changes, policy.answer, follow in events:
        world.now_s += step_s - DT
        before, faulty = world.machine.state, bool(world.machine.fault)
        accepted = name is not None and world.ask(name, **changes) == ""
        if accepted and name == "reset_fault":
            check.begin_again()
        output = world.tick(follow=follow, **changes)
        if not math.isfinite(world.now_s):
            world.now_s = check.now_s
        check(output)
        assert (output.state == "fault") == bool(output.fault)
        if before == "fault" and not (accepted and name == "reset_fault"):
            assert output.state == "fault" and faulty


class Limits:
    """What must hold of commands one after the other."""

    def __init__(self, world):
        gate = world.machine.gate
        self._lower, self._upper = gate.joints.lower, gate.joints.upper
        self._box = gate.palm.lower, gate.palm.upper
        self._step, self._reach = gate.joints.max_step, float(np.linalg.norm(gate.palm.max_step))
        self._world, self.now_s = world, world.now_s
        self.begin_again()

    def begin_again(self):
        """The robot starts anew from where it was measured."""
        gate = self._world.machine.gate
        self._last = SimpleNamespace(at=gate.joints.value.copy(), palm=gate.palm.value.copy())

    def __call__(self, output):
        safe = output.safe
        assert np.isfinite(np.concatenate([safe.joint_target, safe.palm_pos_w, safe.palm_quat_w])).all()
        assert (safe.joint_target >= self._lower).all() and (safe.joint_target <= self._upper).all()
        assert (safe.palm_pos_w >= self._box[0]).all() and (safe.palm_pos_w <= self._box[1]).all()
        assert (np.abs(safe.joint_target - self._last.at) <= self._step + 1e-9).all()
        assert np.linalg.norm(safe.palm_pos_w - self._last.palm) <= self._reach + 1e-9
        self._last = SimpleNamespace(at=safe.joint_target, palm=safe.palm_pos_w)
        self.now_s = self._world.now_s
