"""Couplings of a hand's joints, from hand.yaml and from the model: equalities, mimic joints, tendons.

    joint equality (URDF: mimic)          joint1 follows joint2; a polynomial is replaced by a line
    tendon equality of two joints         the joint without an actuator follows
    fixed tendon with an actuator         its joints move in proportion to their coefficients, as with equal resistance
    spatial tendon, closed loop           the line through positions measured while the actuator moves (`sweep`)

`coupled` of hand.yaml goes before the model. A line that misses the model by more than LARGEST_ERROR is refused.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import mujoco
import numpy as np

from dexgrasp.perception.motors import LEAST_RATIO, Coupling, resolve_chains
from dexgrasp.sim.robots.coupling_sweep import sweep
from dexgrasp.sim.robots.hand_file import HandFile
from dexgrasp.sim.robots.model_checks import compiled
from dexgrasp.utils.text import comma_separated, shown

LARGEST_ERROR = 0.05
"""Largest distance of a line from the coupling of the model, as a share of the joint's range."""
LARGEST_EXCESS = 0.01
"""Largest motion of a coupled joint beyond its range, as a share of it."""
EXACT = 1e-6
"""Distance below which a line is the coupling itself [rad]."""
FULL_TURN = (-np.pi, np.pi)
"""Range of a joint without limits."""

log = logging.getLogger("dexgrasp")

Statements = dict[str, tuple[Coupling, float]]
"""Follower -> its coupling, and the error of the line [rad]."""


def coupled_joints(spec: mujoco.MjSpec, hand: HandFile, model: Path, file: Path) -> dict[str, Coupling]:
    """Return the coupling of each joint without a motor, to the joint of a motor.

    Chains are multiplied out. `spec`: of the file `model`; `hand`: content of the hand.yaml `file`. What couples joints
    that it does not list does not count. What is taken from the model is told once. Raises ValueError for couplings
    that are contradictory, or no lines.
    """
    driven = _driven_joints(spec, list(hand.joints), model)
    from_model: Statements = {}
    if len(spec.equalities) or len(spec.tendons):
        from_model = _Reader(model=compiled(spec, model, hand.name), hand=hand, driven=driven, file=model).read()
    both = {joint: coupling for joint, (coupling, _) in from_model.items()}
    both |= {joint: coupling for joint, coupling in hand.coupled.items() if coupling is not None}
    try:
        resolved = resolve_chains(both, hand.joints)
    except ValueError as error:
        raise ValueError(f"{file if hand.coupled else model}: coupled: {error}") from error
    _check_motors(resolved, driven, model)
    if told := [_in_words(joint, *statement) for joint, statement in from_model.items()]:
        _tell(f"{model}: {len(told)} coupled joints are taken from the model: {'; '.join(told)}")
    if driven:
        _tell(f"{model}: its {sum(driven.values())} actuators are replaced by the servos of hand.yaml")
    return resolved


def check_ranges(coupled: Mapping[str, Coupling], ranges: Mapping[str, tuple[float, float]], file: Path) -> None:
    """Raise ValueError where a motor's range [rad] moves a coupled joint out of its own."""
    for joint, coupling in coupled.items():
        low, high = sorted(coupling.ratio * end + coupling.offset for end in ranges[coupling.follows])
        lower, upper = ranges[joint]
        if min(low - lower, upper - high) < -LARGEST_EXCESS * (upper - lower):
            raise ValueError(
                f"{file}: joints: '{joint}' follows '{coupling.follows}' from {low:.5g} to {high:.5g} rad, beyond its "
                f"range {[lower, upper]}: remove its range, or narrow that of '{coupling.follows}'"
            )


def add_equalities(spec: mujoco.MjSpec, coupled: Mapping[str, Coupling]) -> None:
    """Add the couplings to a model as joint equalities, stiff enough to hold while the hand grasps."""
    for joint, coupling in coupled.items():
        start, start_motor = (_start(spec.joint(name)) for name in (joint, coupling.follows))
        equality = spec.add_equality(
            name=joint, type=mujoco.mjtEq.mjEQ_JOINT, name1=joint, name2=coupling.follows, solref=SOLREF, solimp=SOLIMP
        )
        equality.objtype = mujoco.mjtObj.mjOBJ_JOINT
        equality.data[:2] = coupling.offset + coupling.ratio * start_motor - start, coupling.ratio


def _start(joint: "mujoco.MjsJoint") -> float:
    """Return the position of a joint where its body is as the model has it [rad]."""
    return float(np.deg2rad(joint.ref) if joint.compiler.degree else joint.ref)


