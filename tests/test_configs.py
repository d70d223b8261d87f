"""The configuration loader: composition, strictness, and the words of its errors."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import yaml

import configs
from configs import ConfigError
from policies import cli


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


COMMANDS = {command.config: command for command in cli.COMMANDS}


def load_command(name, *overrides):
    schema = cli._resolve(COMMANDS[name].schema)
    required = [f.name for f in dataclasses.fields(schema) if f.default is f.default_factory is dataclasses.MISSING]
    return configs.load(schema, name, [*(f"{key}=x" for key in required), *overrides])


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
    assert error(root, "motor=fats") == "trip: group 'motor' has no 'fats'; did you mean 'fast'?. Known: fast, slow"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trials=many", "trip: 'trials' expects int, got 'many'"),
        ("trials=2.5", "trip: 'trials' expects int, got '2.5'"),
        ("trials=true", "trip: 'trials' expects int, got 'true'"),
        ("motor.rate_hz=.nan", "trip: 'motor.rate_hz' expects float, got '.nan'"),
        ("motor.rate_hz=quick", "trip: 'motor.rate_hz' expects float, got 'quick'"),
        ("prior=maybe", "trip: 'prior' expects true or false, got 'maybe'"),
        ("push=forse", "trip: 'push' expects one of none, off, force, got 'forse'; did you mean 'force'?"),
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
    with pytest.raises(ConfigError, match="group 'motor' has no 'fats'; did you mean 'fast'"):
        configs.load_option(MotorCfg, "motor", "fats", root=root)


def test_a_wrong_type_in_a_yaml_file_is_refused(root):
    (root / "motor/slow.yaml").write_text("rate_hz: '10'\n")
    assert error(root) == "trip: 'motor.rate_hz' expects float, got '10'"


def test_a_required_key_without_a_value_says_how_to_give_one(root):
    (root / "trip.yaml").write_text("defaults:\n  - motor: slow\n")
    assert error(root) == "trip: 'policy' has no value; give policy=<str>"


def test_an_unknown_command_lists_the_known_ones(root):
    with pytest.raises(ConfigError, match="no configuration 'trap'; did you mean 'trip'"):
        configs.load(TripCfg, "trap", (), root=root)


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


@pytest.mark.parametrize("name", sorted(path.stem for path in configs.ROOT.glob("*.yaml")))
def test_every_yaml_is_accepted_by_its_command_with_every_option_of_its_groups(name):
    load_command(name)
    for group in configs.groups(name):
        for option in configs.options(group):
            load_command(name, f"{group}={option}")


def test_every_command_has_a_yaml():
    assert {path.stem for path in configs.ROOT.glob("*.yaml")} == set(COMMANDS)


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
