"""The command line: commands, help without heavy imports, one-line errors, exit statuses, signals."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

import configs
from policies import cli, usage
from policies.cli import COMMANDS, Command, main

READY = [command for command in COMMANDS if not command.later]


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
    command = Command("walk", "Walk.", f"{__name__}:WalkCfg", f"{__name__}:walk", ("place",))
    monkeypatch.setattr(cli, "COMMANDS", (command,))
    load = configs.load
    monkeypatch.setattr(configs, "load", lambda schema, name, words: load(schema, name, words, root=tmp_path))
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


@pytest.mark.parametrize("command", READY, ids=lambda command: command.words)
def test_help_of_a_command_lists_every_key_of_its_dataclass(command, capsys):
    assert main([*command.words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for key in configs.known_keys(cli._resolve(command.schema)):
        assert f"  {key}=" in text, f"{key} is missing"


@pytest.mark.parametrize("command", READY, ids=lambda command: command.words)
def test_the_defaults_that_help_shows_are_those_that_load_gives(command):
    keys = [key for key in usage.keys(command.schema, command.config) if key.kind != "group"]
    required = [key.name for key in keys if key.default == "(required)"]
    loaded = configs.load(cli._resolve(command.schema), command.config, [f"{name}=x" for name in required])
    for key in keys:
        if key.name in required:
            continue
        value = loaded
        for word in key.name.split("."):
            value = getattr(value, word)
        if isinstance(value, (str, int)):
            assert str(value) == key.default, key.name


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.later], ids=lambda command: command.words)
def test_a_command_that_is_not_there_yet_says_so_and_fails(command, capsys):
    assert main([command.words]) == 2
    assert capsys.readouterr().err == f"dexgrasp {command.words}: not yet: arrives with {command.later}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalaute"], "dexgrasp: error: no command 'evalaute'. Did you mean 'evaluate'? Known: "),
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
        (["step=5"], "dexgrasp walk: error: walk: unknown key 'step'. Did you mean 'steps'? Known keys: place, steps"),
        (["steps=far"], "dexgrasp walk: error: walk: 'steps' expects int, got 'far'"),
        (["home", "again"], "dexgrasp walk: error: walk: expected key=value, got 'again'. Known keys: place, steps"),
        (["--fast"], "dexgrasp walk: error: no option '--fast': options are written key=value (see --help)"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(walking, words, message, capsys):
    assert main(["walk", *words]) == 2
    assert capsys.readouterr().err == message + "\n"


def test_debugging_shows_the_traceback(walking, monkeypatch):
    monkeypatch.setenv("DEXGRASP_DEBUG", "1")
    with pytest.raises(ValueError, match="no such place"):
        main(["walk", "nowhere"])


def test_an_interruption_ends_with_130(walking, capsys):
    assert main(["walk", "stop"]) == 130
    assert capsys.readouterr().err == "dexgrasp walk: interrupted; what was finished is kept\n"


def test_sigterm_is_an_interruption(walking, monkeypatch):
    def wait(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(sys.modules[__name__], "walk", wait)
    assert main(["walk"]) == 130


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from policies.cli import main; main(['evaluate', '--help']);"
        "heavy = {'torch', 'mujoco', 'hydra', 'scipy', 'numpy', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
