"""The command line: what is wrong with the input is said in one line that names the fix, before anything is done."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import rwml_gym_command
from rwml_gym.agents.cli import main as cli
from tests.helpers.paths import ROOT

needs_games = pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("alfworld", "peft")),
    reason="needs the extras alfworld, train",
)
# Nothing here gets as far as a model: a bag of words and two games make the checks before it quick.
QUICK = ["--encoder", "hashing", "--collect.games", "1", "--collect.held-out-games", "1"]


def _main(*words: str) -> int:
    """Exit status, also where the parser exits by itself."""
    try:
        return cli.main(words)
    except SystemExit as error:
        return int(error.code or 0)


def _train(folder: Path, *words: str) -> int:
    preset = [] if "--preset" in words else ["--preset", "smoke"]
    return _main("train", "rwml", *preset, *QUICK, "--run-dir", str(folder), *words)


def test_version(capsys):
    assert _main("--version") == 0
    assert capsys.readouterr() == (f"{version('rwml-gym')}\n", "")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_goes_to_standard_output(capsys, words):
    assert _main(*words) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: rwml-gym COMMAND")
    for command in ("train rwml", "record", "calibrate", "audit", "evaluate", "check-env"):
        assert f"\n  {command} " in out
    assert err == ""


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["xyzzy"], ""),
        (["train"], ""),
        (["train", "rmwl"], "rwml-gym train rwml"),
        (["evalute", "--agent", "expert"], "rwml-gym evaluate"),
        (["game", "list"], "rwml-gym games list"),
    ],
)
def test_an_unknown_command_names_the_nearest(capsys, words, nearest):
    assert _main(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rwml-gym: Expected a command, ")
    assert f"Did you mean `{nearest}`?" in err if nearest else "Did you mean" not in err


@pytest.mark.parametrize("words", [["--help"], ["evaluate", "--help"], ["train", "policy", "--help"]])
def test_help_may_be_cut_off_by_a_pipe(words):
    command = f"{sys.executable} -m rwml_gym.agents.cli.main {' '.join(words)} | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: rwml-gym")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--help"],
        ["evaluate", "--epsodes", "3"],
        ["train", "rwml", "--preset", "dmo"],
        ["train", "policy", "--stage.stepz", "3"],
        ["train", "sft", "--help"],
        ["record", "--help"],
        ["check-env", "toy"],
    ],
    ids=" ".join,
)
def test_what_needs_no_model_imports_no_torch(words):
    """Torch and what comes with it take four seconds to import."""
    program = (
        "import sys; from rwml_gym.agents.cli.main import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "sys.stderr.write(' '.join({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)) + '|')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1].endswith("|")
    assert "torch" not in done.stderr.splitlines()[-1]


def test_the_words_of_the_process_are_the_default(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["rwml-gym", "version"])
    assert cli.main() == 0
    assert version("rwml-gym") in capsys.readouterr().out.splitlines()[0]


def test_training_help_lists_options_and_presets(capsys):
    pytest.importorskip("peft")
    assert _main("train", "rwml", "--help") == 0
    out = capsys.readouterr().out
    for word in ("--grpo.beta", "--collect.games", "smoke", "paper-alfworld", "--run-dir"):
        assert word in out


def test_an_agent_is_evaluated(capsys):
    pytest.importorskip("alfworld")
    assert _main("evaluate", "--agent", "expert", "--split", "generated_held_out", "--episodes", "6") == 0
    out, errors = capsys.readouterr()
    lines = out.splitlines()
    assert any(line.startswith("data         generated (alfworld ") for line in lines)
    assert [line.split()[:3] for line in lines if line.startswith("all ")] == [["all", "6", "1.000"]]
    assert sum(line.startswith(("pick_", "look_")) for line in lines) == 6
    assert "--run-dir RUN writes them" in errors
    assert _main("evaluate", "--agent", "expert", "--env", "tau2") == 2
    assert "an agent that plays τ²-bench" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "library", "extra"),
    [
        (["train", "rwml"], "peft", "train"),
        (["evaluate", "--env", "tau2"], "tau2", "tau2"),
        (["audit", "nowhere"], "datasets", "train"),
    ],
)
def test_a_missing_library_is_named(words, library, extra):
    """In a process of its own, so that nothing has imported the library before."""
    program = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"from rwml_gym.agents.cli.main import main; sys.exit(main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f'pip install -e "{ROOT}[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr


@needs_games
@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--preset", "huge"], "paper-alfworld"),
        (["--config", "no/such.yaml", "--preset", "smoke"], "actual: both"),
        (["--split", "valid"], "generated_held_out"),
        (["--task-types", "juggling"], "pick_and_place"),
        (["--split", "train", "--data", "no/such/folder"], "no/such/folder"),
        (["--model", "no-such-org/no-such-model"], "folder with safetensors weights"),
        (["--model", "no/such/folder/at-all"], "folder with safetensors weights"),
        (["--encoder", "no-such-org/no-such-encoder"], "no-such-encoder"),
        (["--dtype", "float16"], "float32"),
        (["--history", "0"], "history of at least 1"),
        (["--threshold", "3"], "threshold"),
        (["--grpo.loss-type", "ppo"], "dapo"),
        (["--stage.group-size", "1"], "group_size of at least 2"),
        (["--collect.random-share", "1.5"], "random_share between 0 and 1"),
        (["--filter.share", "1.5"], "at most 1"),
        (["--no-such-option"], "no-such-option"),
        (["--collect.games", "many"], "many"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_names_its_fix_before_any_work(capsys, tmp_path, words, fix):
    folder = tmp_path / "run"
    assert _train(folder, *words) == 2
    out, err = capsys.readouterr()
    assert fix in " ".join((out + err).replace("│", " ").split())
    assert "Traceback" not in out + err
    assert not folder.exists()


@pytest.mark.long
@needs_games
@pytest.mark.parametrize("words", [["--preset", "huge"], ["--split", "valid"], ["--encoder", "no-such-org/none"]])
def test_errors_of_ours_are_one_line(capsys, tmp_path, words):
    assert _train(tmp_path / "run", *words) == 2
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert line.startswith("rwml-gym: ")


@needs_games
def test_the_folder_of_another_run_is_left_alone(capsys, tmp_path):
    from rwml_gym.agents.config.world_model import preset
    from rwml_gym.agents.runs.folder import start_run

    folder = tmp_path / "run"
    start_run(preset("smoke"), folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert _train(folder) == 2
    err = capsys.readouterr().err
    assert "collect.games: 4 there, 1 now" in err
    assert "another --run-dir" in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@needs_games
def test_a_folder_of_something_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert _train(tmp_path) == 2
    assert "another --run-dir" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@needs_games
def test_a_keyboard_interrupt_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    import rwml_gym.agents.jobs.world_model

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rwml_gym.agents.jobs.world_model, "run_world_model", interrupted)
    assert _train(tmp_path / "run") == 130
    assert "same command" in capsys.readouterr().err


@needs_games
def test_options_reach_the_configuration(monkeypatch):
    import rwml_gym.agents.jobs.world_model
    from rwml_gym.agents.config.world_model import preset

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(rwml_gym.agents.jobs.world_model, "run_world_model", lambda *arguments: seen.append(arguments))
    assert _main("train", "rwml", "--preset=smoke", "--grpo.beta", "0.5", "--no-baseline", "--run-dir=x/y") == 0
    ((config, folder),) = seen
    assert folder == "x/y"
    assert (config.grpo.beta, config.baseline) == (0.5, False)
    assert config.collect == preset("smoke").collect
    assert _main("train", "rwml") == 0
    assert seen[1] == (preset("demo"), "runs/demo")


@needs_games
def test_a_file_is_what_the_options_change(capsys, monkeypatch, tmp_path):
    import rwml_gym.agents.jobs.world_model
    from rwml_gym.agents.config.world_model import preset

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(rwml_gym.agents.jobs.world_model, "run_world_model", lambda *arguments: seen.append(arguments))
    path = tmp_path / "mine.yaml"
    path.write_text("history: 7\ngrpo: {learning_rate: 3e-4}\n")
    assert _main("train", "rwml", "--config", str(path), "--grpo.beta", "0.5") == 0
    ((config, folder),) = seen
    assert folder == "runs/mine"
    assert (config.history, config.grpo.learning_rate, config.grpo.beta) == (7, 3e-4, 0.5)
    assert config.collect == type(preset("demo"))().collect
    path.write_text("histroy: 7\n")
    assert _main("train", "rwml", "--config", str(path)) == 2
    assert "did you mean 'history'" in capsys.readouterr().err
    assert _main("train", "rwml", "--config", str(tmp_path / "none.yaml")) == 2
    assert "No such file" in capsys.readouterr().err
    assert len(seen) == 1


@needs_games
def test_the_configuration_that_a_run_leaves_repeats_it(monkeypatch, tmp_path):
    import rwml_gym.agents.jobs.world_model
    from rwml_gym.agents.config.world_model import preset
    from rwml_gym.agents.runs.folder import start_run

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(rwml_gym.agents.jobs.world_model, "run_world_model", lambda *arguments: seen.append(arguments))
    start_run(preset("demo-tau2"), tmp_path / "run")
    words = ["--config", str(tmp_path / "run" / "config.yaml"), "--run-dir", "again"]
    assert _main("train", "rwml", *words) == 0
    assert seen == [(preset("demo-tau2"), "again")]


@pytest.mark.parametrize("module", ["rwml_gym", "gymnasium", "numpy", "tyro", "rwml_gym.agents.cli.evaluate"])
def test_an_interrupt_while_anything_is_imported_is_no_traceback(module):
    """Wherever Ctrl-C comes in the first moments, also before the package itself is there."""
    program = (
        "import builtins, sys; stock = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        f"    if name == {module!r}: raise KeyboardInterrupt\n"
        "    return stock(name, *rest)\n"
        "import importlib; load = importlib.import_module\n"
        f"importlib.import_module = lambda name: interrupted(name) if name == {module!r} else load(name)\n"
        "import rwml_gym_command; builtins.__import__ = interrupted\n"
        "sys.argv = ['rwml-gym', 'evaluate', '--env', 'toy', '--episodes', '1']\n"
        "sys.exit(rwml_gym_command.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("Interrupted. ")
    assert "Traceback" not in done.stderr


def test_the_command_itself_imports_nothing_of_the_package():
    program = "import sys, rwml_gym_command; sys.exit('rwml_gym' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(given, expected):
    environ = dict(given)
    rwml_gym_command.wait_briefly(environ)
    assert environ == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "backend:native"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": ""}, {"PYTORCH_CUDA_ALLOC_CONF": ""}),
    ],
)
def test_memory_of_a_gpu_grows_in_place_unless_the_user_says_otherwise(given, expected, monkeypatch):
    environ = dict(given)
    rwml_gym_command.grow_in_place(environ)
    assert environ == expected
    monkeypatch.setattr("sys.platform", "win32")  # where it is not supported
    environ = {}
    rwml_gym_command.grow_in_place(environ)
    assert environ == {}


@pytest.mark.long
def test_the_command_says_so_before_openmp_is_loaded():
    """OpenMP prints what it was told when it is loaded, which is when PyTorch is imported."""
    program = (
        "import os, sys, rwml_gym_command; rwml_gym_command.wait_briefly(os.environ); "
        "assert 'torch' not in sys.modules; import torch"
    )
    environ = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environ, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("PyTorch's OpenMP is not GNU's")
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr
