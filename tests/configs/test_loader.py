"""The configuration loader: composition, strictness, and the words of its errors."""

import dataclasses
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from dexgrasp import configs
from dexgrasp.configs import loader
from dexgrasp.configs.loader import ConfigError
from dexgrasp.configs.renamed_keys import RENAMED_KEYS, RENAMED_VALUES
from dexgrasp.configs.schema import current_name, field_docstrings, fields
from dexgrasp.policies.cli import main
from dexgrasp.policies.cli.option_docs import REQUIRED, keys
from dexgrasp.policies.run_directory import flat
from dexgrasp.utils.text import comma_separated, did_you_mean


@dataclasses.dataclass(frozen=True)
class MotorCfg:
    rate_hz: float = 20.0
    condim: int = 3

    def __post_init__(self):
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz must be positive, got {self.rate_hz}")


@dataclasses.dataclass(frozen=True)
class TripCfg:
    policy: str
    motor: MotorCfg
    trials: int = 100
    size_m: tuple[float, float] = (0.1, 0.2)
    names: tuple[str, ...] = ()
    prior: bool = True
    push: Literal["none", "off", "force"] = "none"
    out: Path | None = None


@pytest.fixture
def root(tmp_path):
    """A config folder with one command, `trip`, and one group, `motor`, of two options."""
    (tmp_path / "motor").mkdir()
    (tmp_path / "motor/slow.yaml").write_text("rate_hz: 10\ncondim: 4\n")
    (tmp_path / "motor/fast.yaml").write_text("rate_hz: 50.0\n")
    (tmp_path / "trip.yaml").write_text("defaults:\n  - motor: slow\n  - _self_\npolicy: walk\n")
    return tmp_path


COMMANDS = {command.config: command for command in main.COMMANDS}


def load_command(name, *overrides):
    command = COMMANDS[name]
    required = [key for key in keys(command.schema, command.config) if key.default == REQUIRED]
    given = [f"{key.name}={key.choices[0] if key.choices else 'x'}" for key in required]
    return configs.load(main._resolve(command.schema), name, [*given, *overrides])


def load(root, *overrides):
    return configs.load(TripCfg, "trip", overrides, root=root)


def error(root, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(root, *overrides)
    return str(caught.value)


def test_a_command_is_its_yaml_its_group_and_the_defaults_of_its_dataclass(root):
    assert load(root) == TripCfg(policy="walk", motor=MotorCfg(rate_hz=10.0, condim=4))


def test_an_integer_in_yaml_becomes_the_float_that_the_field_holds(root):
    assert isinstance(load(root).motor.rate_hz, float)


def test_overrides_choose_groups_first_and_then_set_keys_whatever_their_order(root):
    cfg = load(root, "motor.condim=6", "motor=fast", "trials=7")
    assert cfg == TripCfg(policy="walk", motor=MotorCfg(rate_hz=50.0, condim=6), trials=7)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("policy=200", "policy", "200"),
        ("policy=a, b=(c)", "policy", "a, b=(c)"),
        ("push=off", "push", "off"),
        ("push=none", "push", "none"),
        ("prior=off", "prior", False),
        ("prior=true", "prior", True),
        ("out=../runs/my run", "out", Path("../runs/my run")),
        ("out=null", "out", None),
        ("size_m=[1e-3, 2]", "size_m", (0.001, 2.0)),
        ("names=a,b", "names", ("a", "b")),
        ("names=[]", "names", ()),
    ],
)
def test_the_field_decides_how_a_typed_value_is_read(root, override, key, value):
    assert getattr(load(root, override), key) == value


def test_scientific_notation_is_a_float(root):
    assert load(root, "motor.rate_hz=1e-5").motor.rate_hz == 1e-5


def test_an_unknown_key_names_the_nearest_and_lists_the_known(root):
    assert error(root, "trails=3") == (
        "trip: unknown key 'trails'. Did you mean 'trials'? "
        "Known keys: policy, motor, trials, size_m, names, prior, push, out"
    )


def test_an_unknown_nested_key_is_named_with_its_path(root):
    assert error(root, "motor.rate=3") == (
        "trip: unknown key 'motor.rate'. Did you mean 'motor.rate_hz'? Known keys: motor.rate_hz, motor.condim"
    )


def test_a_nested_key_given_without_its_path_is_found(root):
    assert "Did you mean 'motor.rate_hz'?" in error(root, "rate_hz=3")


def test_an_unknown_key_inside_a_yaml_file_is_refused_too(root):
    (root / "motor/slow.yaml").write_text("rate: 10\n")
    assert "unknown key 'motor.rate'. Did you mean 'motor.rate_hz'?" in error(root)


def test_an_unknown_option_of_a_group_lists_the_options(root):
    assert error(root, "motor=fats") == "trip: group 'motor' has no 'fats'. Did you mean 'fast'? Known: fast, slow"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trials=many", "trip: 'trials' expects int, got 'many'"),
        ("trials=2.5", "trip: 'trials' expects int, got '2.5'"),
        ("trials=true", "trip: 'trials' expects int, got 'true'"),
        ("motor.rate_hz=.nan", "trip: 'motor.rate_hz' expects float, got '.nan'"),
        ("motor.rate_hz=quick", "trip: 'motor.rate_hz' expects float, got 'quick'"),
        ("prior=maybe", "trip: 'prior' expects true or false, got 'maybe'"),
        ("push=forse", "trip: 'push' expects one of none, off, force, got 'forse'. Did you mean 'force'?"),
        ("size_m=[1, 2, 3]", "trip: 'size_m' expects 2 values (float, float), got "),
        ("motor=", "trip: group 'motor' has no ''"),
        ("motor.rate_hz=-1", "trip: motor: rate_hz must be positive, got -1.0"),
        ("trials", "trip: expected key=value, got 'trials'"),
    ],
)
def test_a_wrong_value_is_refused_with_the_key_and_what_was_expected(root, override, expected):
    assert error(root, override).startswith(expected)


def test_an_option_of_a_group_can_be_loaded_by_itself(root):
    assert configs.load_option(MotorCfg, "motor", "fast", root=root) == MotorCfg(rate_hz=50.0, condim=3)
    with pytest.raises(ConfigError, match=r"group 'motor' has no 'fats'. Did you mean 'fast'"):
        configs.load_option(MotorCfg, "motor", "fats", root=root)


def test_a_wrong_type_in_a_yaml_file_is_refused(root):
    (root / "motor/slow.yaml").write_text("rate_hz: '10'\n")
    assert error(root) == "trip: 'motor.rate_hz' expects float, got '10'"


def test_a_required_key_without_a_value_says_how_to_give_one(root):
    (root / "trip.yaml").write_text("defaults:\n  - motor: slow\n")
    assert error(root) == "trip: 'policy' has no value; give policy=<str>"


def test_a_command_without_yaml_takes_its_dataclass(root):
    @dataclasses.dataclass(frozen=True)
    class BareCfg:
        trials: int = 3
        motor: MotorCfg = MotorCfg(rate_hz=5.0)

    assert configs.load(BareCfg, "bare", (), root=root) == BareCfg()
    assert configs.load(BareCfg, "bare", ["trials=4"], root=root) == BareCfg(trials=4)
    assert configs.groups("bare", root) == {}
    with pytest.raises(ConfigError, match=r"bare: unknown key 'trails'\. Did you mean 'trials'"):
        configs.load(BareCfg, "bare", ["trails=4"], root=root)


def test_a_saved_configuration_is_read_back_equal(root, tmp_path):
    cfg = load(root, "out=/a/b", "names=a,b")
    configs.save(cfg, tmp_path / "saved.yaml")
    assert configs.load(TripCfg, "saved", (), root=tmp_path) == cfg
    assert not list(tmp_path.glob(".*"))
    assert yaml.safe_load((tmp_path / "saved.yaml").read_text())["motor"] == {"rate_hz": 10.0, "condim": 4}


def test_loading_leaves_hydra_as_it_was(root):
    from hydra.core.global_hydra import GlobalHydra

    load(root)
    assert not GlobalHydra.instance().is_initialized()


def at(cfg, place, leave=()):
    """The values of a configuration below a dotted key by dotted key, without those below the keys `leave`."""
    values = flat(configs.as_dict(cfg))
    below = {key: value for key, value in values.items() if key.startswith(f"{place}.")}
    return {key: value for key, value in below.items() if not key.startswith(tuple(f"{other}." for other in leave))}


