"""Contradictions of intrinsics and boards: chance, sizes, directions and limits worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from dexgrasp.perception.calibration.charuco import BoardCfg
from dexgrasp.perception.calibration.contradictions import LimitsCfg, contradictions
from dexgrasp.perception.calibration.mixed_fit import BOARD, INTRINSICS, MixedFit
from dexgrasp.perception.cameras.depth import Intrinsics

NAMES = (*INTRINSICS, *BOARD)
CAMERA = Intrinsics(640, 480, 600.0, 500.0, 320.0, 240.0)
RAYS = np.array([[0.0, 0.1], [0.3, 0.4], [0.1, 0.0]])  # the longest: 0.5
SQUARE_M = 2**-5
PLATE = BoardCfg(square_m=SQUARE_M, marker_m=0.02)


def fit_of(variance=1e-16, freedom=1000.0, **corrections):
    values = dict.fromkeys(NAMES, 0.0) | corrections
    nothing = np.zeros((0, 0))
    return MixedFit(
        T_world_cam=np.eye(4),
        T_carrier_board=np.eye(4),
        corrections=values,
        pose_covariance=nothing,
        covariance=np.diag(np.where([values[name] != 0 for name in NAMES], variance, 1e-12)),
        residuals=nothing,
        view_errors=nothing,
        log_sd=np.zeros(3),
        degrees_of_freedom=freedom,
    )


def said(limits=None, **corrections):
    return contradictions(fit_of(**corrections), RAYS, CAMERA, PLATE, limits or LimitsCfg())


def sole(limits=None, **corrections):
    beyond, within = said(limits, **corrections)
    (text,) = beyond + within
    return text


@pytest.mark.parametrize(
    ("name", "freedom", "square"),
    [
        # F(2, d): the chance of more than x is (1 + 2 x / d)^(-d / 2), with 2 x the squared distance
        *((name, 2.0, 1998.0) for name in ("focal", "aspect", "centre_x", "centre_y", "scale", "stretch")),
        ("focal", 1.0, 1e6 - 1),
        ("focal", 0.2, 1e6 - 1),  # at least one degree of freedom is taken
        # F(k, 2): 1 - (s / (s + 2))^(k / 2), s the squared distance; 0.999^(2 / k) = 1 - 2 / (s + 2)
        *((name, 2.0, 2 / (1 - 0.999 ** (1 / 2)) - 2) for name in ("k1", "k2", "p1", "p2")),
        *((name, 2.0, 2 / (1 - 0.999 ** (2 / 3)) - 2) for name in ("bend_xx", "bend_xy", "bend_yy")),
    ],
)
def test_a_difference_is_named_where_chance_makes_it_in_less_than_one_of_a_thousand(name, freedom, square):
    for factor, named in ((0.999, 0), (1.001, 1)):
        beyond, within = said(variance=1e-4 / (factor * square), freedom=freedom, **{name: 0.01})
        assert len(beyond) + len(within) == named


def test_chance_counts_how_corrections_go_together():
    # inverse of [[1, 0.8], [0.8, 1]] 1e-6 is [[1, -0.8], [-0.8, 1]] / 0.36e-6: a^2 (2 -+ 1.6) / 0.36e-6
    for sign, square in ((1, 0.4 / 0.36e-6), (-1, 3.6 / 0.36e-6)):
        for factor, named in ((0.999, 0), (1.001, 1)):
            size = np.sqrt(factor * 1998.0 / square)
            fit = fit_of(freedom=2.0, centre_x=size, centre_y=sign * size)
            at = [NAMES.index("centre_x"), NAMES.index("centre_y")]
            fit.covariance[np.ix_(at, at)] = 1e-6 * np.array([[1, 0.8], [0.8, 1]])
            assert sum(map(len, contradictions(fit, RAYS, CAMERA, PLATE, LimitsCfg()))) == named


def limits_of(**given):
    return replace(LimitsCfg(), **given)


@pytest.mark.parametrize(
    ("corrections", "key", "size", "text"),
    [
        # 600 * 1.012, 500 * 1.008; 7.2 px * 0.5; 1200 / (607.2 + 1.2 * 504) = 1200 / 1212
        (
            {"focal": 0.01, "aspect": 0.002},
            "intrinsics_px",
            3.6,
            "is 1.0 % too short: fx, fy 600.0, 500.0 px instead of 607.2, 504.0 px",
        ),
        (
            {"focal": -0.01, "aspect": 0.002},
            "intrinsics_px",
            3.0,
            "is 1.0 % too long: fx, fy 600.0, 500.0 px instead of 595.2, 494.0 px",
        ),
        ({"focal": 0.2}, "intrinsics_px", 60.0, "is 16.7 % too short"),
        (
            {"focal": 0.001, "aspect": -0.01},
            "intrinsics_px",
            2.75,
            "is wrong in one direction: fx, fy 600.0, 500.0 px instead of 594.6, 505.5 px",
        ),
        (
            {"centre_x": 0.01, "centre_y": -0.016},
            "intrinsics_px",
            10.0,
            "is off by (-6.0, +8.0) px: cx, cy 320.0, 240.0 instead of 326.0, 232.0",
        ),
        # r^2 = 0.25: 0.1 * 0.25 * (0.3 * 600, 0.4 * 500) = (4.5, 5)
        ({"k1": 0.1}, "intrinsics_px", 45.25**0.5, "wrong by up to 6.7 px at the edge: image points lie more far"),
        ({"k1": -0.1}, "intrinsics_px", 45.25**0.5, "wrong by up to 6.7 px at the edge: image points lie less far"),
        ({"k2": -0.4}, "intrinsics_px", 45.25**0.5, "image points lie less far"),
        # -0.3024 (0.075, 0.1) + 0.076 (0.43, 0.24) = (0.01, -0.012): 6 px right, 6 px up, more inward than outward
        ({"k1": -0.3024, "p2": 0.076}, "intrinsics_px", 72**0.5, "image points lie less far"),
        # 2 * 0.01 * 0.3 * 0.4 * 600 = 1.44; 0.01 * (0.25 + 2 * 0.16) * 500 = 2.85
        ({"p1": 0.01}, "intrinsics_px", 10.1961**0.5, "image points lie more far"),
        # 0.01 * (0.25 + 2 * 0.09) * 600 = 2.58; 2 * 0.01 * 0.3 * 0.4 * 500 = 1.2
        ({"p2": -0.01}, "intrinsics_px", 8.0964**0.5, "image points lie less far"),
        (
            {"scale": 0.02, "stretch": 0.005},
            "square_percent",
            2.5,
            "measure 32.03 by 31.72 mm by the poses, not 31.25 mm",
        ),
        ({"scale": -0.02, "stretch": 0.005}, "square_percent", 2.5, "measure 30.78 by 30.47 mm by the poses"),
        ({"bend_xx": 0.001, "bend_yy": -0.002}, "bend_mm", 3.0, "bent by 3.0 mm"),
        ({"bend_xy": 0.001}, "bend_mm", 2.0, "bent by 2.0 mm"),
        ({"bend_xx": 0.001, "bend_xy": 0.001, "bend_yy": 0.001}, "bend_mm", 3.0, "bent by 3.0 mm"),
    ],
)
def test_sizes_and_directions_worked_by_hand(corrections, key, size, text):
    assert text in sole(**corrections)
    beyond, within = said(limits_of(**{key: 0.9999 * size}), **corrections)
    assert len(beyond) == 1 and not within
    beyond, within = said(limits_of(**{key: 1.0001 * size}), **corrections)
    assert len(within) == 1 and not beyond


def test_a_limit_that_is_reached_is_not_exceeded():
    beyond, within = said(limits_of(square_percent=50.0), scale=0.5)
    assert not beyond and len(within) == 1


def test_the_gravest_difference_comes_first_by_its_limit():
    given = {"bend_xy": 0.003, "scale": 0.03, "centre_x": 0.01}  # 6 mm, 3 %, 6 px
    for limits, first in (
        (limits_of(bend_mm=1.0, square_percent=1.0, intrinsics_px=2.0), ["bent", "squares", "centre"]),
        (limits_of(bend_mm=2.5, square_percent=1.0, intrinsics_px=3.0), ["squares", "bent", "centre"]),
        (limits_of(bend_mm=60.0, square_percent=60.0, intrinsics_px=12.0), ["centre", "bent", "squares"]),
    ):
        beyond, within = said(limits, **given)
        assert len(beyond) in (0, 3) and len(within) == 3 - len(beyond)
        for text, word in zip(beyond + within, first, strict=True):
            assert word in text


def test_a_fit_without_corrections_says_nothing():
    assert said() == ([], [])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("focal", "by the poses; calibrate the intrinsics at the resolution of the images"),
        ("centre_x", "by the poses; calibrate the intrinsics, or check whether the images were cropped"),
        ("k1", "calibrate the intrinsics, or check whether the images are rectified already"),
        ("scale", "measure the print and set board.square_m (a print has often been scaled)"),
        ("bend_xy", "glue it to a flat plate"),
    ],
)
def test_each_difference_ends_with_its_remedy(name, remedy):
    assert sole(**{name: 0.01}).endswith(remedy)
