"""The policy preset of the viewer: its numbers against MuJoCo, the evaluation and values by hand; then in a browser."""

import gc
import re
import signal
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from dexgrasp.configs import load
from dexgrasp.perception.segmentation.pipeline import SegmentationCfg
from dexgrasp.policies.agents.registry import make_policy
from dexgrasp.policies.evaluation.config import EvaluateCfg, make_task
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.viewer import drawing as perception_drawing
from dexgrasp.policies.viewer import policy_drawing as drawing
from dexgrasp.policies.viewer.app import ViewerCfg, _build_rollout, _handle_requests
from dexgrasp.policies.viewer.env_status import env_status
from dexgrasp.policies.viewer.page import Page
from dexgrasp.policies.viewer.perception_view import PerceptionView
from dexgrasp.policies.viewer.policy_view import PolicyView
from dexgrasp.policies.viewer.rollout import AGAIN_S, REWARD, Choice, Results, Rollout
from dexgrasp.policies.viewer.sessions import TaskSession
from dexgrasp.sim.rendering.env_state import EnvState, env_state
from dexgrasp.sim.rendering.geom_meshes import geom_meshes
from dexgrasp.sim.scene import GRAVITY_M_S2
from dexgrasp.sim.task.grasp_task import TaskCfg
from dexgrasp.sim.task.outcomes import Outcome
from tests.helpers import browser

SHORT = TaskCfg(grasp_s=1.4, lift_s=0.6, hold_s=0.5)


@pytest.fixture(scope="module")
def rollouts(balanced, allegro, household):
    """Builds short trials of the scripted grasp."""

    def build(results=None, **choice):
        choice = Choice(**choice)
        cfg = EvaluateCfg(num_threads=1, task=SHORT, physics=balanced)
        task = make_task(cfg, allegro, household, choice.disturbance, rows=choice.num_envs)
        return Rollout(task, make_policy("synergy", task), "synergy", results or Results(), choice)

    return build


def state_of(rollout, row=0):
    return env_state(rollout.task.engine.get_model(row), rollout.task.engine.get_data(row))


def test_trials_side_by_side_are_those_of_the_evaluation(rollouts, balanced, allegro, household):
    results = Results()
    rollout = rollouts(results, num_envs=3, trial=2)
    waits = [rollout.advance() for _ in range(rollout.task.episode_steps)]
    assert waits == [0.05] * rollout.task.episode_steps and rollout.finished
    cfg = EvaluateCfg(num_threads=1, task=SHORT, physics=balanced)
    again = make_task(cfg, allegro, household, "none", rows=3)
    outcomes = play(again, make_policy("synergy", again), [2, 3, 4])
    assert rollout.outcomes == outcomes
    row = results.rows()[0]
    won = sum(outcome.success for outcome in outcomes)
    assert (row.policy, row.disturbance, row.trials, row.successes, row.first_attempt) == (
        "synergy",
        "none",
        3,
        won,
        won,
    )
    assert rollout.advance() == AGAIN_S and rollout.advance() == 0.0
    assert rollout.task.trial.tolist() == [5, 6, 7] and rollout.outcomes == [None] * 3