@pytest.mark.parametrize("name", sorted(path.stem for path in configs.ROOT.glob("*.yaml")))
def test_every_yaml_is_accepted_by_its_command_with_every_option_of_its_groups(name):
    """Over the saved configuration of another option each gives the values of a command line without one."""
    load_command(name)
    places = {word: group.place for word, group in configs.groups(name).items()}
    for group, place in places.items():
        plain = {option: load_command(name, f"{group}={option}") for option in configs.options(group)}
        if place == loader.EVERYWHERE:
            continue
        inside = [other for other in places.values() if other.startswith(f"{place}.")]
        for before, (option, expected) in zip([*list(plain)[1:], min(plain)], plain.items(), strict=True):
            saved = configs.as_dict(plain[before])
            cfg = configs.load(type(expected), name, [f"{group}={option}"], base=saved)
            own, rest = at(expected, place, inside), flat(saved)
            assert flat(configs.as_dict(cfg)) == rest | own


def test_a_group_over_a_saved_configuration_drops_what_was_set_key_by_key():
    saved = configs.as_dict(load_command("evaluate", "randomization=train", "camera=d435_tracked", "task.hold_s=1"))
    schema = main._resolve(COMMANDS["evaluate"].schema)
    off = configs.load(schema, "evaluate", ["randomization=off"], base=saved).task
    assert (off.randomization.name, off.randomization.joint_noise_rad, off.hold_s) == ("off", 0.0, 1.0)
    assert off.camera.mode == "tracked"
    first = configs.load(schema, "evaluate", ["camera=first_frame", "task.camera.latency_steps=2"], base=saved).task
    assert (first.camera.disparity_sd_px, first.camera.latency_steps) == (0.0, 2)
    both = configs.load(schema, "evaluate", ["camera=d435_latest", "task=paper"], base=saved).task
    assert (both.camera.mode, both.rate_hz, both.hold_s, both.randomization.name) == ("latest", 10.0, 3.0, "train")


@pytest.mark.parametrize("recipe", configs.options("recipe"))
def test_a_recipe_over_a_saved_configuration_brings_its_camera(recipe):
    saved = configs.as_dict(load_command("train", "recipe=teacher", "task.camera.edge_dropout=0.1", "seed=5"))
    plain = flat(configs.as_dict(load_command("train", f"recipe={recipe}")))
    cfg = configs.load(main._resolve(COMMANDS["train"].schema), "train", [f"recipe={recipe}"], base=saved)
    values, names = flat(configs.as_dict(cfg)), set(loader.option_values("recipe", recipe, "_global_"))
    if recipe != "teacher":
        names |= {key for key in plain if key.startswith("task.camera.")}
        assert values["task.camera.mode"] == "tracked_updated"
    assert names and {key: values[key] for key in names} == {key: plain[key] for key in names}
    assert values["seed"] == 5
    given = configs.load(type(cfg), "train", ["camera=d435_latest", f"recipe={recipe}"], base=saved)
    assert given.task.camera == configs.load_option(type(given.task.camera), "camera", "d435_latest")


def test_every_yaml_is_of_a_command_and_holds_a_key():
    found = {path.stem: configs.read_plain(path) for path in configs.ROOT.glob("*.yaml")}
    assert set(found) <= set(COMMANDS)
    assert all(found.values())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {path.stem for path in configs.ROOT.glob("*.yaml")}))
def test_every_command_without_yaml_loads_and_has_help(name, capsys):
    load_command(name)
    assert main.main([*COMMANDS[name].words.split(), "--help"]) == 0
    assert capsys.readouterr().out.count("=") >= 2


def nested_schema(keys, name="Top"):
    """A dataclass with these dotted keys, each of any type."""
    below = {}
    for key in keys:
        first, _, rest = key.partition(".")
        below.setdefault(first, set()).update({rest} if rest else set())
    parts = {first: nested_schema(rests, first.title()) if rests else Any for first, rests in below.items()}
    made = [(key, kind, dataclasses.field(default=None)) for key, kind in parts.items()]
    return dataclasses.make_dataclass(name, made, frozen=True)


ALL_NEW = nested_schema([*RENAMED_KEYS.values(), *RENAMED_VALUES, "stage", "teacher", "distillation.ppo_rate"])


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_every_renamed_key_leads_to_its_new_name_from_the_top_and_from_within(old):
    new = RENAMED_KEYS[old]
    assert current_name(ALL_NEW, old, 1) == (new, 1)
    section, _, last = old.rpartition(".")
    if section and new.count(".") == old.count("."):
        level = ALL_NEW
        for part in new.split(".")[:-1]:
            level = fields(level)[part]
        assert current_name(level, last, 1) == (new.rpartition(".")[2], 1)