SOLREF, SOLIMP = [0.004, 1.0], [0.99, 0.999, 0.001, 0.5, 2.0]
"""Stiffness of a coupling; MuJoCo raises the time constant to two timesteps."""


@cache
def _tell(text: str) -> None:
    log.info(text)


def _in_words(joint: str, coupling: Coupling, error_rad: float) -> str:
    offset = "" if abs(coupling.offset) < EXACT else f" {coupling.offset:+.4g}"
    line = f"{joint} = {coupling.ratio:.4g} {coupling.follows}{offset}"
    return line if error_rad < EXACT else f"{line} (within {error_rad:.2g} rad)"


def _driven_joints(spec: mujoco.MjSpec, joint_names: Sequence[str], file: Path) -> Counter[str]:
    """Return the number of actuators of each joint that has its own. Raises ValueError for those of other things."""
    joints, tendons = Counter[str](), [tendon.name for tendon in spec.tendons]
    missing = {joint.name for joint in spec.joints} - set(joint_names)
    for actuator in spec.actuators:
        if actuator.trntype == mujoco.mjtTrn.mjTRN_TENDON and actuator.target in tendons:
            continue
        if actuator.trntype == mujoco.mjtTrn.mjTRN_JOINT and actuator.target in missing:
            continue  # it has no row, which is said where the hand is compared with its model
        if actuator.trntype != mujoco.mjtTrn.mjTRN_JOINT or actuator.target not in joint_names:
            raise ValueError(
                f"{file}: actuator {shown(actuator.name)} drives {shown(actuator.target)}, which is no joint of "
                "hand.yaml; expected one actuator at most for each joint: remove it"
            )
        joints[actuator.target] += 1
    if twice := [name for name, count in joints.items() if count > 1]:
        raise ValueError(
            f"{file}: joint '{twice[0]}' has {joints[twice[0]]} actuators; expected one at most: remove the others"
        )
    return joints


def _check_motors(coupled: Mapping[str, Coupling], driven: Mapping[str, int], file: Path) -> None:
    if both := [joint for joint in coupled if driven.get(joint)]:
        raise ValueError(
            f"{file}: joint '{both[0]}' follows '{coupled[both[0]].follows}' and has an actuator of its own; expected "
            "one motor for both: remove the actuator or the coupling"
        )


