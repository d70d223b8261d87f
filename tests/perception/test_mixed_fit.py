"""Fit of camera, board and intrinsics: corrections by hand, exact data, covariance and likelihood in full matrices."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import minimize

from dexgrasp.perception.calibration.mixed_fit import (
    BOARD,
    INTRINSICS,
    START_LOG_SD,
    BoardViews,
    MixedModel,
    correct_rays,
    small_motion,
)

CAM = small_motion(np.array([2.0, 0.3, -0.5, 0.62, -0.11, 0.55]))
MOUNT = small_motion(np.array([0.3, -1.1, 0.2, -0.1, 0.02, 0.09]))
FLAT = np.array([[x, y, 0.0] for y in (0.0, 0.04, 0.08, 0.12) for x in (0.0, 0.04, 0.08, 0.12, 0.16)])


def views_of(count, board=FLAT, c=None, seed=0, noise=0.0, turn_rad=0.0, shift_m=0.0):
    """Corners of a board that lies as FLAT is described but is as `board` says, seen through wrong intrinsics `c`."""
    rng = np.random.default_rng(seed)
    rays, carriers = [], []
    for _ in range(count):
        T = small_motion(np.r_[rng.uniform(-0.6, 0.6, 3), rng.uniform((-0.1, -0.1, 0.4), (0.1, 0.1, 0.7))])
        T[:3, 3] -= T[:3, :3] @ FLAT.mean(0)
        points = board @ T[:3, :3].T + T[:3, 3]
        rays.append(correct_rays(points[:, :2] / points[:, 2:], c or {}) + rng.normal(0, noise, (len(FLAT), 2)))
        error = np.r_[rng.normal(0, turn_rad, 3), rng.normal(0, shift_m, 3)]
        carriers.append(CAM @ T @ np.linalg.inv(MOUNT) @ small_motion(-error))
    return BoardViews(
        view=np.repeat(np.arange(count), len(FLAT)),
        corners_m=np.tile(FLAT, (count, 1)),
        rays=np.concatenate(rays),
        carriers=np.stack(carriers),
    )


def model_of(views, mount_free=True, **prior_sd):
    return MixedModel(views, CAM, MOUNT, mount_free, prior_sd)


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        # ray (0.2, -0.1): r^2 = 0.05
        ("k1", (0.01, -0.005)),  # (0.2, -0.1) r^2
        ("k2", (0.0005, -0.00025)),  # (0.2, -0.1) r^4
        ("p1", (-0.04, 0.07)),  # 2 x y, r^2 + 2 y^2
        ("p2", (0.13, -0.04)),  # r^2 + 2 x^2, 2 x y
        ("focal", (0.2, -0.1)),
        ("aspect", (0.2, 0.1)),
        ("centre_x", (1.0, 0.0)),
        ("centre_y", (0.0, 1.0)),
    ],
)
def test_each_correction_of_a_ray_worked_by_hand(name, moves):
    ray = np.array([0.2, -0.1])
    for size in (1.0, -0.5):
        np.testing.assert_allclose(correct_rays(ray, {name: size}) - ray, size * np.array(moves), atol=1e-15)
    np.testing.assert_array_equal(correct_rays(np.array([[0.2, -0.1]]), {}), [ray])


def test_a_small_motion_is_the_exponential_of_its_rotation_and_then_its_shift():
    change = np.array([0.3, -0.2, 0.9, 1.0, 2.0, 3.0])
    a, b, c = change[:3]
    np.testing.assert_allclose(small_motion(change)[:3, :3], expm([[0, -c, b], [c, 0, -a], [-b, a, 0]]), atol=1e-14)
    np.testing.assert_array_equal(small_motion(change)[:, 3], [1, 2, 3, 1])


def test_exact_data_give_the_true_corrections_of_lens_and_board():
    true = {"focal": 0.02, "aspect": -0.003, "centre_x": 0.01, "centre_y": -0.008, "k1": 0.05, "k2": -0.04}
    true |= {"p1": 0.001, "p2": -0.002, "scale": 0.01, "stretch": 0.002}
    bent = {"bend_xx": 0.002, "bend_xy": -0.001, "bend_yy": 0.0015}
    x, y = ((FLAT - FLAT.mean(0))[:, :2] / 0.08).T  # half of the longer side, 0.16 m
    board = FLAT * (1.012, 1.008, 1.0)
    board[:, 2] = 0.002 * x * x - 0.001 * x * y + 0.0015 * y * y
    views = views_of(12, board, true)
    exact = np.array([-10.0, -17.0, -17.0])
    fit = model_of(views, **dict.fromkeys((*INTRINSICS, *BOARD), 100.0)).fit(exact)
    assert fit.corrections == pytest.approx(true | bent, abs=2e-6)
    np.testing.assert_allclose(fit.T_world_cam, CAM, atol=1e-6)
    np.testing.assert_allclose(fit.T_carrier_board, MOUNT, atol=1e-6)
    assert np.abs(fit.residuals).max() < 1e-8 and np.abs(fit.view_errors).max() < 1e-5
    np.testing.assert_array_equal(fit.log_sd, exact)
    assert fit.degrees_of_freedom == 6 * 12 - 12
    assert fit.covariance.shape == (13, 13) and fit.pose_covariance.shape == (6, 6)


def derivative(function, size, step=1e-5):
    return np.stack([(function(step * e) - function(-step * e)) / (2 * step) for e in np.eye(size)], -1)


@pytest.mark.parametrize("mount_free", [True, False])
def test_covariance_likelihood_and_step_are_those_of_the_full_matrices(mount_free):
    views, sd = views_of(4, noise=3e-4, turn_rad=2e-3, shift_m=1e-3), np.array([3e-4, 2e-3, 1e-3])
    prior = {"focal": 0.01, "k1": 0.03, "bend_xy": 0.001}
    model, n = model_of(views, mount_free, **prior), (12 if mount_free else 6) + 3
    rows = len(FLAT)

    def predicted(theta, error=None):
        cam, mount = CAM @ small_motion(theta[:6]), MOUNT @ small_motion(theta[6:12]) if mount_free else MOUNT
        focal, k1, bend = theta[-3:]
        board = FLAT.copy()
        x, y = ((FLAT - FLAT.mean(0))[:, :2] / 0.08).T
        board[:, 2] = bend * x * y
        found = []
        for T in views.carriers:
            chain = np.linalg.inv(cam) @ T @ small_motion(np.zeros(6) if error is None else error) @ mount
            points = board @ chain[:3, :3].T + chain[:3, 3]
            found.append(correct_rays(points[:, :2] / points[:, 2:], {"focal": focal, "k1": k1}))
        return np.concatenate(found).reshape(-1)

    theta = np.zeros(n)
    theta[-3:] = 0.004, -0.02, 0.0005
    r = predicted(theta) - views.rays.reshape(-1)
    J, B = derivative(lambda d: predicted(theta + d), n), derivative(lambda d: predicted(theta, d), 6)
    precision = np.diag(np.r_[np.zeros(n - 3), 1 / np.array([0.01, 0.03, 0.001]) ** 2])

    def full(sd):
        V = sd[0] ** 2 * np.eye(len(r))
        for k in range(4):
            at = slice(2 * rows * k, 2 * rows * (k + 1))
            V[at, at] += B[at] @ np.diag(np.repeat(sd[1:] ** 2, 3)) @ B[at].T
        weighed = np.linalg.solve(V, np.c_[J, r])
        H, g = J.T @ weighed[:, :-1] + precision, J.T @ weighed[:, -1] + precision @ theta
        return H, g, r @ weighed[:, -1] + theta @ precision @ theta + np.linalg.slogdet(V)[1]

    def cost(log_sd):  # restricted likelihood; the errors of robots are usually 5e-4 rad and 3e-4 m, times or by e
        H, g, likelihood = full(np.exp(log_sd))
        prior = (log_sd[1] - np.log(5e-4)) ** 2 + (log_sd[2] - np.log(3e-4)) ** 2
        return likelihood - g @ np.linalg.solve(H, g) + np.linalg.slogdet(H)[1] + prior

    H, g, likelihood = full(sd)
    grams = model._grams(*model._linearize(theta))
    step, covariance = model._step(grams, theta, np.log(sd))
    np.testing.assert_allclose(covariance, np.linalg.inv(H), rtol=2e-3, atol=1e-3 * np.linalg.inv(H).diagonal().min())
    scale = np.sqrt(np.linalg.inv(H).diagonal())
    np.testing.assert_allclose(step / scale, -np.linalg.solve(H, g) / scale, atol=1e-3)
    assert model._normal(grams, theta, np.log(sd))[2] == pytest.approx(likelihood, rel=1e-5)
    best = minimize(cost, np.log(sd), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3}).x
    np.testing.assert_allclose(model._variances(grams, theta, START_LOG_SD), best, atol=0.03)


def test_no_corner_is_taken_for_better_than_one_can_be_found():
    assert model_of(views_of(6)).fit().log_sd[0] == -10.5
    assert model_of(views_of(2), mount_free=False).fit().log_sd.tolist() == [-10.5, -18.0, -18.0]


def test_variances_are_found_from_many_views():
    true = np.array([2e-4, 3e-3, 1.5e-3])
    fit = model_of(views_of(40, seed=2, noise=true[0], turn_rad=true[1], shift_m=true[2])).fit()
    # 40 * 40 corner values, 120 values of each carrier error less those of the poses: 2 % and 7 %, three times
    np.testing.assert_allclose(np.exp(fit.log_sd) / true, 1.0, atol=0.22)
    assert np.exp(fit.log_sd[0]) / true[0] == pytest.approx(1.0, abs=0.06)


def test_images_of_one_place_count_once():
    once = views_of(5, noise=2e-4, turn_rad=1e-3, shift_m=1e-3)
    rows, count = len(FLAT), 5
    thrice = BoardViews(
        view=np.r_[once.view, once.view[:rows] + count, once.view[:rows] + count + 1],
        corners_m=np.r_[once.corners_m, FLAT, FLAT],
        rays=np.r_[once.rays, once.rays[:rows], once.rays[:rows]],
        carriers=np.r_[once.carriers, once.carriers[:1], once.carriers[:1] + 1e-12],
    )
    one, three = (model_of(views, focal=0.01).fit(START_LOG_SD) for views in (once, thrice))
    np.testing.assert_allclose(three.T_world_cam, one.T_world_cam, atol=1e-9)
    np.testing.assert_allclose(three.pose_covariance, one.pose_covariance, rtol=1e-4, atol=1e-12)
    assert three.degrees_of_freedom == one.degrees_of_freedom == 6 * 5 - 12
    assert three.view_errors.shape == (7, 6)


@pytest.mark.parametrize(
    ("places", "mount_free", "freedom"),
    [(2, False, 2 * 2 * 20 - 7), (3, True, 3 * 6 - 12), (3, False, 3 * 6 - 6)],
)
def test_errors_of_carriers_are_taken_for_none_where_there_are_too_few(places, mount_free, freedom):
    fit = model_of(views_of(places, noise=2e-4), mount_free, focal=0.01).fit()
    assert fit.degrees_of_freedom == freedom
    if places < 3:
        np.testing.assert_array_equal(fit.log_sd[1:], [-18.0, -18.0])
        assert np.exp(fit.log_sd[0]) == pytest.approx(2e-4, rel=0.35)


def test_few_corners_of_one_view_count_as_four_degrees_of_freedom_at_least():
    views = views_of(1, noise=2e-4)
    at = [0, 4, 15, 19]
    few = BoardViews(view=views.view[at], corners_m=FLAT[at], rays=views.rays[at], carriers=views.carriers)
    assert model_of(few, mount_free=False).fit(START_LOG_SD).degrees_of_freedom == 4.0


def test_a_robust_fit_shows_the_carrier_pose_that_is_wrong():
    views = views_of(10)
    wrong = np.array([0.0, 0.02, 0.0, 0.01, 0.0, -0.005])
    views.carriers[4] = views.carriers[4] @ small_motion(-wrong)
    found = model_of(views, focal=0.01).robust_view_errors()
    np.testing.assert_allclose(found[4], wrong, atol=3e-3)
    assert np.abs(np.delete(found, 4, axis=0)).max() < 3e-3


def test_one_view_that_does_not_determine_the_poses_is_an_error():
    views = views_of(1)
    few = BoardViews(view=views.view[:2], corners_m=FLAT[:2], rays=views.rays[:2], carriers=views.carriers)
    with pytest.raises(np.linalg.LinAlgError):
        model_of(few).fit(START_LOG_SD)


def test_what_no_corner_tells_keeps_the_errors_that_are_usual():
    """Beside a focal length known to 1 %: centre 1 %, lens k1 0.03, k2 0.05, p 0.001, square 0.5 %, edges 0.3 mm."""
    stated = {name: 0.01 * factor for name, factor in (INTRINSICS | BOARD).items()}
    blind = np.array([0.0, -18.0, -18.0])  # corners are off by as much as they are deep
    fit = model_of(views_of(2), mount_free=False, **stated).fit(blind)
    usual = {"focal": 0.01, "aspect": 0.002, "centre_x": 0.01, "centre_y": 0.01, "k1": 0.03, "k2": 0.05}
    usual |= {"p1": 0.001, "p2": 0.001, "scale": 0.005, "stretch": 0.001}
    usual |= dict.fromkeys(("bend_xx", "bend_xy", "bend_yy"), 0.0003)
    found = dict(zip(fit.corrections, np.sqrt(fit.covariance.diagonal()), strict=True))
    assert found == pytest.approx(usual, rel=0.05)