def test_a_section_that_was_renamed_takes_its_other_keys_along():
    assert current_name(ALL_NEW, "mix.ppo_rate", 1) == ("distillation.ppo_rate", 1)
    assert current_name(ALL_NEW, "mix.pqo_rate", 1) == ("mix.pqo_rate", 1)


@dataclasses.dataclass(frozen=True)
class CameraCfg:
    mode: Literal["first_frame", "latest", "tracked", "tracked_updated"] = "first_frame"
    model: Literal["points", "rendered"] = "points"
    include_grazing_angles: bool = False
    min_points: int = 8


@dataclasses.dataclass(frozen=True)
class GraspCfg:
    use_scripted_grasp: bool = True
    camera: CameraCfg = dataclasses.field(default_factory=CameraCfg)


@dataclasses.dataclass(frozen=True)
class RunCfg:
    num_epochs: int = 5
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    task: GraspCfg = dataclasses.field(default_factory=GraspCfg)


OLD = {
    "epochs": 7,
    "precision": "half",
    "perception": "model",
    "task": {"prior": "off", "view": {"mode": "corrected", "camera": "rendered", "steep": True, "min_points": 5}},
}


def test_a_saved_configuration_of_an_earlier_version_is_read_with_one_line_in_the_log(caplog):
    caplog.set_level(logging.INFO, "dexgrasp")
    camera = CameraCfg(mode="tracked_updated", model="rendered", include_grazing_angles=True, min_points=5)
    assert configs.from_dict(RunCfg, OLD, "old.yaml") == RunCfg(7, "bf16", GraspCfg(False, camera))
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith(
        "old.yaml: keys of an earlier version: epochs -> num_epochs, precision=half -> precision=bf16"
    )
    assert "task.prior -> task.use_scripted_grasp" in text
    assert "task.view.min_points -> task.camera.min_points" in text


def test_of_two_old_keys_for_one_the_value_that_is_no_default_counts():
    for perception, camera in (("rendered", "model"), ("model", "rendered"), ("rendered", "rendered")):
        old = {"perception": perception, "task": {"view": {"camera": camera}}}
        assert configs.from_dict(RunCfg, old, "old").task.camera.model == "rendered"
    old = {"perception": "model", "task": {"view": {"camera": "model"}}}
    assert configs.from_dict(RunCfg, old, "old").task.camera.model == "points"


def test_a_configuration_of_this_version_is_read_without_a_word(caplog):
    caplog.set_level(logging.INFO, "dexgrasp")
    cfg = RunCfg(task=GraspCfg(False, CameraCfg("latest")))
    assert configs.from_dict(RunCfg, configs.as_dict(cfg), "new") == cfg
    assert not caplog.records


def test_an_old_name_that_this_schema_never_had_is_unknown():
    with pytest.raises(ConfigError, match="old: unknown key 'copy'"):
        configs.from_dict(RunCfg, {"copy": True}, "old")
    with pytest.raises(ConfigError, match="'precision' expects one of auto, fp32, bf16, got 'quarter'"):
        configs.from_dict(RunCfg, {"precision": "quarter"}, "old")


@pytest.fixture
def renamed_root(tmp_path):
    """A config folder whose command composes the group `camera`."""
    (tmp_path / "camera").mkdir()
    (tmp_path / "camera/first_frame.yaml").write_text("mode: first_frame\n")
    (tmp_path / "camera/d435.yaml").write_text("mode: tracked_updated\nmin_points: 9\n")
    (tmp_path / "run.yaml").write_text("defaults:\n  - camera@task.camera: first_frame\n  - _self_\n")
    return tmp_path


def test_old_names_on_the_command_line_are_accepted_with_one_warning(renamed_root, caplog):
    typed = ["view=corrected", "task.view.steep=true", "epochs=3", "task.prior=off", "precision=single"]
    found = configs.load(RunCfg, "run", typed, root=renamed_root)
    camera = CameraCfg("tracked_updated", include_grazing_angles=True, min_points=9)
    assert found == RunCfg(3, "fp32", GraspCfg(False, camera))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "run: old names, accepted until the next release: view=corrected is now camera=d435, "
        "task.view.steep=true is now task.camera.include_grazing_angles=true, epochs=3 is now num_epochs=3, "
        "task.prior=off is now task.use_scripted_grasp=off, precision=single is now precision=fp32"
    )


