"""Shell completion in a real bash, and in zsh where it is installed."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.completion import candidates
from dexgrasp.policies.cli.main import main
from dexgrasp.policies.cli.option_docs import keys

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A folder on PATH with the command `dexgrasp` of this working tree."""
    program = tmp_path / "dexgrasp"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m dexgrasp "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def complete(line, folder):
    """Return what bash offers behind `line`, found by readline's own variables."""
    words = line.replace("=", " = ").replace(":", " : ").split()
    if line[-1].isspace() or line[-1] in "=:":
        words.append("")
    script = f"""
        eval "$(dexgrasp completion bash)"
        COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _dexgrasp
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dexgrasp ev", ["evaluate "]),
        ("dexgrasp objects im", ["import "]),
        ("dexgrasp list po", ["policies "]),
        ("dexgrasp evaluate num_e", ["num_envs="]),
        ("dexgrasp evaluate policy=allegro/", ["allegro/student ", "allegro/teacher "]),
        ("dexgrasp train recipe=", ["refinement ", "student ", "teacher "]),
        ("dexgrasp train task.rew", ["task.reward."]),
        ("dexgrasp train task.reward.op", ["task.reward.opposition="]),
        ("dexgrasp evaluate objects=generated:216:t", ["test "]),
        ("dexgrasp train --c", ["--cfg "]),
    ],
)
def test_bash_completes(line, expected, shell):
    assert complete(line, shell) == expected


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_tab_in_an_interactive_bash_completes_the_line(shell):
    """Keys reach readline through a pseudo terminal; the completed command runs and prints its own line."""
    import pty
    import select
    import time

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shell)
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    seen = b""

    def send(text, until, limit_s=60):
        nonlocal seen
        seen = b""
        os.write(terminal, text)
        end = time.monotonic() + limit_s
        while until not in seen and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 4096)
        return until in seen

    try:
        assert send(b'eval "$(dexgrasp completion bash)"; echo rea""dy\n', b"ready")
        assert send(b"dexgrasp list pol\t", b"policies")
        assert send(b"\n", b"allegro/student")
        assert send(b"echo dexgrasp evaluate pol\t", b"pol")  # not the first word: bash leaves it
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_reads_its_script(shell):
    code = 'autoload -U compinit; compinit -u; eval "$(dexgrasp completion zsh)"; whence -w _dexgrasp'
    done = subprocess.run(["zsh", "-fc", code], capture_output=True, text=True, cwd=shell)
    assert done.stdout == "_dexgrasp: function\n" and not done.stderr


def test_the_scripts_are_printed_for_both_shells(capsys):
    assert main(["completion", "bash"]) == 0
    assert "complete -o nospace" in capsys.readouterr().out
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef dexgrasp\n")
    assert main(["completion", "fish"]) == 2


def test_every_first_word_and_every_key_is_offered():
    assert candidates(COMMANDS, "dexgrasp ") == list(
        dict.fromkeys(f"{command.words.split()[0]} " for command in COMMANDS)
    )
    offered = candidates(COMMANDS, "dexgrasp train ")
    assert {"seed=", "recipe=", "task.", "config="} <= set(offered) and "task.reward." not in offered
    assert candidates(COMMANDS, "dexgrasp evaluate policy=sy") == ["policy=synergy "]
    assert candidates(COMMANDS, "dexgrasp nothing x") == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_every_command_has_candidates_behind_its_name_and_behind_a_first_word(command):
    names = {key.name.partition(".")[0] for key in keys(command.schema, command.config)}
    for line in (f"dexgrasp {command.words} ", f"dexgrasp {command.words} first "):
        offered = candidates(COMMANDS, line)
        assert {word.rstrip("=.") for word in offered if word[-1] in "=."} == {*names, "config"}


def test_a_request_imports_nothing_heavy():
    code = (
        "import sys; from dexgrasp.policies.cli.main import main; main(['__complete', 'dexgrasp evaluate policy=']);"
        "heavy = {'torch', 'mujoco', 'hydra', 'scipy', 'numpy', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "policy=leap/student " in done.stdout.split("\n")


def test_a_command_that_takes_runs_offers_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runner.txt").write_text("")
    assert candidates(COMMANDS, "dexgrasp report ru") == ["runs/", "runs="]
    assert candidates(COMMANDS, "dexgrasp report runs/a runs/") == ["runs/a/"]
    assert "runs/" not in candidates(COMMANDS, "dexgrasp evaluate ru")
