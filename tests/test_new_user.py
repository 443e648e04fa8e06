"""Mistakes of a new user: each is one line that names what was typed and says how to mend it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import without_progress

from salt_hls.cli import commands, console, main
from salt_hls.config import MODELS
from salt_hls.report.records import Report, SynthesisRecord
from salt_hls.system import wording
from salt_hls.system.paths import CHECKOUT as ROOT

Make = Callable[..., Path]

SHIPPED = (
    "not one of the shipped models (salt_p4, salt_p4_n150, salt_p4_n16, salt_p4_n16_small, "
    "salt_p4_n64, salt_p4_small)"
)

MISTAKES: dict[str, tuple[str, int, str, str]] = {
    # what: (command line, status, the message begins with, and holds)
    "a shipped model misspelt": (
        "firmware salt_p5", 1, f"model 'salt_p5': {SHIPPED}", "did you mean salt_p4?"),
    "a file misspelt": (
        "firmware smal.yaml", 1, "model 'smal.yaml': no such file in ", "did you mean small.yaml?"),
    "a file's ending left out": (
        "firmware small", 1, "model 'small': not one of the shipped", "did you mean small.yaml?"),
    "from another folder": (
        "firmware models/small.yaml", 1, "model 'models/small.yaml': no such file, and no folder ",
        "models in "),
    "a folder as model": (
        "firmware folder", 1, "model 'folder': is a folder", "give the YAML or the saved Keras"),
    "a folder with a file's ending": (
        "firmware folder.yaml", 1, "model 'folder.yaml': is a folder", "give the YAML"),
    "some file as model": (
        "firmware text.txt", 1, "model 'text.txt': not one of", "ending in .yaml, .yml, .keras,"),
    "the weights as model": (
        "firmware small.weights.h5", 1, "model 'small.weights.h5': holds weights alone",
        "give small.yaml"),
    "no weights": (
        "firmware untrained.yaml", 1, "untrained.weights.h5: no trained weights",
        "`salt-hls train untrained.yaml` makes them"),
    "weights of another model": (
        "firmware other.yaml", 1, "other.weights.h5: these weights do not fit the model's YAML",
        "train again"),
    "weights that are none": (
        "firmware broken.yaml", 1, "broken.weights.h5: cannot be read", "not an HDF5 file"),
    "a saved model that is none": (
        "firmware broken.keras", 1, "broken.keras: not a Keras model", "that can be read"),
    "a key misspelt": (
        "firmware typo.yaml", 1, "typo.yaml: unknown key 'partitons'",
        "did you mean 'partitions'?"),
    "a key inside misspelt": (
        "firmware inside.yaml", 1, "inside.yaml: unknown key 'types.attention.logit'",
        "did you mean 'logits'?"),
    "an empty YAML": (
        "firmware empty.yaml", 1, "empty.yaml: is empty", "expected keys and values"),
    "a YAML with tabs": (
        "firmware tabs.yaml", 1, "tabs.yaml: not valid YAML at line 2", "not with tabs"),
    "a word for a number": (
        "firmware words.yaml", 1, "words.yaml: particles: ", "got 'six'"),
    "a verb misspelt": (
        "firmwar small.yaml", 2, "No such command 'firmwar'", "Did you mean 'firmware'?"),
    "an option misspelt": (
        "firmware small.yaml --bugdet x", 2, "No such option: --bugdet", "--budget"),
    "an option without its value": (
        "firmware small.yaml --budget", 2, "Option '--budget' requires an argument", "--help"),
    "a model too many": (
        "firmware small.yaml other.yaml", 2, "Got unexpected extra argument", "other.yaml"),
    "a budget misspelt": (
        "firmware small.yaml --budget cms", 1, "--budget cms: no such budget",
        "known: atlas_gep, cms_l1t_jet, template; or give the path of a YAML file"),
    "a budget with a wrong key": (
        "firmware small.yaml --budget wrong.yaml", 1, "wrong.yaml: unknown key 'latency'",
        "did you mean 'latency_ns'?"),
    "a budget of an unknown device": (
        "firmware small.yaml --budget device.yaml", 1, "device.yaml: part 'xcvu99p' is not in",
        "add it"),
    "a backend misspelt": (
        "firmware small.yaml --backend vitsi", 2, "--backend vitsi: ", "'vitis', 'vivado'"),
    "a file as the folder of builds": (
        "firmware small.yaml --build text.txt", 1, "text.txt: cannot be written",
        "a file is where a folder should be"),
    "a folder inside of a file": (
        "firmware small.yaml --build text.txt/x", 1, "text.txt/x: cannot be written",
        "a file is where a folder should be"),
    "a word for a number of jets": (
        "data --jets abc", 2, "--jets abc: must be a valid integer", "`salt-hls data --help`"),
    "too few jets": ("data --jets 5", 2, "--jets 5: must be greater than or equal to 100", ""),
    "a negative seed": (
        "train small.yaml --seed -1", 2, "--seed -1: must be greater than or equal to 0", ""),
    "no jets yet": (
        "train small.yaml", 1, "data: no such jet file or folder", "`salt-hls data` generates"),
    "a folder without jets": (
        "train small.yaml --data folder", 1, "folder: no data in this folder", "found 'note.txt'"),
    "jets that are none": (
        "train small.yaml --data jets.h5", 1, "jets.h5: damaged or not readable", "fetch it again"),
    "shipping one's own": (
        "train small.yaml --ship", 1, "small.yaml: not a shipped model; leave --ship", ""),
    "training a saved model": (
        "train broken.keras", 1, "broken.keras: a training starts from a model's YAML", ""),
    "a check without golden logits": (
        "golden small.yaml --check", 1, "small.golden.csv: no golden logits yet",
        "`salt-hls golden small.yaml` writes them"),
    "a report of what is not built": (
        "report small.yaml", 1, "build/small: no such build",
        "`salt-hls firmware small.yaml` makes it"),
    "a report of nothing": ("report", 2, "give a model, or --from DIR", ""),
    "a report of no folder": ("report --from none", 1, "none: no such folder", "give the folder"),
    "a step misspelt": (
        "synth small.yaml --tool vitis --steps csyn", 1, "--steps csyn: must be some of csim,",
        "csynth"),
    "a tool that is not installed": (
        "synth small.yaml --tool vitis", 1, "--tool vitis: none of vitis-run, vitis_hls is on PATH",
        "use --tool yosys, which needs no licence"),
    "a clock without a period": (
        "rtl small.yaml --clock-ns 0", 2, "--clock-ns 0: must be 0.1 ... 1000 ns", ""),
    "a row of no study": ("results nosuch", 1, "row 'nosuch': unknown; known: base", ""),
}  # fmt: skip


@pytest.fixture
def folder(small_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's folder; small.yaml has weights, which no mistake gets so far as to read."""
    text = small_model(weights=False).read_text()
    changed = {
        "untrained": text, "other": text, "broken": text, "empty": "",
        "tabs": "particles: 3\n\tpartitions: 2\n",
        "typo": text.replace("partitions:", "partitons:"),
        "inside": text.replace("logits:", "logit:"),
        "words": text.replace("particles: 6", "particles: six"),
        "wrong": "part: xcvu13p\nlatency: 3\n", "device": "part: xcvu99p\nshare: {lut: 0.3}\n",
    }  # fmt: skip
    for name, content in changed.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    for name in ("small", "other"):
        shutil.copy(MODELS / "salt_p4.weights.h5", tmp_path / f"{name}.weights.h5")
    for name in ("broken.weights.h5", "broken.keras", "jets.h5", "text.txt"):
        (tmp_path / name).write_text("no such thing\n")
    for name in ("folder", "folder.yaml"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "note.txt").write_text("nothing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    """What a run must leave as it is; locks are for good."""
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def line_of(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command line ends with."""
    assert main.run(arguments) == status
    printed, said = capsys.readouterr()
    lines = without_progress(said)
    assert printed == "" and len(lines) == 1, (printed, said)
    assert lines[0].startswith("salt-hls: ") and "Value error" not in said
    return lines[0].removeprefix("salt-hls: ")


@pytest.mark.parametrize(
    ("typed", "status", "begins", "holds"), MISTAKES.values(), ids=MISTAKES.keys()
)
def test_a_mistake_is_one_line_with_its_fix(
    typed: str,
    status: int,
    begins: str,
    holds: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files(folder)
    line = line_of(typed.split(), status, capsys)
    assert line.startswith(begins) and holds in line, line
    assert files(folder) == before


def test_there_are_as_many_as_were_found() -> None:
    assert len(MISTAKES) >= 22


def test_a_folder_that_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    line = line_of(["firmware", "small.yaml"], 1, capsys)
    assert line.startswith("build: cannot be written (Read-only file system); make it writable")


def test_two_commands_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second says which folder it waits for, and goes on when the first has ended."""
    first = (
        "import sys, time; from pathlib import Path; from salt_hls.system.store import locked\n"
        "with locked(Path('build/small')): print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", first], env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes
    ) as holder:
        assert holder.stdout and holder.stdin and holder.stdout.readline()
        threading.Timer(0.5, holder.stdin.close).start()
        begun = time.monotonic()
        with commands.alone("small.yaml", Path("build")):
            assert time.monotonic() - begun > 0.2
    said = capsys.readouterr().err
    assert said == "salt-hls: waiting for another run on build/small to end\n"


BY_MAKE = {
    "train small.yaml --seed -1": ("SEED=-1: must be", "`make help`"),
    "firmware small.yaml --backend vitsi": ("BACKEND=vitsi: ", "`make help`"),
    "data --jets abc": ("JETS=abc: must be", "`make help`"),
    "firmware salt_p5": ("MODEL=salt_p5: not one of", "did you mean salt_p4?"),
    "firmware small.yaml --budget cms": ("BUDGET=cms: no such budget", "template"),
    "firmware untrained.yaml": ("untrained.weights.h5: ", "`make train MODEL=untrained.yaml`"),
    "golden small.yaml --check": ("small.golden.csv: ", "`make golden MODEL=small.yaml` writes"),
    "report small.yaml": ("build/small: ", "`make firmware MODEL=small.yaml` makes it"),
    "synth small.yaml --tool vitis --steps csyn": ("STEPS=csyn: must be", "csynth"),
    "synth small.yaml --tool vitis": ("TOOL=vitis: none of", "use TOOL=yosys"),
    "train small.yaml --ship": ("small.yaml: not a shipped model; leave SHIP=, ", ""),
    "rtl small.yaml --clock-ns 0": ("CLOCK_NS=0: must be", ""),
}


@pytest.mark.parametrize("typed", BY_MAKE)
def test_of_make_messages_name_its_variables(
    typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(wording.CALLER, "make")
    begins, holds = BY_MAKE[typed]
    _, status, *_ = next((m for m in MISTAKES.values() if m[0] == typed), ("", 2))
    line = line_of(typed.split(), status, capsys)
    assert line.startswith(begins) and holds in line, line
    assert "--" not in line and "salt-hls " not in line, line


# ---- make itself


def make(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("firmware MODLE=x", "`make firmware` takes no MODLE=; did you mean MODEL=? It takes "
         "BACKEND= BUDGET= ESTIMATE= MODEL= PYTHON= VENV="),
        ("firmware model=x", "`make firmware` takes no model=; did you mean MODEL=?"),
        ("firmware JETS=3", "`make firmware` takes no JETS=, but BACKEND= BUDGET= ESTIMATE="),
        ("test MODEL=x", "`make test` takes no MODEL=, but PYTHON= VENV="),
        ("MODEL=x", "`make help` takes no MODEL=, but PYTHON= VENV="),
        ("results ROW=base", "`make results` takes no ROW=; did you mean ROWS=?"),
        ("synth STEP=csim", "`make synth` takes no STEP=; did you mean STEPS=?"),
    ],
)  # fmt: skip
def test_variables_that_a_target_does_not_take(words: str, message: str) -> None:
    done = make("-n", *words.split())
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"*** salt-hls: {message}" in line


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("firmware MODEL=m.yaml BACKEND=vivado BUDGET=b.yaml",
         "firmware 'm.yaml' --backend 'vivado' --budget 'b.yaml'"),
        ("golden", "golden"),
        ("golden CHECK=1", "golden --check"),
        ("golden MODEL=salt_p4 CHECK=0", "golden 'salt_p4'"),
        ("data", "data"),
        ("data JETS=1000 DATA=jets", "data --jets '1000' --data 'jets'"),
        ("data JOBS=2 SCHEDULER=tcp://h:1", "data --jobs '2' --scheduler 'tcp://h:1'"),
        ("results ROWS=base DATA=d CLUSTER=c.yaml",
         "results base --data 'd' --cluster 'c.yaml'"),
        ("scaling SCHEDULER=tcp://h:1", "scaling --scheduler 'tcp://h:1'"),
        ("explore MODEL=m.yaml TRIALS=5 STORAGE=s.db",
         "explore 'm.yaml' --budget 'cms_l1t_jet' --trials '5' --storage 's.db'"),
        ("report STRICT=1", "report 'salt_p4' --budget 'cms_l1t_jet' --strict"),
        ("train SEED=2 SHIP=1", "train 'salt_p4' --seed '2' --ship"),
        ("firmware ESTIMATE=0", "firmware 'salt_p4' --backend 'vitis' --budget 'cms_l1t_jet' "
         "--no-estimate"),
        ("train MODEL=m.yaml TARGET_LUT=90000", "train 'm.yaml' --target-lut '90000'"),
        ("quickstart", "quickstart"),
        ("bench MODEL=m.yaml", "bench 'm.yaml'"),
    ],
)  # fmt: skip
def test_variables_become_options(words: str, command: str, tmp_path: Path) -> None:
    (tmp_path / ".ready").touch()  # and newer than what it depends on
    done = make("-n", *words.split(), f"VENV={tmp_path}")
    assert " ".join(done.stdout.split()) == f"{tmp_path}/bin/salt-hls {command}", done.stderr


def test_help_lists_every_target_and_variable() -> None:
    text = (ROOT / "Makefile").read_text()
    for done in (make(), make("help")):
        assert done.returncode == 0 and done.stderr == ""
        listed = re.findall(r"^  make ([a-z-]+) +\S", done.stdout, re.MULTILINE)
        targets = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):(?!=)", text, re.MULTILINE))
        assert {*listed, "help"} == targets
        takes = re.findall(r"^TAKES_\w+ := (.*)$", text, re.MULTILINE)
        variables = set(re.findall(r"\b[A-Z_]+\b", re.sub(r"\$\(\w+\)", "", " ".join(takes))))
        told = set(re.findall(r"\b([A-Z_]+)=", done.stdout)) | {"ROWS"}
        assert variables <= told, variables - told


def test_every_verb_has_a_target() -> None:
    text = (ROOT / "Makefile").read_text()
    verbs = {command.callback.__name__ for command in commands.app.registered_commands}  # type: ignore[union-attr]
    assert all(re.search(rf"^{verb}: ", text, re.MULTILINE) for verb in verbs)


# ---- what else a new user tries


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    version = r"\d+\.\d+\S*"
    assert re.fullmatch(
        rf"salt-hls {version}, Python {version}, TensorFlow {version}, hls4ml {version}, "
        rf"QKeras {version}",
        line,
    )


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 0
    printed, said = capsys.readouterr()
    verbs = [command.callback.__name__ for command in commands.app.registered_commands]  # type: ignore[union-attr]
    assert said == "" and all(f" {verb} " in printed for verb in verbs)


def test_the_shell_completes(folder: Path) -> None:
    """Verbs, shipped models, files that may be models, budgets."""
    for words, expected in {
        "salt-hls firmw": {"firmware"},
        "salt-hls firmware salt_p4_n1": {"salt_p4_n150", "salt_p4_n16", "salt_p4_n16_small"},
        "salt-hls firmware un": {"untrained.yaml"},
        "salt-hls firmware small.yaml --budget at": {"atlas_gep"},
    }.items():
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_SALT_HLS_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        command = [sys.executable, "-c", "from salt_hls.cli.main import main; main()"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert set(done.stdout.split()) == expected, done.stderr


def test_progress_without_a_terminal_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while nothing reports any."""
    assert console.PULSE_S <= 10
    monkeypatch.setattr(console, "PULSE_S", 0.02)
    with console.progress_bar() as update:
        time.sleep(0.1)
        update("compile", 0, 1)
        time.sleep(0.1)
        update("compare", 1200, 6157)
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r"salt-hls: .* \(\d+ s\)", line) for line in lines)
    told = [line.removeprefix("salt-hls: ").rpartition(" (")[0] for line in lines]
    assert list(dict.fromkeys(told)) == ["start", "compile", "compare 1,200/6,157"]
    assert len(told) >= 6
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_of_make_reports_say_make(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed; report.json is the same whoever has called."""
    figures = SynthesisRecord(source="x", stage="estimate", latency_cycles=3, clock_ns=2.5)
    path = folder / "build" / "small" / "report.json"
    Report(model="small", synthesis=[figures]).write(path)
    written = set()
    for caller, program in (("", "salt-hls"), ("make", "make")):
        monkeypatch.setenv(wording.CALLER, caller)
        assert main.run(["report", "small"]) == 0
        assert f"`{program} synth` estimates it" in capsys.readouterr().out
        written.add(path.read_bytes())
    assert len(written) == 1 and b"`salt-hls synth`" in written.pop()