class _Reader:
    """Reads the couplings of a compiled model."""

    def __init__(self, model: mujoco.MjModel, hand: HandFile, driven: Mapping[str, int], file: Path) -> None:
        self._model, self._hand, self._names, self._file = model, hand, list(hand.joints), file
        self._stated = hand.coupled
        self._driven = set(driven)
        self._found: Statements = {}
        self._pulled: set[str] = set()  # joints that a tendon with an actuator moves, but for those that follow

    def read(self) -> Statements:
        """Return what the model states of joints that hand.yaml does not couple itself."""
        model = self._model
        active = [i for i in range(model.neq) if model.eq_active0[i]]
        kinds = {
            int(mujoco.mjtEq.mjEQ_JOINT): self._read_joint_equality,
            int(mujoco.mjtEq.mjEQ_TENDON): self._read_tendon_equality,
        }
        loops = [i for i in active if int(model.eq_type[i]) not in kinds]
        for i in active:
            if read := kinds.get(int(model.eq_type[i])):
                read(i)
        self._read_actuated_tendons(loops)
        self._refuse_passive_tendons()
        return self._found

    def _read_joint_equality(self, i: int) -> None:
        model, data = self._model, self._model.eq_data[i]
        follower, leader = (None if k < 0 else model.joint(k) for k in (model.eq_obj1id[i], model.eq_obj2id[i]))
        if follower is None or follower.name not in self._names:
            return
        if leader is None:
            raise ValueError(
                f"{self._file}: equality {self._name(model.equality(i))} holds joint '{follower.name}' still; expected "
                "a joint that moves: state it in `frozen` of hand.yaml"
            )
        if leader.name not in self._names:
            return
        x = np.linspace(*self._range(leader), 101)
        y = np.polynomial.polynomial.polyval(x - float(model.qpos0[leader.qposadr[0]]), data[:5])
        self._add_line(follower.name, leader.name, x, y + float(model.qpos0[follower.qposadr[0]]))

    def _read_tendon_equality(self, i: int) -> None:
        model, (offset, slope, *rest) = self._model, self._model.eq_data[i][:5]
        tendons = [k for k in (model.eq_obj1id[i], model.eq_obj2id[i]) if k >= 0]
        name, shares = self._name(model.equality(i)), Counter[str]()
        parts = [self._fixed(k) for k in tendons]
        if any(part is None for part in parts) or any(rest):
            raise ValueError(
                f"{self._file}: equality {name} is no line between joints; expected fixed tendons and a polynomial of "
                "degree 1: state `coupled` in hand.yaml and remove it"
            )
        for part, factor in zip(parts, (1.0, -slope), strict=False):
            for joint, coefficient in (part or {}).items():
                shares[joint] += factor * coefficient  # pyright: ignore[reportArgumentType]
        joints = [joint for joint, share in shares.items() if abs(share) > 1e-9]
        if self._is_stated(joints):
            return
        if len(joints) != 2 or not set(joints) <= set(self._names):
            raise ValueError(
                f"{self._file}: equality {name} couples {len(joints)} joints ({comma_separated(joints)}); expected "
                "two: state `coupled` in hand.yaml"
            )
        leader, follower = sorted(joints, key=self._names.index)
        x = np.array(self._range(model.joint(leader)))
        start, start_leader = (float(model.qpos0[model.joint(joint).qposadr[0]]) for joint in (follower, leader))
        y = start + (offset - shares[leader] * (x - start_leader)) / shares[follower]
        self._add_line(follower, leader, x, y)

    def _read_actuated_tendons(self, loops: Sequence[int]) -> None:
        """Add the joints that an actuator moves together by its tendon; loops are closed by bodies."""
        model = self._model
        to_measure = []
        for i in range(model.nactuator):
            if model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_TENDON:
                continue
            fixed = self._fixed(int(model.actuator_trnid[i, 0]))
            if fixed is None:
                to_measure.append(i)
            elif not self._is_stated([*fixed]):
                self._share_out({joint: c for joint, c in fixed.items() if joint in self._names and c}, i)
        if to_measure or loops:
            self._measure(to_measure, bool(loops))

    def _share_out(self, coefficients: Mapping[str, float], actuator: int) -> None:
        """Add the couplings of a fixed tendon's joints: they move in proportion to their coefficients."""
        free = [joint for joint in coefficients if joint not in self._found and joint not in self._stated]
        motor = min(free, key=self._names.index)
        if self._driven & set(free):
            joint = min(self._driven & set(free))
            raise ValueError(
                f"{self._file}: joint '{joint}' has two motors: an actuator of its own and "
                f"'{self._model.actuator(actuator).name}' by a tendon; expected one: remove the other"
            )
        self._pulled.add(motor)
        for joint in free:
            if joint != motor:
                start, start_motor = (float(self._model.qpos0[self._model.joint(k).qposadr[0]]) for k in (joint, motor))
                ratio = coefficients[joint] / coefficients[motor]
                self._found[joint] = Coupling(motor, ratio, start - ratio * start_motor), 0.0

    def _measure(self, actuators: Sequence[int], has_loops: bool) -> None:
        """Add the couplings that a sweep of the actuators measures."""
        model = self._model
        every = [*actuators] if not has_loops else list(range(model.nactuator))
        if not every:
            raise ValueError(
                f"{self._file}: closed loops without an actuator; expected one that moves them: state `coupled` in "
                "hand.yaml and remove the loops"
            )
        for actuator in every:
            self._add_measured(sweep(model, actuator), actuator)

    def _add_measured(self, positions: Mapping[str, np.ndarray], actuator: int) -> None:
        spans = {}
        for joint, values in positions.items():
            lower, upper = self._range(self._model.joint(joint))
            if joint in self._names and joint not in self._found and joint not in self._stated:
                spans[joint] = np.ptp(values) / (upper - lower)
        moved = {joint: span for joint, span in spans.items() if span > LARGEST_ERROR}
        if not moved:
            return
        far = [joint for joint in moved if moved[joint] > 0.5 * max(moved.values())]
        own = [joint for joint in far if joint in self._own_joints(actuator)]
        motor = min(own or far, key=self._names.index)
        self._pulled.add(motor)
        for joint in moved:
            if joint == motor or joint in self._driven:
                continue
            place = f" of actuator {self._name(self._model.actuator(actuator))}"
            self._add_line(joint, motor, positions[motor], positions[joint], place)

    def _own_joints(self, actuator: int) -> list[str]:
        """Return the joints on which an actuator acts itself, or by a fixed tendon."""
        target = int(self._model.actuator_trnid[actuator, 0])
        if self._model.actuator_trntype[actuator] == mujoco.mjtTrn.mjTRN_TENDON:
            return [*(self._fixed(target) or {})]
        return [self._model.joint(target).name]

    def _add_line(self, follower: str, leader: str, x: np.ndarray, y: np.ndarray, place: str = "") -> None:
        """Add the line through positions x of the leader and y of the follower, with its error."""
        if follower in self._stated:
            return
        if self._motor(follower, self._lines_of_yaml()) == self._motor(leader, self._lines_of_yaml()):
            return
        if follower in self._driven and leader not in self._driven:
            follower, leader, x, y = leader, follower, y, x
        if follower in self._found or follower == leader:
            raise ValueError(
                f"{self._file}: joint '{follower}' follows itself or two joints; expected one other joint: remove the "
                "other coupling"
            )
        ratio, offset = (round(float(number), 9) + 0.0 for number in np.polyfit(x, y, 1))
        lower, upper = self._range(self._model.joint(follower))
        error = float(np.abs(ratio * x + offset - y).max())
        span = min(upper - lower, max(float(np.ptp(y)), 1e-9))
        if not error <= LARGEST_ERROR * span:
            raise ValueError(
                f"{self._file}: joint '{follower}' follows '{leader}'{place} along a curve that a line misses by "
                f"{error:.2g} rad, {error / span:.0%} of its motion; expected at most {LARGEST_ERROR:.0%}: state "
                "`coupled` in hand.yaml"
            )
        if abs(ratio) < LEAST_RATIO:
            raise ValueError(f"{self._file}: joint '{follower}' does not move with '{leader}': ratio {ratio:.2g}")
        try:
            self._found[follower] = Coupling(leader, ratio, offset), error
        except ValueError as wrong:
            raise ValueError(f"{self._file}: joint '{follower}' follows '{leader}': {wrong}") from wrong

    def _refuse_passive_tendons(self) -> None:
        """Raise ValueError for a tendon that moves a joint without a motor by a spring or a limit alone.

        Between joints that motors hold it is a load, and left out.
        """
        model, data = self._model, mujoco.MjData(self._model)
        mujoco.mj_forward(model, data)
        arms = np.zeros((model.ntendon, model.nv))
        if model.ntendon:
            mujoco.mju_sparse2dense(
                arms, data.ten_J.ravel(), model.ten_J_rownnz, model.ten_J_rowadr, model.ten_J_colind.ravel()
            )
        lines = {name: line for name, (line, _) in self._found.items()} | self._lines_of_yaml()
        for i in range(model.ntendon):
            moved = [model.joint(int(model.dof_jntid[dof])).name for dof in arms[i].nonzero()[0]]
            motors = {self._motor(joint, lines) for joint in moved}
            loose = sorted(motors - self._driven - self._pulled - set(self._stated))
            if len(motors) > 1 and loose and (model.tendon_stiffness[i] or model.tendon_limited[i]):
                raise ValueError(
                    f"{self._file}: tendon {self._name(model.tendon(i))} moves joint '{loose[0]}', which has no "
                    "actuator, by a spring or a limit, with slack; expected a line: state `coupled` in hand.yaml"
                )

    def _motor(self, joint: str, lines: Mapping[str, Coupling]) -> str:
        """Return the joint at the end of the chain of a joint, as far as `lines` say."""
        seen = {joint}
        while joint in lines and lines[joint].follows not in seen:
            joint = lines[joint].follows
            seen.add(joint)
        return joint

    def _lines_of_yaml(self) -> dict[str, Coupling]:
        return {name: line for name, line in self._stated.items() if line is not None}

    def _fixed(self, tendon: int) -> dict[str, float] | None:
        """Return the coefficients of a fixed tendon by joint; None for a spatial tendon."""
        model, first = self._model, int(self._model.tendon_adr[tendon])
        places = range(first, first + int(model.tendon_num[tendon]))
        if any(model.wrap_type[k] != mujoco.mjtWrap.mjWRAP_JOINT for k in places):
            return None
        return {model.joint(int(model.wrap_objid[k])).name: float(model.wrap_prm[k]) for k in places}

    def _is_stated(self, joints: Sequence[str]) -> bool:
        """Return whether hand.yaml or an equality leaves one of the joints at most to be coupled."""
        return len([j for j in joints if j in self._names and j not in self._stated and j not in self._found]) <= 1

    def _range(self, joint: "mujoco._structs._MjModelJointViews") -> tuple[float, float]:
        row = self._hand.joints.get(joint.name)
        if row is not None and row.range is not None:
            return row.range
        return tuple(map(float, joint.range)) if self._model.jnt_limited[joint.id] else FULL_TURN  # pyright: ignore

    def _name(self, element: "mujoco._structs._MjModelEqualityViews") -> str:
        return shown(element.name) if element.name else "without a name"
