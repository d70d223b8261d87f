"""System identification: known parameters of the simulated hand come back from a noisy log."""

from dataclasses import asdict, replace

import mujoco
import numpy as np
import pytest
import yaml

from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp_ros.identification.excitation import ExcitationCfg, excite
from dexgrasp_ros.identification.fit import JointLog, JointParameters, Servo, fit_joint
from dexgrasp_ros.identification.hand_model import load_hand
from dexgrasp_ros.identification.log import HandLog, IdentificationSequence
from dexgrasp_ros.identification.report import parameters, plot_fits, table, warnings, write_parameters

SHORT = ExcitationCfg(step_s=0.3, chirp_s=1.5)
NOISE_RAD = 1e-3
STEP_S = 0.002


@pytest.fixture(scope="module")
def hand():
    return load_hand("allegro", SHORT)


def simulate(allegro, hand, truth, trajectory, seed=0):
    """The log of the whole simulated hand under `trajectory`, with its servos as in `truth`, read with noise."""
    spec = allegro.to_mjspec()
    for name, p in zip(allegro.joint_names, truth, strict=True):
        joint, servo = spec.joint(name), spec.actuator(name)
        joint.damping[0], joint.frictionloss = p.damping, p.friction_loss
        servo.set_to_position(kp=p.kp, kv=p.kd)
        servo.forcerange = [-p.effort_limit, p.effort_limit]
    spec.option.timestep, spec.option.integrator = STEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model = spec.compile()
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    qpos = [int(model.joint(name).qposadr[0]) for name in allegro.joint_names]
    ctrl = [int(model.actuator(name).id) for name in allegro.joint_names]
    data.qpos[qpos] = hand.rest
    delay, sent = round(truth[0].delay_s / STEP_S), []
    tick = round(1 / SHORT.rate_hz / STEP_S)
    while not trajectory.done:
        k = len(sent)
        if k % tick == 0:
            joints = data.qpos[qpos] + rng.normal(0, NOISE_RAD, 16) + truth[0].bias_rad
            trajectory.add_reading(joints, k * STEP_S)
            target = trajectory.step(joints, k * STEP_S).copy()
        sent.append(target)
        data.ctrl[ctrl] = sent[max(0, k - delay)]
        mujoco.mj_step(model, data)
    return trajectory.log(hand.name, hand.motors.names, hand.inertia)


def drawn(hand, seed):
    """Servos that differ from their description by up to 40 %; the delay is one for all, in steps of the simulation."""
    rng = np.random.default_rng(seed)
    delay_s, bias_rad = STEP_S * rng.integers(3, 15), 0.01
    factors = {name: rng.uniform(0.7, 1.4, 16) for name in ("kp", "kd", "damping", "effort_limit")}
    guess = [{name: getattr(p, name) * f[i] for name, f in factors.items()} for i, p in enumerate(hand.guess)]
    return [
        JointParameters(**row, friction_loss=rng.uniform(0.01, 0.04), delay_s=delay_s, bias_rad=bias_rad)
        for row in guess
    ]


def found_again(hand, allegro, joints, seed):
    truth = drawn(hand, seed)
    trajectory = IdentificationSequence(hand.rest, hand.free_lower, hand.free_upper, joints, SHORT, 0.5)
    log = simulate(allegro, hand, truth, trajectory, seed)
    fits = [fit_joint(one, hand.guess[i]) for i, one in zip(joints, log.joints(), strict=True)]
    for i, fit in zip(joints, fits, strict=True):
        true, found = truth[i], fit.parameters
        assert found.kp == pytest.approx(true.kp, rel=0.1)
        assert fit.total_damping == pytest.approx(true.kd + true.damping, rel=0.1)
        assert found.friction_loss == pytest.approx(true.friction_loss, rel=0.1)
        assert found.effort_limit == pytest.approx(true.effort_limit, rel=0.1), fit.unidentified
        assert found.delay_s == pytest.approx(true.delay_s, rel=0.1)
        assert fit.rms_rad == pytest.approx(NOISE_RAD, rel=0.3)
        assert "effort_limit" not in fit.unidentified
    return log, fits


