"""Lens models over random cameras, against OpenCV and the RealSense SDK; lenses without an inverse are refused."""

import cv2
import numpy as np
import pyrealsense2 as rs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dexgrasp.perception.cameras.depth import Intrinsics
from dexgrasp.perception.cameras.lens import LENGTHS, LensError

SPREAD = (0.4, 0.3, 0.01, 0.01, 0.1, 0.3, 0.2, 0.05, 0.005, 0.005, 0.005, 0.005, 0.03, 0.03)
"""Magnitude of the coefficients of Brown, in the order of OpenCV; those of real lenses are mostly smaller."""
MODELS = [(model, count) for model, counts in LENGTHS.items() for count in counts if model != "none"]
SDK_NAMES = {"equidistant": "kannala_brandt4"}
COUNT = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def values(draw, model, count):
    """Arguments of a random camera."""
    width, height = draw(st.integers(64, 1920)), draw(st.integers(48, 1200))
    f = draw(st.floats(0.35, 2.0)) * width
    spread = {"equidistant": (0.1, 0.05, 0.02, 0.01, 0.0), "ftheta": (1.0, 0.0, 0.0, 0.0, 0.0)}.get(model, SPREAD)
    coeffs = [draw(st.floats(-size, size)) for size in spread[:count]]
    if model == "ftheta":
        coeffs[0] = draw(st.floats(0.2, 1.5))
    return {
        "width": width,
        "height": height,
        "fx": f,
        "fy": f * draw(st.floats(0.95, 1.05)),
        "cx": width * draw(st.floats(0.4, 0.6)),
        "cy": height * draw(st.floats(0.4, 0.6)),
        "distortion": model,
        "coeffs": tuple(coeffs),
    }


def pixels_of(camera, count=50):
    """Pixels all over the image, its corners among them."""
    w, h = camera.width - 1, camera.height - 1
    inside = np.random.default_rng(0).uniform((0, 0), (w, h), (count, 2))
    return np.concatenate([inside, [(0, 0), (w, 0), (0, h), (w, h)]])


def opencv_pixels(camera, rays):
    K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    points = np.concatenate([rays, np.ones((len(rays), 1))], 1)[:, None]
    if camera.distortion == "equidistant":
        return cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(camera.coeffs[:4]))[0][:, 0]
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(camera.coeffs))[0][:, 0]


def sdk_intrinsics(camera):
    lens = rs.intrinsics()
    lens.width, lens.height, lens.fx, lens.fy = camera.width, camera.height, camera.fx, camera.fy
    lens.ppx, lens.ppy = camera.cx, camera.cy
    lens.coeffs = [*map(float, camera.coeffs), *[0.0] * 5][:5]
    lens.model = getattr(rs.distortion, SDK_NAMES.get(camera.distortion, camera.distortion))
    return lens


@pytest.mark.parametrize(("model", "count"), [m for m in MODELS if m[0] in ("brown_conrady", "equidistant")])
def test_every_pixel_has_the_ray_that_opencv_projects_to_it_or_the_lens_is_refused(model, count):
    accepted = []

    @COUNT
    @given(values(model, count))
    def check(arguments):
        try:
            camera = Intrinsics(**arguments)
        except LensError:
            return
        accepted.append(camera)
        pixels = pixels_of(camera)
        rays = camera.rays_at(pixels)
        assert np.isfinite(rays).all()
        np.testing.assert_allclose(opencv_pixels(camera, rays), pixels, atol=1e-5)
        np.testing.assert_allclose(
            camera.project(np.concatenate([rays, np.ones((len(rays), 1))], 1)), pixels, atol=1e-5
        )

    check()
    assert len(accepted) >= 5


