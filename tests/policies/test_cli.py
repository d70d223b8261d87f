"""The command line: commands, help without heavy imports, one-line errors, exit statuses, signals."""

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass

import pytest

from dexgrasp import configs
from dexgrasp.configs.schema import fields
from dexgrasp.policies.cli import help
from dexgrasp.policies.cli import main as cli
from dexgrasp.policies.cli.main import COMMANDS, CliCommand, main


@dataclass(frozen=True)
class WalkCfg:
    """Configuration of the command that these tests run."""

    place: str = ""
    """Where to."""
    steps: int = 3
    """How many."""


def walk(cfg):
    """Command under test: fails in the way that `place` names."""
    failures = {
        "nowhere": ValueError("no such place"),
        "hole": FileNotFoundError("no ladder"),
        "stop": KeyboardInterrupt(),
    }
    if cfg.place in failures:
        raise failures[cfg.place]
    print(cfg)


@pytest.fixture
def walking(monkeypatch, tmp_path):
    """Adds the command `walk` in place of all others."""
    (tmp_path / "walk.yaml").write_text("steps: 4\n")
    command = CliCommand("walk", "Walk.", f"{__name__}:WalkCfg", f"{__name__}:walk", ("place",))
    monkeypatch.setattr(cli, "COMMANDS", (command,))
    load = configs.load
    monkeypatch.setattr(
        configs, "load", lambda schema, name, words, **kw: load(schema, name, words, root=tmp_path, **kw)
    )
    monkeypatch.delenv("DEXGRASP_DEBUG", raising=False)


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_command(word, capsys):
    assert main([word]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command.words} " in text for command in COMMANDS)


def test_no_command_prints_help_and_fails(capsys):
    assert main([]) == 2
    assert "usage: dexgrasp COMMAND" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dexgrasp 0.")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_help_spells_types_in_words_and_not_as_names_of_aliases(command):
    words = "one of|list of|a mapping of|to|[0-9]+ values|int|float|str|path|true or false|null|group|anything|or"
    for key in help.keys(command.schema, command.config):
        if "one of" not in key.kind:
            assert not re.sub(rf"\b({words})\b|[(), ]", "", key.kind), f"{key.name}: {key.kind}"