def test_an_object_is_chosen_by_the_trials_that_use_it():
    objects = ["ball", "box", "mug", "pen"]
    assert Choice(trial=5, num_envs=3).trials(objects) == [5, 6, 7]
    # trial i uses object i modulo 4: mug is number 2, so 6 is the first trial from 5 on
    assert Choice(trial=5, num_envs=3, object="mug").trials(objects) == [6, 10, 14]
    assert Choice(trial=6, object="mug").trials(objects) == [6]
    with pytest.raises(ValueError, match="no object 'mugg' among the 4 of the library"):
        Choice(object="mugg").trials(objects)
    for wrong in ({"trial": -1}, {"trial": 2**31}, {"num_envs": 0}, {"num_envs": 17}, {"disturbance": "wind"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            Choice(**wrong)


def test_a_trial_counts_once_and_what_was_changed_by_hand_not_at_all():
    def outcome(trial, success, attempts=1):
        failure = "" if success else "missed"
        return Outcome(trial, "box", "none", success, failure, 0.1, 0.0, 0.0, attempts)

    results = Results()
    for trial, success, attempts, by_hand in ((0, 1, 1, 0), (0, 1, 1, 0), (1, 1, 2, 0), (2, 0, 1, 0), (3, 1, 1, 1)):
        results.add("synergy", outcome(trial, success, attempts), by_hand=bool(by_hand))
    row = results.rows()[0]
    assert (row.trials, row.successes, row.first_attempt, row.by_hand) == (3, 2, 1, 1)
    html = drawing.results_html(results.rows())
    # Wilson, by hand: 2 of 3, z = 1.96: centre (2/3 + z²/6) / (1 + z²/3) = 0.573, half-width 0.365
    assert "2 / 3" in html and "21–94 %" in html and "moved by hand: 1" in html


def test_contact_forces_carry_the_object_on_the_table_and_in_the_hand(rollouts):
    rollout = rollouts(trial=0)
    task = rollout.task
    weight_n = float(task.engine.state.object_mass[0]) * GRAVITY_M_S2
    for _ in range(4):
        rollout.advance()
    resting = state_of(rollout)
    assert len(resting.contact_force_w) == 0
    np.testing.assert_allclose(resting.table_force_w, [[0, 0, weight_n]], atol=0.02 * weight_n)
    while not rollout.finished:
        rollout.advance()
    held = state_of(rollout)
    assert rollout.outcomes[0].success and len(held.table_force_w) == 0 and len(held.contact_force_w) >= 2
    np.testing.assert_allclose(-held.contact_force_w.sum(axis=0), [0, 0, weight_n], atol=0.1 * weight_n)
    near_m = np.linalg.norm(held.contact_pos_w - held.bodies_pos_w[-1], axis=1)
    assert near_m.max() < np.linalg.norm(rollout.task.object_mesh(0)[0], axis=1).max() + 0.005
    data = task.engine.get_data(0)
    np.testing.assert_allclose(held.bodies_pos_w[-1], data.body("object").xpos)
    assert rollout.history.last("rise", 0) == pytest.approx(100 * rollout.outcomes[0].lift_m, abs=1e-3)


def test_a_push_lasts_a_fifth_of_a_second_and_moves_the_object_along_the_force(rollouts):
    rollout = rollouts(trial=0, num_envs=2)
    draws = rollout.task.draws
    drawn = draws.push.clone(), draws.push_at.clone()
    before = [state_of(rollout, row).bodies_pos_w[-1] for row in range(2)]
    rollout.push(1, 3.0)
    force_w = rollout.push(1, 6.0)  # a second one replaces the first
    assert np.linalg.norm(force_w) == pytest.approx(6.0) and force_w[2] == 0
    applied = []
    for _ in range(6):
        rollout.advance()
        applied.append(state_of(rollout, 1).external_force_w)
    np.testing.assert_allclose(applied, [force_w] * 4 + [np.zeros(3)] * 2, atol=1e-9)
    assert torch.equal(draws.push, drawn[0]) and torch.equal(draws.push_at, drawn[1])
    still, pushed = (state_of(rollout, row).bodies_pos_w[-1] - before[row] for row in range(2))
    assert np.linalg.norm(still) < 1e-3 and np.linalg.norm(pushed) > 0.01
    assert pushed @ force_w / np.linalg.norm(pushed) / 6.0 > 0.9
    with pytest.raises(ValueError, match="above 0 and not above 50 N, got -1"):
        rollout.push(0, -1.0)


def test_a_move_is_as_far_as_asked_and_the_policy_is_not_told(rollouts):
    rollout = rollouts(trial=0, num_envs=2)
    points_w = rollout.task.object_camera.points_w.clone()
    before = [state_of(rollout, row).bodies_pos_w[-1] for row in range(2)]
    shift_m = rollout.move(1, 0.03)
    after = [state_of(rollout, row).bodies_pos_w[-1] for row in range(2)]
    np.testing.assert_allclose(after[1] - before[1], [*shift_m, 0.0], atol=1e-9)
    assert np.linalg.norm(shift_m) == pytest.approx(0.03)
    np.testing.assert_array_equal(after[0], before[0])
    rollout.advance()
    assert torch.equal(rollout.task.object_camera.points_w, points_w)
    while not rollout.finished:
        rollout.advance()
    row = rollout._results.rows()[0]
    assert (row.trials, row.by_hand) == (1, 1)
    with pytest.raises(ValueError, match="not above 20 cm, got 25"):
        rollout.move(0, 0.25)


def test_the_plotted_terms_add_up_to_the_reward_of_each_environment(rollouts):
    rollout = rollouts(trial=0, num_envs=2)
    for _ in range(12):
        rollout.advance()
    for row in range(2):
        names = [name for name in rollout.history.names if name.startswith(REWARD)]
        time_s, reward, *terms = rollout.history.series(["reward", *names], row)
        np.testing.assert_allclose(time_s, 0.05 * np.arange(1, 13))
        np.testing.assert_allclose(np.maximum(np.sum(terms, axis=0), -2.0), reward, atol=1e-5)
        assert np.abs(reward).max() > 0.05 and len(terms) == 12
    assert not np.array_equal(rollout.history.series(["reward"], 0)[1], rollout.history.series(["reward"], 1)[1])
    plots = drawing.graphs(rollout.history.names)
    assert [len(plot.lines) for plot in plots] == [13, 1, 2, 1]  # the scripted grasp estimates no grip
    assert len(plots[0].uplot()["series"]) == 14


def test_environments_lie_in_a_square_about_the_origin():
    expected = [[-0.5, 0.5, 0], [0.5, 0.5, 0], [-0.5, -0.5, 0]]
    np.testing.assert_allclose(drawing.grid_offsets(3, 1.0), expected)
    np.testing.assert_allclose(drawing.grid_offsets(1, 2.0), [[0, 0, 0]])
    assert len(np.unique(drawing.grid_offsets(16, 0.9), axis=0)) == 16


def test_arrows_have_the_length_of_their_force_up_to_a_bound():
    zero = np.zeros((1, 3))
    env = EnvState(
        bodies_pos_w=np.array([[0.0, 0, 1]]),
        bodies_quat_w=np.array([[1.0, 0, 0, 0]]),
        contact_pos_w=np.array([[0.1, 0, 0], [0, 0, 0], [0, 0, 0]]),
        contact_force_w=np.array([[2.0, 0, 0], [0, 1000.0, 0], [0, 0, 1e-3]]),
        table_pos_w=zero,
        table_force_w=np.array([[0, 0, 3.0]]),
        external_force_w=np.array([0, 4.0, 0]),
    )
    arrows = drawing.force_arrows([env], np.array([[1.0, 0, 0]]), [0.05], scale_m_n=0.01)
    bound = drawing.ARROW_MAX_M
    np.testing.assert_allclose(
        arrows["contact forces"], [[[1.1, 0, 0], [1.12, 0, 0]], [[1, 0, 0], [1, bound, 0]]], atol=1e-7
    )
    np.testing.assert_allclose(arrows["table force"], [[[1, 0, 0], [1, 0, 0.03]]], atol=1e-7)
    # from the surface, 5 cm from the centre, 4 N x 1 cm/N x 4
    np.testing.assert_allclose(arrows[drawing.EXTERNAL_FORCE], [[[1, 0.05, 1], [1, 0.21, 1]]], atol=1e-7)


def test_meshes_of_one_body_and_colour_become_one(allegro):
    model = allegro.to_mjspec().compile()
    meshes = geom_meshes(model, range(1, model.nbody))
    merged = drawing.merge_meshes(meshes)
    assert len({(mesh.body, mesh.rgb) for mesh in meshes}) == len(merged) < len(meshes)

    def area(mesh):
        corners = mesh.vertices_b[mesh.faces]
        return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2

    for mesh in merged:
        parts = [part for part in meshes if (part.body, part.rgb) == (mesh.body, mesh.rgb)]
        assert area(mesh) == pytest.approx(sum(map(area, parts)), rel=1e-5)


@pytest.fixture(scope="module")
def session():
    """A session and its page, as the command opens them."""
    from dexgrasp.sim.objects import open_library

    cfg = load(ViewerCfg, "viewer", ["physics=balanced"])
    library = open_library("shipped")
    with Page("127.0.0.1", 0) as page:

        def build(choice, results):
            return _build_rollout(cfg, library, choice, results)

        yield TaskSession(page, build, Choice(), SegmentationCfg()), page


def asked(session, page, name, **values):
    """Carry out a request; return the message of the page."""
    page.request(name, **values)
    _handle_requests(session, page)
    session.draw(1.0)
    return unescape(re.sub("<[^>]*>", "", page._message.content))


def start(session, page, **values):
    return asked(session, page, "start", **({**page._values()} | values))


def test_wrong_input_is_a_message_in_the_page_and_the_trial_goes_on(session):
    session, page = session
    session.draw(1.0)
    rollout = session._rollout
    assert "trial must lie in 0..2147483647, got -1" in start(session, page, trial=-1)
    assert "trial must be a whole number, got 1.5" in start(session, page, trial=1.5)
    assert "no object 'banan' among the 144" in start(session, page, object="banan")
    assert "no policy 'sinergy'. Did you mean 'synergy'?" in start(session, page, policy="sinergy")
    assert "disturbance must be one of" in start(session, page, disturbance="wind")
    assert "num_envs must lie in 1..16" in start(session, page, num_envs=99)
    session._view._push.value = -2.0
    assert "push: the force must lie above 0" in asked(session, page, "push")
    session._view._push.value = 5.0
    assert session._rollout is rollout and rollout.advance() == rollout.task.step_s
    assert asked(session, page, "next") == "" and session._rollout.task.trial.tolist() == [1]


def test_the_page_chooses_trial_object_disturbance_environments_and_policy(session):
    session, page = session
    rollout = session._rollout
    name = rollout.task.library.names[5]
    assert start(session, page, trial=3, object=name) == ""
    assert session._rollout is rollout and rollout.task.trial.tolist() == [5] and rollout.task.objects == [name]
    assert f"trial 5 · {name} · grasp · 0.00 s" in page.numbers.content
    assert start(session, page, disturbance="slippery", num_envs=4) == ""
    task = session._rollout.task
    assert task.disturber.name == "slippery" and task.engine.state.object_friction.tolist() == [0.3] * 4
    body, node = session._view._robot[0]
    offsets_m = drawing.grid_offsets(4, 0.9)
    expected = [state_of(session._rollout, row).bodies_pos_w[body - 1] + offsets_m[row] for row in range(4)]
    np.testing.assert_allclose(node.batched_positions, expected, atol=1e-6)
    asked(session, page, "next environment")
    assert session._view.row == 1 and f"trial {int(task.trial[1])} " in page.numbers.content
    session._view._only.value = True
    session.draw(1.0)
    assert len(node.batched_positions) == 1 and not session._view._objects[0][0].visible
    session._view._only.value = False
    assert start(session, page, policy="leap/student", num_envs=1) == ""
    assert session._rollout.task.hand.name == "leap" and env_status(session._rollout, 0).phase == "grasp"


def test_both_presets_are_one_page(session):
    session, page = session
    assert start(session, page, policy="synergy", preset="perception", num_envs=4, trial=2) == ""
    assert isinstance(session._view, PerceptionView) and session._rollout.task.num_envs == 1
    assert len(session._player.look().seen.object_w) > 100
    assert start(session, page, preset="policy") == ""
    assert isinstance(session._view, PolicyView) and session._rollout.task.trial.tolist() == [2, 3, 4, 5]


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.slow
def test_long_sessions_do_not_grow(session):
    session, page = session
    name = session._rollout.task.library.names[0]  # of each further object the compiled model stays in memory
    start(session, page, preset="policy", policy="synergy", num_envs=2, object=name)

    def play_on(steps):
        for step in range(steps):
            session.advance()
            session.draw(1.0)
            if step % 250 == 249:
                start(session, page, trial=step, disturbance="force" if step % 500 == 499 else "none")
        gc.collect()
        return resident_mb(), len(page.server._websock_server._broadcast_buffer.message_from_id)

    first_mb, first_messages = play_on(500)
    last_mb, last_messages = play_on(2000)
    assert last_mb - first_mb < 20 and last_messages < 1.2 * first_messages


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium: apt-get install chromium")
def test_the_browser_shows_a_grasp_with_forces_and_plots_and_takes_requests(tmp_path):
    (tmp_path / "profile").mkdir()
    command = [sys.executable, "-m", "dexgrasp", "viewer", "port=0", "object=box_test_s0_00000"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[-1]
        with browser.Browser(url, tmp_path / "profile", width=1000, height=640) as window:
            picture = window.until(
                lambda picture: count(picture, arrow) > 60 and count(picture[:, 335:615], dark) > 800
            )
            assert count(picture, arrow) > 60  # contact forces of a grasp
            middle = picture[:, 335:615]
            assert 0.005 < count(middle, dark) / middle[..., 0].size < 0.25  # the hand
            assert 0.002 < count(middle, orange) / middle[..., 0].size < 0.15  # the object
            assert count(middle, beige) / middle[..., 0].size > 0.3  # the table
            assert count(picture[:, :330], line) > 80  # the total reward's line
            assert window.click("contact forces")
            assert count(window.until(lambda picture: count(picture, arrow) == 0), arrow) == 0
            assert window.fill("first trial", "-1") and window.click("Start")
            window.until(lambda _: "trial must lie in" in window.text())
            assert "trial must lie in 0..2147483647, got -1" in window.text()
            assert window.fill("first trial", "0") and window.click("Start")
            window.until(lambda _: "trial must lie in" not in window.text())
            assert window.click("perception")
            picture = window.until(lambda picture: count(picture, cloud) > 100)
            assert count(picture, cloud) > 100 and "points of the object" in window.text()
            requests = window.run("performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)")
            assert set(requests) <= {url.removeprefix("http://")}
    finally:
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=120)
    assert (server.returncode, out, err) == (0, "viewer: closed\n", "")


def count(picture, color):
    """How many pixels are of a colour."""
    return int(color(*np.moveaxis(picture.astype(int), -1, 0)).sum())


def arrow(r, g, b):
    """Crimson, lit or in shadow."""
    return (r > 120) & (r - g > 75) & (b - g > 10) & (b < 0.75 * r)


def dark(r, g, b):
    """The grey of the hand."""
    return (abs(r - g) < 12) & (abs(g - b) < 14) & (r > 25) & (r < 105)


def orange(r, g, b):
    """The object, lit or in shadow."""
    return (r > 120) & (r - g > 35) & (g - b > 35)


def beige(r, g, b):
    """The table without shadow."""
    return (r > 185) & (r < 225) & (r - b > 4) & (r - b < 25) & (abs(r - g) < 10)


def line(r, g, b):
    """The colour of the total reward's line and its marker in the legend."""
    return (abs(r - 0x1F) < 12) & (abs(g - 0x77) < 12) & (abs(b - 0xB4) < 12)


def cloud(r, g, b):
    """The segmented object of the perception preset."""
    return (
        (r == perception_drawing.OBJECT[0]) & (g == perception_drawing.OBJECT[1]) & (b == perception_drawing.OBJECT[2])
    )