@pytest.mark.parametrize(("old", "new"), [("tracked_updated", "d435"), ("latest", "d435_latest")])
def test_an_old_option_of_a_group_is_accepted(old, new, caplog):
    assert load_command("evaluate", f"camera={old}") == load_command("evaluate", f"camera={new}")
    (record,) = caplog.records
    assert record.getMessage().endswith(f"camera={old} is now camera={new}")


def test_an_unknown_option_of_a_renamed_group_lists_the_new_ones(renamed_root):
    with pytest.raises(ConfigError, match=r"group 'camera' has no 'none'. Known: d435, first_frame"):
        configs.load(RunCfg, "run", ["view=none"], root=renamed_root)
    with pytest.raises(ConfigError, match="unknown key 'randomize'"):  # a group that this command never had
        configs.load(RunCfg, "run", ["randomize=off"], root=renamed_root)


@dataclasses.dataclass(frozen=True)
class ListsCfg:
    motors: tuple[MotorCfg, ...] = ()
    """The motors,
    in order."""
    spare: MotorCfg | None = None
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


def test_dataclasses_in_lists_and_optional_ones_are_read_strictly():
    tree = {"motors": [{"condim": 4}, {"rate_hz": 1}], "spare": {"condim": 6}, "names": {"a": "A"}}
    found = configs.from_dict(ListsCfg, tree, "lists")
    assert found == ListsCfg((MotorCfg(condim=4), MotorCfg(1.0)), MotorCfg(condim=6), {"a": "A"})
    assert configs.from_dict(ListsCfg, configs.as_dict(found), "lists") == found
    for wrong, text in (
        ({"motors": [{"rate": 3}]}, "lists: unknown key 'motors[0].rate'. Did you mean 'motors[0].rate_hz'?"),
        ({"spare": {"rate_hz": "x"}}, "lists: 'spare.rate_hz' expects float, got 'x'"),
        ({"spare": {"rate_hz": 0}}, "lists: spare: rate_hz must be positive"),
        ({"names": {1: "A"}}, "lists: 'a key of names' expects str, got 1"),
        ({"names": {"a": 1}}, "lists: 'names[a]' expects str, got 1"),
    ):
        with pytest.raises(ConfigError, match=re.escape(text)):
            configs.from_dict(ListsCfg, wrong, "lists")


def test_the_docstrings_of_fields_come_on_one_line():
    assert field_docstrings(ListsCfg) == {"motors": "The motors, in order."}


def test_the_nearest_names_and_names_in_a_row():
    assert did_you_mean("trails", ["trials", "policy"]) == " Did you mean 'trials'?"
    assert did_you_mean("mug_1", ["mug_2", "mug_3", "box"], most=2) in (
        " Did you mean 'mug_3' or 'mug_2'?",
        " Did you mean 'mug_2' or 'mug_3'?",
    )
    assert did_you_mean("x", ["trials"]) == ""
    assert (comma_separated([1, "b"]), comma_separated([])) == ("1, b", "none")


def test_every_group_is_used_by_a_command():
    used = {group for name in COMMANDS for group in configs.groups(name)}
    assert {path.name for path in configs.ROOT.iterdir() if configs.options(path.name)} == used


def test_the_physics_presets_carry_their_names():
    for option in configs.options("physics"):
        assert load_command("evaluate", f"physics={option}").physics.name == option


def test_a_number_is_evaluated_on_the_reference_physics_unless_said_otherwise():
    cfg = load_command("evaluate").physics
    assert (cfg.timestep_s, cfg.integrator, cfg.cone) == (0.002, "implicitfast", "elliptic")


def test_the_balanced_physics_has_six_substeps_per_control_step_at_20_hz():
    assert load_command("evaluate", "physics=balanced").physics.timestep_s * 6 * 20 == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hand: [allegro", "is damaged or no YAML file"),
        (b"hand: a\n  b: c", "is damaged or no YAML file"),
        (b"\x9e\x00\xff", "is damaged or no YAML file"),
        (b"mine", "is no configuration: expected keys with values, got 'mine'"),
        (b"- a\n- b", "is no configuration"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(content, message, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(configs.ConfigError, match=message) as caught:
        configs.read_plain(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