def test_help_lists_the_choices_behind_an_alias():
    kinds = {key.name: key.kind for key in help.keys("dexgrasp.policies.training.config:TrainCfg", "train")}
    assert kinds["engine"] == "one of cpu, warp"
    assert kinds["history_encoder"] == "one of lstm, mlp, conv"
    assert kinds["task.camera.mode"] == "one of first_frame, latest, tracked, tracked_updated"
    assert kinds["task.randomization.friction"] == "2 values (float, float)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ship", "publish"),
        ("view", "viewer"),
        ("bench views", "bench cameras"),
        ("bench runtime", "bench deploy"),
    ],
)
def test_a_former_name_of_a_command_works_for_one_release(old, new, capsys):
    assert main([*old.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: dexgrasp {new} ")
    assert err == (
        f"dexgrasp: `dexgrasp {old}` is now called `dexgrasp {new}`; the old name will go with the next release\n"
    )


@pytest.mark.parametrize("words", ["export", "publish", "bench ros", "replay"])
def test_a_former_name_of_a_key_works_for_one_release(words, capsys):
    (command,) = (command for command in COMMANDS if command.words == words)
    old = "bundle" if words in ("bench ros", "replay") else "run"
    assert cli._renamed(command, [f"{old}=a=b", "out=x"]) == ["policy=a=b", "out=x"]
    assert (
        capsys.readouterr().err
        == f"dexgrasp: `{old}=` is now called `policy=`; the old name will go with the next release\n"
    )


def test_the_viewer_still_takes_its_source_by_its_former_name(capsys, tmp_path):
    assert main(["viewer", "perception=frames", "--cfg"]) == 0
    out, err = capsys.readouterr()
    assert "\nsource: frames\n" in out
    assert err == "dexgrasp: `perception=` is now called `source=`; the old name will go with the next release\n"
    (tmp_path / "old.yaml").write_text("perception: frames\nseed: 4\n")
    assert main(["viewer", f"config={tmp_path}/old.yaml", "--cfg"]) == 0
    assert "\nsource: frames\n" in capsys.readouterr().out


def test_replay_still_takes_its_former_switch(capsys):
    (command,) = (command for command in COMMANDS if command.words == "replay")
    words = ["policy=false", "policy=runs/bundle"]
    assert cli._renamed(command, words) == ["compare_policy=false", "policy=runs/bundle"]


def test_a_plugin_is_imported_before_the_configuration_is_built(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin_by_name.py").write_text("print('name')\n")
    (tmp_path / "plugin_by_file.py").write_text("print('file')\n")
    assert main(["evaluate", f"plugins=plugin_by_name,{tmp_path}/plugin_by_file.py", "task.class_name=Foo"]) == 2
    out, err = capsys.readouterr()
    assert out == "name\nfile\n"
    assert "task 'Foo' is not registered" in err
    assert main(["evaluate", "plugins=[plugin_by_name]", "task.class_name=Foo"]) == 2
    assert capsys.readouterr().out == ""  # it is imported once


def test_a_file_that_names_a_plugin_imports_nothing_unless_the_command_line_does(tmp_path, capsys):
    plugin = tmp_path / "plugin_of_a_file.py"
    plugin.write_text("print('imported')\n")
    (tmp_path / "config.yaml").write_text(f"plugins: ['{plugin}']\ntrials: 3\n")
    assert main(["evaluate", f"config={tmp_path}", "--cfg"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"if you trust it, add plugins={plugin}" in err and err.count("\n") == 1
    assert main(["evaluate", f"config={tmp_path}", "plugins=[]", "--cfg"]) == 0
    assert "imported" not in capsys.readouterr().out
    assert main(["evaluate", f"config={tmp_path}", f"plugins={plugin}", "--cfg"]) == 0
    assert capsys.readouterr().out.startswith("imported\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*broken_plugin\.py:2\)"),
        ("def f(:\n", r"SyntaxError: .* \(.*broken_plugin\.py:1\)"),
        (
            "import no_such_package\n",
            r"ModuleNotFoundError: No module named 'no_such_package' \(.*broken_plugin\.py:1\)",
        ),
    ],
)
def test_a_plugin_that_raises_is_one_line_with_its_place(text, message, tmp_path, capsys):
    (tmp_path / "broken_plugin.py").write_text(text)
    assert main(["train", f"plugins={tmp_path}/broken_plugin.py"]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(rf"dexgrasp train: error: plugins=.*broken_plugin\.py: {message}\n", err)


def test_a_plugin_that_does_not_exist_is_one_line(capsys):
    assert main(["evaluate", "plugins=no_such_plugin"]) == 2
    assert capsys.readouterr().err.endswith(
        "plugins=no_such_plugin: there is no such module: give a module that Python can import (package.module), or a "
        "file ending in .py\n"
    )


def test_every_command_that_makes_a_task_or_a_policy_takes_plugins():
    without = {command.words for command in COMMANDS if "plugins" not in fields(cli._resolve(command.schema))}
    assert without == {
        *("list", "completion"),
        *("objects generate", "objects import", "objects show", "objects compare", "objects scan", "check scene"),
        *("calibrate board", "calibrate camera", "randomization show", "checkpoint upgrade", "checkpoint sb3"),
        *("bench perception", "bench segmentation", "bench ros", "bench deploy", "replay"),
        *("report", "hands check", "hands new", "arms check", "benchmark", "benchmark validate"),
        "benchmark dexgraspbench",
    }


HINT = re.compile(r"install_command\(['\"](\w+)")


def hints():
    """(file, message, package hint) of every message of an ImportError in the code that says what to install."""
    for folder in (
        "assets",
        "configs",
        "dexgrasp",
        "perception",
        "policies",
        "sim",
        "ros2_ws/src/dexgrasp_ros/dexgrasp_ros",
    ):
        for file in sorted((configs.ROOT.parent / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.Constant, ast.JoinedStr)):
                    text = ast.unparse(node)
                    if HINT.search(text):
                        yield file, text
                    assert "pip install" not in text or file.name == "text.py", f"{file}: use install_command: {text}"


def test_install_hints_name_an_extra_that_brings_the_missing_package():
    project = tomllib.loads((configs.ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: " ".join(packages).lower().replace("-", "_")
        for name, packages in project["optional-dependencies"].items()
    }
    modules = {
        "opencv": "opencv_python_headless",
        "ray": "ray",
        "pyarrow": "pyarrow",
        "mujoco_warp": "mujoco_warp",
        "open3d": "open3d",
    }
    modules |= {"mujoco-menagerie": "mujoco_menagerie", "robot_descriptions": "robot_descriptions"}
    modules |= {
        name: name
        for name in (
            "cryptography",
            "open3d",
            "viser",
            "onnx",
            "onnxscript",
            "pyrealsense2",
            "rosbags",
            "tensorboard",
            "wandb",
        )
    }
    found = set()
    for file, text in hints():
        extra = HINT.search(text)
        assert extra, f"{file.name}: {text}"
        named = [package for word, package in modules.items() if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
        assert named, f"{file.name}: {text} names no package"
        assert all(package in extras[extra[1]] for package in named), f"{file.name}: {text}"
        found.add(extra[1])
    assert found == {
        *(
            "calibrate",
            "export",
            "gpu",
            "hands",
            "ray",
            "realsense",
            "ros",
            "scan",
            "sign",
            "tensorboard",
            "viz",
            "wandb",
        )
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalaute"], "dexgrasp: error: no command 'evalaute'. Did you mean 'evaluate'? Known: "),
        (["eval"], "dexgrasp: error: no command 'eval'. Did you mean 'evaluate'? Known: "),
        (["objects", "improt"], "dexgrasp: error: no command 'objects improt'. Did you mean 'objects import'? Known: "),
    ],
)
def test_an_unknown_command_names_the_nearest(words, message, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_group_of_commands_without_one_of_them_lists_them(capsys):
    assert main(["objects"]) == 2
    assert "objects import" in capsys.readouterr().out


def test_a_bare_word_is_the_positional_key_and_yaml_and_overrides_meet(walking, capsys):
    assert main(["walk", "home", "steps=5"]) == 0
    assert capsys.readouterr().out == "WalkCfg(place='home', steps=5)\n"


def test_a_path_with_an_equals_sign_in_a_folder_is_still_positional(walking, capsys):
    assert main(["walk", "./a=b"]) == 0
    assert capsys.readouterr().out == "WalkCfg(place='./a=b', steps=4)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "dexgrasp walk: error: no such place"),
        (["hole"], "dexgrasp walk: error: no ladder"),
        (["step=5"], "dexgrasp walk: error: unknown key 'step'. Did you mean 'steps'? Known keys: place, steps"),
        (["steps=far"], "dexgrasp walk: error: 'steps' expects int, got 'far'"),
        (["home", "again"], "dexgrasp walk: error: expected key=value, got 'again'. Keys: place, steps"),
        (
            ["--fast"],
            "dexgrasp walk: error: no option '--fast': write fast=VALUE; flags are --help, --help-all, --cfg and -m",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(walking, words, message, capsys):
    assert main(["walk", *words]) == 2
    assert capsys.readouterr().err == message + "\n"


def test_debugging_shows_the_traceback(walking, monkeypatch, capsys):
    monkeypatch.setenv("DEXGRASP_DEBUG", "1")
    assert main(["walk", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and "no such place" in err.splitlines()[-1]


def test_an_interruption_ends_with_130(walking, capsys):
    assert main(["walk", "stop"]) == 130
    assert capsys.readouterr().err == "dexgrasp walk: interrupted; what was finished is kept\n"


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_interruption_stays_one_where_the_end_of_the_command_fails(walking, monkeypatch, tmp_path, capsys, wrapped):
    """Ctrl-C while a `with` block of a run, a tracker or a file is open, whose end then fails in turn."""

    @contextlib.contextmanager
    def opened():
        try:
            yield
        finally:
            try:
                raise OSError(28, "No space left on device", "walk.csv")
            except OSError as error:
                raise (RuntimeError("the tracker is gone") if wrapped else error) from (error if wrapped else None)

    def wait(_):
        with opened():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    monkeypatch.setattr(sys.modules[__name__], "walk", wait)
    assert main(["walk"]) == 130
    full = "walk.csv cannot be written: the disk is full; free space, then start the command again"
    reason = "the tracker is gone" if wrapped else full
    assert capsys.readouterr().err == f"dexgrasp walk: interrupted; then its end failed: {reason}\n"


def test_an_interruption_that_native_code_turned_into_another_error_is_said(walking, monkeypatch, capsys):
    def convert(_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            pass
        raise ImportError("numpy: initialisation failed")

    monkeypatch.setattr(sys.modules[__name__], "walk", convert)
    assert main(["walk"]) == 130
    assert capsys.readouterr().err == "dexgrasp walk: interrupted; what was finished is kept\n"


def test_an_interruption_that_an_import_swallowed_ends_the_command_before_its_work(walking, monkeypatch, capsys):
    def swallow(name):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return lambda cfg: pytest.fail(f"{name} ran")

    monkeypatch.setattr(cli, "_resolve", swallow)
    assert main(["walk"]) == 130
    assert capsys.readouterr().err == "dexgrasp walk: interrupted; what was finished is kept\n"


def test_sigterm_is_an_interruption(walking, monkeypatch):
    def wait(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(sys.modules[__name__], "walk", wait)
    assert main(["walk"]) == 130


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from dexgrasp.policies.cli.main import main; main(['evaluate', '--help']);"
        "heavy = {'torch', 'mujoco', 'hydra', 'scipy', 'numpy', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PLAIN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "dexgrasp_ros":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Absent())
from dexgrasp.policies.cli.main import main
main(["__complete", "dexgrasp replay "])
codes = [main(["train", "config=wrong.yaml"]), main(["replay", "--help"]), main(["bench", "ros", "--help-all"])]
codes += [main(["replay", "bag"]), main(["replay", "policy=a,b", "-m"])]
sys.exit(any(code != 2 for code in codes))
"""


def test_without_the_ros_package_help_completion_and_a_wrong_configuration_are_one_line_each(tmp_path):
    (tmp_path / "wrong.yaml").write_text("policy: x\n")
    env = os.environ | {"PYTHONPATH": str(configs.ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0 and done.stdout == "\n", done.stderr
    wrong, *others = done.stderr.splitlines()
    assert wrong.startswith("dexgrasp train: error: config=wrong.yaml is no configuration of `dexgrasp train`")
    assert "`dexgrasp evaluate`" in wrong and "replay" not in wrong
    says = (
        "this needs the package dexgrasp_ros: run `make setup` in a clone, or, with a ROS 2 installation, build "
        "ros2_ws with colcon and source it"
    )
    words = ("replay", "bench ros", "replay", "replay")
    assert others == [f"dexgrasp {word}: error: {says}" for word in words]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (KeyError("normaliser.mean"), 3, "internal error: KeyError in test_cli.py:"),
        (RecursionError("maximum recursion depth exceeded"), 3, "internal error: RecursionError in test_cli.py:"),
        (AssertionError(), 3, "internal error: AssertionError in test_cli.py:"),
        (MemoryError("Unable to allocate 8 EiB"), 2, "error: not enough memory (Unable to allocate 8 EiB): reduce"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: not enough memory (DefaultCPUAll"),
        (RuntimeError("two\nlines"), 3, "two lines (please report this; DEXGRASP_DEBUG=1 shows the traceback)"),
        (ValueError("two\nlines"), 2, "dexgrasp walk: error: two lines"),
        (OSError(), 2, "dexgrasp walk: error: OSError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_any_exception_of_a_command_is_one_line(walking, monkeypatch, capsys, error, status, text):
    def fail(_):
        raise error

    monkeypatch.setattr(sys.modules[__name__], "walk", fail)
    assert main(["walk"]) == status
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1 and "Traceback" not in err


GLFW_HELPER = """\
Traceback (most recent call last):
  File "<string>", line 28, in <module>
EOFError: EOF when reading a line
"""
"""Words of the process that glfw starts while it is imported, where its parent ends before it has asked it anything."""


@pytest.mark.parametrize("delay_s", [0.02, 0.3])
def test_three_interruptions_give_130_without_a_traceback(tmp_path, delay_s):
    """In the imports, in the work, in what ends it, and while the interpreter ends."""
    words = ["objects", "generate", "n=100000", f"out={tmp_path / 'made'}"]
    process = subprocess.Popen([sys.executable, "-m", "dexgrasp", *words], stderr=subprocess.PIPE, text=True)
    time.sleep(3.0 if delay_s > 0.1 else 0.5)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(delay_s)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), err  # a shell shows 130 for both
    assert "Traceback" not in err.replace(GLFW_HELPER, "")


@pytest.mark.parametrize(
    ("words", "hint", "listed"),
    [
        ("train recepie=teacher", "recipe", "recipe"),
        ("train recip=teacher", "recipe", "camera"),
        ("evaluate camra=latest", "camera", "randomization"),
        ("evaluate phsyics=turbo", "physics", "physics"),
        ("evaluate task.camera.mod=latest", "task.camera.mode", "task.camera.mode"),
        ("train iter=3", "iterations", "recipe"),
    ],
)
def test_a_mistyped_key_or_group_is_refused_before_heavy_imports(words, hint, listed, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_resolve", lambda path: pytest.fail(f"imported {path}"))
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert f" Did you mean '{hint}'?" in error
    assert listed in error.partition("Known keys: ")[2].strip().split(", ")


def test_the_loader_suggests_and_lists_groups_as_well():
    with pytest.raises(configs.UnknownKeyError, match=r"Did you mean 'camera'\? Known keys: .*randomization"):
        configs.load(cli._resolve("dexgrasp.policies.evaluation.config:EvaluateCfg"), "evaluate", ["camra=latest"])


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("evaluate policy = allegro/student", "policy=allegro/student"),
        ("evaluate policy =allegro/student", "policy=allegro/student"),
        ("evaluate policy= allegro/student trials=3", "policy=allegro/student"),
        ("compare a = b", "a=b"),
        ("train = 3", "KEY=3"),
    ],
)
def test_blanks_around_an_equals_sign_are_named(words, right, capsys):
    command, *rest = words.split()
    assert main([command, *rest]) == 2
    assert capsys.readouterr().err == f"dexgrasp {command}: error: no blanks around =: write {right}\n"


def test_an_empty_value_before_another_key_stays_a_value(capsys):
    assert main(["completion", "shell=", "--cfg"]) == 2
    assert "no blanks" not in capsys.readouterr().err
