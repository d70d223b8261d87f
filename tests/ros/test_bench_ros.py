"""`dexgrasp bench ros`: exit status, hint and table for machines that are too slow."""

import pytest

pytest.importorskip("rclpy", exc_type=ImportError)

from dexgrasp_ros.simulation.benchmark import exit_status, pace_warning, show
from dexgrasp_ros.simulation.closed_loop import Trial

pytestmark = pytest.mark.ros


def trial(success):
    return Trial(object="3", seed=0, success=success, lifted_m=0.1, state="hold", reason="", wall_s=9.0)


@pytest.mark.parametrize(
    ("timing_ms", "held", "status"),
    [
        ({"period_p50_ms": 50.0}, [True, False], 0),
        ({"period_p50_ms": 66.0}, [True], 0),
        ({"period_p50_ms": 50.0}, [False, False], 1),
        ({}, [True], 1),
    ],
)
def test_the_status_is_1_where_nothing_was_measured_or_held(timing_ms, held, status):
    assert exit_status(timing_ms, [trial(one) for one in held]) == status


@pytest.mark.parametrize(
    ("timing_ms", "found"),
    [
        ({"period_p50_ms": 52.9}, None),
        ({"period_p50_ms": 66.2}, "period p50 66 ms where 50 ms are needed"),
        ({}, "no period of commands was measured where 50 ms are needed"),
    ],
)
def test_a_machine_that_does_not_keep_real_time_is_told(timing_ms, found):
    warning = pace_warning(timing_ms, 50.0)
    assert warning == (f"this machine does not keep real time: {found}; end other programs" if found else "")


def test_a_value_that_was_not_measured_is_a_dash(capsys):
    show({"period_p50_ms": 66.2}, {}, [trial(False)])
    out = capsys.readouterr().out
    assert "nan" not in out and "0 of 1 object held" in out
    (period,) = [line.split() for line in out.splitlines() if line.startswith("period")]
    assert period[1] == "66.2" and set(period[2:]) == {"-"}