@pytest.mark.parametrize("model", sorted({model for model, count in MODELS if 5 in LENGTHS[model]}))
def test_projection_and_rays_are_those_of_the_camera_sdk(model):
    accepted = []

    @COUNT
    @given(values(model, 5))
    def check(arguments):
        arguments["coeffs"] = tuple(0.3 * value for value in arguments["coeffs"])  # lenses that its few steps invert
        if model == "ftheta":
            arguments["coeffs"] = (0.9 + arguments["coeffs"][0], 0.0, 0.0, 0.0, 0.0)
        if model == "equidistant":
            arguments["coeffs"] = (*arguments["coeffs"][:4], 0.0)
        try:
            camera = Intrinsics(**arguments)
        except LensError:
            return
        accepted.append(camera)
        theirs, pixels = sdk_intrinsics(camera), pixels_of(camera, 8)
        for pixel, (x, y) in zip(pixels, camera.rays_at(pixels), strict=True):
            back = rs.rs2_project_point_to_pixel(theirs, [float(x), float(y), 1.0])
            np.testing.assert_allclose(back, pixel, rtol=1e-4, atol=2e-2 if model == "equidistant" else 2e-3)
            if model in ("modified_brown_conrady", "ftheta") or np.hypot(x, y) > 0.6:
                continue  # the SDK does not invert the first two, and stops early far from the axis
            ray = rs.rs2_deproject_pixel_to_point(theirs, [float(value) for value in pixel], 1.0)[:2]
            np.testing.assert_allclose(ray, (x, y), atol=2e-3)

    check()
    assert len(accepted) >= 5


@COUNT
@given(st.floats(-0.6, -0.05), st.floats(0.3, 1.5))
def test_a_barrel_lens_is_refused_exactly_where_its_image_turns_back(k1, focal):
    """r (1 + k1 r^2) grows up to r = 1 / sqrt(-3 k1), to 2/3 of it; corners further out have no ray."""
    reach = 2 / 3 / np.sqrt(-3 * k1)
    corner = np.hypot(319.5, 239.5) / (focal * 640)
    assume(abs(corner / reach - 1) > 0.01)
    arguments = (640, 480, focal * 640, focal * 640, 319.5, 239.5)
    if corner < reach:
        assert np.isfinite(Intrinsics(*arguments, "brown_conrady", (k1, 0.0, 0.0, 0.0)).rays(16)).all()
        return
    with pytest.raises(LensError, match=rf"\({k1}, .* beyond a radius of \d+ px .*use rectified images") as caught:
        Intrinsics(*arguments, "brown_conrady", (k1, 0.0, 0.0, 0.0))
    told = float(str(caught.value).split("radius of ")[1].split(" px")[0])
    assert told == pytest.approx(reach * focal * 640, rel=0.01)


@pytest.mark.parametrize(("model", "count"), MODELS)
def test_zero_coefficients_of_brown_are_no_lens_and_of_a_fisheye_are_its_angle(model, count):
    if model == "ftheta":
        with pytest.raises(LensError, match="between 0 and pi"):
            Intrinsics(640, 480, 400.0, 400.0, 319.5, 239.5, model, (0.0,) * count)
        return
    camera = Intrinsics(640, 480, 400.0, 400.0, 319.5, 239.5, model, (0.0,) * count)
    x, y = camera.rays_at((519.5, 239.5))
    assert (x, y) == pytest.approx((np.tan(0.5) if model == "equidistant" else 0.5, 0.0), abs=1e-12)


@pytest.mark.parametrize(
    ("model", "coeffs", "message"),
    [
        ("none", (0.1, 0.0, 0.0, 0.0, 0.0), "none does not use the coefficients .0.1, .* which model are they of"),
        ("brown_conrady", (0.1, 0.0, 0.0), "needs 4 or 5 or 8 or 12 or 14 coefficients, got 3"),
        ("equidistant", (0.1, 0.0, 0.0, 0.0, 0.2), "equidistant does not use the coefficients"),
        ("brown_conrady", (float("nan"), 0.0, 0.0, 0.0), "must be a number"),
        ("plumb_bob", (0.0,) * 5, "unknown distortion 'plumb_bob'; known: none, brown_conrady"),
    ],
)
def test_coefficients_that_are_no_lens_are_refused(model, coeffs, message):
    with pytest.raises(ValueError, match=message):
        Intrinsics(640, 480, 400.0, 400.0, 319.5, 239.5, model, coeffs)


def test_a_pixel_outside_the_image_that_no_ray_reaches_is_an_error():
    camera = Intrinsics(640, 480, 600.0, 600.0, 319.5, 239.5, "brown_conrady", (-0.25, 0.0, 0.0, 0.0))
    with pytest.raises(LensError, match=r"no ray reaches pixel \(2000, 240\)"):
        camera.rays_at((2000, 240))
    with pytest.raises(LensError, match="no ray reaches pixel"):
        camera.rays_at((np.nan, 0.0))
    for point in ((0.0, 0.0, 0.0), (0.0, 0.0, -1.0), (2.0, 0.0, 1.0)):
        with pytest.raises(ValueError, match="points to project must lie"):
            camera.project(point)
