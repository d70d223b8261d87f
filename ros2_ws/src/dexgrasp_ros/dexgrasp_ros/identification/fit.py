"""Fits servo parameters of a joint to a log of targets and positions, by simulation in MuJoCo.

Model: a hinge with the inertia of the hand model in the rest pose, driven by a position servo with an effort limit. The
response is simulated without delay and read `delay_s` later, which keeps it smooth in the parameters. Least squares
with weak priors; parameters that the log does not identify stay at the first guess and are reported.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]
STEP_S = 0.002
"""Time step of the simulation [s]."""
NAMES = ("kp", "kd", "damping", "friction_loss", "effort_limit", "delay_s", "bias_rad")
STEPS = np.array([0.02, 0.02, 0.02, 0.02, 0.02, 5e-4, 1e-4])
"""Steps of the finite differences: logarithms of the first five parameters, then seconds and radians."""
PRIOR_SD = np.array([1.0, 1.0, 1.0, 1.5, 0.7, 0.05, 0.05])
"""Standard deviations of the priors, in the units of STEPS."""
MAX_DELAY_S = 0.2
"""Upper bound of the fitted delay [s]."""
MIN_PARAMETER = 1e-4
"""Lower bound of the parameters that are fitted as logarithms [SI units]."""
MIN_NOISE_RAD = 5e-4
"""Smallest assumed noise of positions, because the model is not exact [rad]."""
IDENTIFIED_SD = 0.15
"""Relative standard deviation below which a parameter is identified; that of the delay in units of 20 ms."""
GOOD_FIT_RATIO = 2.0
"""Ratio of residuals to noise below which no further start values are tried."""
POOR_FIT_RATIO, POOR_FIT_RAD = 3.0, 0.003
"""A fit is poor if its residuals exceed this multiple of the noise and this value [rad]."""
STARTS = ((1.0, 1.0), (0.3, 0.6), (3.0, 1.5))
"""Start values, as factors on gain and effort limit of the first guess."""
MIN_SATURATED_S = 0.02
"""Time that the servo must saturate for its effort limit to be identified [s]."""


@dataclass(frozen=True)
class JointParameters:
    """Servo parameters of a joint."""

    kp: float
    """Position gain [N m/rad]."""
    kd: float
    """Velocity gain of the servo, within its effort limit [N m s/rad]."""
    damping: float
    """Damping of the joint itself [N m s/rad]."""
    friction_loss: float
    """Dry friction [N m]."""
    effort_limit: float
    """Largest torque [N m]."""
    delay_s: float = 0.0
    """Delay from a sent target to the reading of its effect, without the servo response [s]."""
    bias_rad: float = 0.0
    """Reading of the joint at 0, from homing and gravity [rad]."""


@dataclass(frozen=True)
class JointLog:
    """Log of the test of one joint."""

    name: str
    target_time_s: Array
    """(target,) send times [s]."""
    target: Array
    """(target,) targets, each valid until the next [rad]."""
    time_s: Array
    """(reading,) stamps, on the clock of `target_time_s` [s]."""
    position: Array
    """(reading,) measured positions [rad]."""
    inertia: float
    """Inertia about the joint, with the rotor [kg m2]."""


@dataclass(frozen=True)
class JointFit:
    """Result of the fit of a joint."""

    name: str
    parameters: JointParameters
    relative_sd: dict[str, float]
    """Relative standard deviation per parameter; of delay and bias absolute, in seconds and radians."""
    rms_rad: float
    """RMS of measured against fitted positions [rad]."""
    noise_rad: float
    """Noise of positions at rest [rad]."""
    fitted: Array = field(repr=False)
    """(reading,) fitted positions [rad]."""

    @property
    def unidentified(self) -> list[str]:
        """Names of the parameters that the log does not identify."""
        limits = {"delay_s": IDENTIFIED_SD * 0.02, "bias_rad": np.inf}
        return [name for name, sd in self.relative_sd.items() if sd > limits.get(name, IDENTIFIED_SD)]

    @property
    def poor(self) -> bool:
        """Whether the model does not explain the log: contacts, or delayed clocks and computers."""
        return self.rms_rad > max(POOR_FIT_RATIO * self.noise_rad, POOR_FIT_RAD)

    @property
    def total_damping(self) -> float:
        """Damping of servo and joint together, effective below the effort limit [N m s/rad]."""
        return self.parameters.kd + self.parameters.damping


class Servo:
    """MuJoCo model of a hinge with a position servo."""

    def __init__(self, inertia: float) -> None:
        spec = mujoco.MjSpec()
        spec.option.timestep, spec.option.integrator = STEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.gravity = [0.0, 0.0, 0.0]
        body = spec.worldbody.add_body(mass=1e-6, inertia=[1e-12] * 3)
        body.explicitinertial = True
        body.add_joint(name="joint", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], armature=inertia)
        servo = spec.add_actuator(name="servo", target="joint", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=1.0, kv=1.0)
        servo.forcerange, servo.forcelimited = [-1.0, 1.0], mujoco.mjtLimited.mjLIMITED_TRUE
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._size = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_FULLPHYSICS)

    def respond(self, parameters: JointParameters, targets: Array) -> Array:
        """Return positions (step,) after each step, from rest at the first of the targets (step,) [rad]."""
        return self._simulate(parameters, targets)[:, 1]

    def saturated_s(self, parameters: JointParameters, targets: Array) -> float:
        """Return how long the servo demands more than its effort limit [s]."""
        states = self._simulate(parameters, targets)
        demand = parameters.kp * (targets[1:] - states[:-1, 1]) - parameters.kd * states[:-1, 2]
        return float((np.abs(demand) > parameters.effort_limit).sum() * STEP_S)

    def _simulate(self, parameters: JointParameters, targets: Array) -> Array:
        """Return states (step, 3): time, position, velocity."""
        model = self._model
        model.dof_damping[0], model.dof_frictionloss[0] = parameters.damping, parameters.friction_loss
        model.actuator_gainprm[0, 0] = parameters.kp
        model.actuator_biasprm[0, 1:3] = -parameters.kp, -parameters.kd
        model.actuator_forcerange[0] = -parameters.effort_limit, parameters.effort_limit
        start = np.zeros((1, self._size))
        start[0, 1] = targets[0]
        states, _ = rollout.rollout(model, self._data, start, targets[None, :, None])
        return states[0]


def fit_joint(log: JointLog, guess: JointParameters) -> JointFit:
    """Fit the parameters of a joint to its log, starting from a guess."""
    problem = _Problem(log, guess)
    best = None
    for gain, effort in STARTS:
        other = replace(guess, kp=guess.kp * gain, effort_limit=guess.effort_limit * effort)
        start = problem.with_best_delay(problem.vector(other))
        jacobian: Any = problem.jacobian  # the annotations of scipy allow method names only
        found = least_squares(
            problem.residuals, start, jacobian, problem.bounds, loss="soft_l1", x_scale=PRIOR_SD, ftol=1e-6, max_nfev=40
        )
        best = found if best is None or found.cost < best.cost else best
        if problem.rms(best.x) < GOOD_FIT_RATIO * problem.noise_rad:
            break
    assert best is not None
    return problem.result(best.x)


class _Problem:
    """Least-squares problem of one joint; vector: logarithms of the first five parameters, delay, bias."""

    def __init__(self, log: JointLog, guess: JointParameters) -> None:
        self._log, self._servo = log, Servo(log.inertia)
        end_s = max(log.time_s[-1], log.target_time_s[-1]) + STEP_S
        self._grid_s = np.arange(log.target_time_s[0], end_s, STEP_S)
        sent = np.searchsorted(log.target_time_s, self._grid_s + STEP_S / 2, side="right") - 1
        self._targets = log.target[np.maximum(sent, 0)]
        first_move = log.target_time_s[np.flatnonzero(log.target != log.target[0])[0]]
        resting = log.position[log.time_s < first_move]
        if len(resting) < 10:
            raise ValueError(f"{log.name}: {len(resting)} readings before the joint moves, at least 10 are needed")
        self.noise_rad = float(max(resting.std(), MIN_NOISE_RAD))
        self._prior = self.vector(guess)
        self._prior[6] = np.median(resting) - log.target[0]
        low, high = self._prior - 4 * PRIOR_SD, self._prior + 4 * PRIOR_SD
        low[5], high[5] = 0.0, MAX_DELAY_S
        self.bounds = low, high

    def vector(self, parameters: JointParameters) -> Array:
        """Return the vector of parameters."""
        values = np.array([getattr(parameters, name) for name in NAMES])
        return np.concatenate([np.log(np.maximum(values[:5], MIN_PARAMETER)), values[5:]])

    def parameters(self, x: Array) -> JointParameters:
        """Return the parameters of a vector."""
        return JointParameters(**dict(zip(NAMES, map(float, [*np.exp(x[:5]), *x[5:]]), strict=True)))

    def with_best_delay(self, x: Array) -> Array:
        """Set the delay of a vector to the best value of a grid, and return the vector."""
        response = self._servo.respond(self.parameters(x), self._targets)
        x[6] = self._prior[6]
        delays = np.arange(0.0, MAX_DELAY_S, 0.002)
        errors = [np.square(self._read(response, delay) + x[6] - self._log.position).sum() for delay in delays]
        x[5] = np.clip(delays[int(np.argmin(errors))], 1e-4, MAX_DELAY_S - 1e-4)
        return x

    def residuals(self, x: Array) -> Array:
        """Return the residuals of positions and priors, each divided by its standard deviation."""
        return np.concatenate([(self.positions(x) - self._log.position) / self.noise_rad, self._priors(x)])

    def positions(self, x: Array) -> Array:
        """Return the fitted positions (reading,) [rad]."""
        return self._read(self._servo.respond(self.parameters(x), self._targets), x[5]) + x[6]

    def jacobian(self, x: Array) -> Array:
        """Return the Jacobian of the residuals by finite differences."""
        here, columns = self.positions(x), []
        for i, step in enumerate(STEPS):
            ahead = x.copy()
            ahead[i] += step
            columns.append((self.positions(ahead) - here) / (step * self.noise_rad))
        return np.concatenate([np.stack(columns, axis=1), np.diag(1.0 / PRIOR_SD)])

    def rms(self, x: Array) -> float:
        """Return the RMS of measured against fitted positions [rad]."""
        return float(np.sqrt(np.mean(np.square(self.positions(x) - self._log.position))))

    def result(self, x: Array) -> JointFit:
        """Return the fit of a vector, with standard deviations from the Jacobian."""
        inflation = max(1.0, self.rms(x) / self.noise_rad)
        slope = self.jacobian(x)[: len(self._log.position)] / inflation
        spread = np.sqrt(np.diag(np.linalg.inv(slope.T @ slope + np.diag(PRIOR_SD**-2.0))))
        sd: dict[str, float] = {name: float(value) for name, value in zip(NAMES, spread, strict=True)}
        if self._servo.saturated_s(self.parameters(x), self._targets) < MIN_SATURATED_S:
            sd["effort_limit"] = np.inf
        return JointFit(
            name=self._log.name,
            parameters=self.parameters(x),
            relative_sd=sd,
            rms_rad=self.rms(x),
            noise_rad=self.noise_rad,
            fitted=self.positions(x),
        )

    def _priors(self, x: Array) -> Array:
        return (x - self._prior) / PRIOR_SD

    def _read(self, response: Array, delay_s: float) -> Array:
        """Return the response (step,), given at the ends of the steps, as read `delay_s` later (reading,)."""
        ends_s = self._grid_s + STEP_S
        return np.interp(self._log.time_s - delay_s, ends_s, response)