def test_known_parameters_come_back(hand, allegro, tmp_path):
    log, fits = found_again(hand, allegro, [2], seed=0)
    log.save(tmp_path / "log.npz")
    read = HandLog.load(tmp_path / "log.npz")
    assert read.joint_names == tuple(hand.motors.names)
    np.testing.assert_array_equal(read.joints()[0].position, log.joints()[0].position)
    write_parameters(tmp_path / "identified.yaml", log.hand, fits, 20.0)
    written = yaml.safe_load((tmp_path / "identified.yaml").read_text())
    assert written == parameters(log.hand, fits, 20.0)
    assert written["joints"]["ffj2"]["kp"] == pytest.approx(fits[0].parameters.kp, rel=1e-3)
    ranges = {k: tuple(v) if isinstance(v, list) else v for k, v in written["randomization"].items()}
    domain = RandomizationCfg(**ranges)
    assert (domain.action_delay, domain.late_action_probability) == (
        0,
        1.0,
    )  # one period of 50 ms holds the whole delay
    assert domain.joint_noise_rad == pytest.approx(3**0.5 * NOISE_RAD, rel=0.3)
    plot_fits(tmp_path / "identified.png", log.joints(), fits)
    assert (tmp_path / "identified.png").stat().st_size > 10_000
    assert "ffj2" in table(fits)
    assert warnings(fits) == []
    assert "ffj2: measured and fitted positions differ by 20.0 mrad" in warnings([replace(fits[0], rms_rad=0.02)])[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_known_parameters_of_every_kind_of_joint_come_back(hand, allegro, seed):
    found_again(hand, allegro, [0, 1, 3, 12, 13, 14, 15], seed)


def test_an_effort_limit_that_was_never_reached_is_said_to_be_unknown(hand):
    strong = replace(hand.guess[2], effort_limit=20.0, friction_loss=0.02, delay_s=0.012)
    targets = excite(hand.rest[2], hand.free_lower[2], hand.free_upper[2], SHORT)
    time_s = np.arange(len(targets)) / SHORT.rate_hz
    grid_s = np.arange(0, time_s[-1], STEP_S)
    held = targets[np.minimum((grid_s * SHORT.rate_hz + 1e-9).astype(int), len(targets) - 1)]
    response = Servo(hand.inertia[2]).respond(strong, held)
    read = np.interp(time_s - strong.delay_s, grid_s + STEP_S, response)
    noise = np.random.default_rng(0).normal(0, NOISE_RAD, len(read))
    log = JointLog("ffj2", time_s, targets, time_s, read + noise, float(hand.inertia[2]))
    fit = fit_joint(log, replace(hand.guess[2], effort_limit=15.0))
    assert "effort_limit" in fit.unidentified
    assert fit.parameters.kp == pytest.approx(strong.kp, rel=0.1)
    written = parameters("allegro", [fit], 20.0)
    assert written["randomization"]["effort_scale"] == [0.7, 1.2]
    assert written["measured"]["ffj2"]["unknown"] == fit.unidentified


def test_a_servo_that_follows_a_ramp_lags_by_what_damping_and_friction_ask_for():
    p = JointParameters(kp=3.0, kd=0.1, damping=0.05, friction_loss=0.03, effort_limit=0.7)
    ramp = 0.4 * STEP_S * np.arange(1001)
    lag = ramp[-1] - Servo(0.002).respond(p, ramp[:-1])[-1]
    assert lag == pytest.approx((0.15 * 0.4 + 0.03) / 3.0, rel=0.01)  # one rad/s costs 0.15 N m, friction 0.03


def test_a_servo_at_its_effort_limit_gathers_speed_at_the_rate_of_its_inertia():
    p = JointParameters(kp=100.0, kd=1e-4, damping=1e-4, friction_loss=1e-4, effort_limit=0.5)
    response = Servo(0.01).respond(p, np.concatenate([[0.0], np.ones(50)]))
    assert response[-1] == pytest.approx(0.5 * 50.0 * (50 * STEP_S) ** 2, rel=0.03)  # 0.5 N m on 0.01 kg m2, 0.1 s


def test_targets_stay_within_the_range_and_jump_no_further_than_allowed():
    cfg = ExcitationCfg(jump_rad=0.3)
    targets = excite(0.1, -0.2, 0.9, cfg)
    assert targets.min() >= -0.2 + cfg.margin_rad - 1e-12
    assert targets.max() <= 0.1 + cfg.reach_rad + 1e-12
    assert np.abs(np.diff(targets)).max() <= 0.3 + 1e-12
    assert targets[0] == targets[-1] == 0.1
    with pytest.raises(ValueError, match=r"rest pose 0\.100 rad is not within"):
        excite(0.1, 0.1, 0.9, cfg)


def test_no_joint_of_a_hand_touches_another_one_within_its_free_range(hand, allegro):
    model = allegro.to_mjspec().compile()
    data = mujoco.MjData(model)
    qpos = [int(model.joint(name).qposadr[0]) for name in allegro.joint_names]
    for i in range(16):
        for end in (hand.free_lower[i], hand.free_upper[i]):
            data.qpos[qpos] = hand.rest
            data.qpos[qpos[i]] = end
            mujoco.mj_forward(model, data)
            assert data.ncon == 0
            assert hand.lower[i] <= end <= hand.upper[i]


def test_a_joint_that_strays_ends_the_course(hand):
    trajectory = IdentificationSequence(hand.rest, hand.free_lower, hand.free_upper, [2], SHORT, 0.5)
    trajectory.step(hand.rest, 0.0)
    trajectory.step(hand.rest, 0.01)
    astray = hand.rest.copy()
    astray[5] += 0.5
    with pytest.raises(ValueError, match=r"joint 5 is 0\.50 rad from its rest position"):
        trajectory.step(astray, 0.02)


def test_the_course_goes_to_the_rest_pose_slowly_and_moves_one_joint_alone(hand):
    trajectory = IdentificationSequence(hand.rest, hand.free_lower, hand.free_upper, [2], SHORT, 0.5)
    joints = hand.rest + 0.02
    sent = [trajectory.step(joints, 0.01 * k).copy() for k in range(60)]
    assert np.abs(np.diff(sent, axis=0))[:4].max() <= 0.5 / SHORT.rate_hz + 1e-12
    np.testing.assert_allclose(sent[10], hand.rest)
    moved = np.flatnonzero(np.ptp(sent[10:], axis=0) > 0)
    assert moved.tolist() in ([], [2])


def test_what_is_no_log_is_said(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="is not the log of an identification"):
        HandLog.load(tmp_path / "other.npz")
    assert asdict(JointParameters(1, 2, 3, 4, 5))["delay_s"] == 0.0
