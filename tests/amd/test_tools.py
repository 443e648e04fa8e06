"""Driving the vendor's tools, with stand-in executables that behave like them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from salt_hls.amd.tools import run_hls, run_vivado
from salt_hls.errors import UserError
from salt_hls.system.processes import TimedOut, run

TOOL = r"""#!/bin/sh
# Stand-in: does what build_prj.tcl would have the tool do.
echo "$0 $@" | sed 's|.*/||' > called
options=build_opt.tcl
if [ ! -f $options ]; then options=o; echo "$3" | tr ' ' '\n' | tr '=' ' ' > o; fi
wanted() { grep -Eq "^ *$1 +1" $options; }
mkdir -p tb_data model_prj/solution1/syn/report model_prj/solution1/sim/report
if wanted csim; then
  echo "***** C SIMULATION *****"
  @CSIM@
  echo "PASS 0 of 8 values differ" > tb_data/csim_verdict.txt
fi
if wanted synth; then
  echo "***** C/RTL SYNTHESIS *****"
  @SYNTH@
  echo "<profile/>" > model_prj/solution1/syn/report/csynth.xml
fi
if wanted cosim; then
  echo "***** C/RTL SIMULATION *****"
  @COSIM@
  echo "PASS 0 of 8 values differ" > tb_data/cosim_verdict.txt
  echo "Pass" > model_prj/solution1/sim/report/model_cosim.rpt
fi
if wanted vsynth; then echo "***** VIVADO SYNTHESIS *****"; echo x > vivado_synth.rpt; fi
exit 0
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A written project for Vitis, and a PATH on which only the stand-ins of a test are found."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "build_prj.tcl").write_text("source build_opt.tcl\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "sed", "tr", "grep", "mkdir", "sleep", "kill"):
        for place in ("/bin", "/usr/bin"):
            if Path(place, name).exists() and not (tools / name).exists():
                (tools / name).symlink_to(Path(place, name))
    monkeypatch.setenv("PATH", str(tools))
    return folder


def install(project: Path, name: str, **steps: str) -> None:
    text = TOOL
    for step in ("CSIM", "SYNTH", "COSIM"):
        text = text.replace(f"@{step}@", steps.get(step.lower(), ":"))
    path = project.parent / "tools" / name
    path.write_text(text)
    path.chmod(0o755)


def test_missing_tools_are_named(project: Path) -> None:
    with pytest.raises(UserError, match="none of vitis-run, vitis_hls is on PATH.*yosys"):
        run_hls(project, "vitis", ["csim"])
    with pytest.raises(UserError, match="none of vivado_hls is on PATH"):
        run_hls(project, "vivado", ["csim"])
    with pytest.raises(UserError, match="vivado is not on PATH"):
        run_vivado(project)
    install(project, "vitis-run")
    with pytest.raises(UserError, match="step vsynth: vivado is not on PATH"):
        run_hls(project, "vitis", ["vsynth"])


def test_vitis_run_is_preferred_and_called_as_amd_documents(project: Path) -> None:
    install(project, "vitis_hls")
    install(project, "vitis-run")
    install(project, "vivado")
    told: list[str] = []
    done = run_hls(project, "vitis", ["cosim", "csim", "vsynth"], progress=told.append)
    assert (project / "called").read_text() == "vitis-run --tcl build_prj.tcl --mode hls\n"
    assert done.steps == ("csim", "csynth", "cosim", "vsynth")
    assert told == [
        f"vitis-run: {step}"
        for step in ("c simulation", "c/rtl synthesis", "c/rtl simulation", "vivado synthesis")
    ]
    assert "C/RTL SIMULATION" in done.log.read_text()
    options = (project / "build_opt.tcl").read_text()
    assert "    validation 1\n" in options and "    export     0\n" in options


def test_older_vitis(project: Path) -> None:
    install(project, "vitis_hls")
    run_hls(project, "vitis", ["csim"])
    assert (project / "called").read_text() == "vitis_hls -f build_prj.tcl\n"


def test_vivado_hls_takes_options_as_an_argument(project: Path) -> None:
    (project / "build_prj.tcl").write_text("foreach arg $::argv {}\n")
    install(project, "vivado_hls")
    run_hls(project, "vivado", ["csim", "csynth"])
    assert (project / "called").read_text() == (
        "vivado_hls -f build_prj.tcl reset=1 csim=1 synth=1 cosim=0 validation=0 export=0 "
        "vsynth=0 fifo_opt=0\n"
    )
    install(project, "vitis_hls")
    with pytest.raises(UserError, match="was written for --tool vivado"):
        run_hls(project, "vitis", ["csim"])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"csim": 'echo "ERROR: [SIM 211-100] compile"; exit 1'}, r"csim failed.*SIM 211-100"),
        ({"csim": "exit 0"}, "csim failed: the testbench did not run to its end"),
        (
            {"cosim": 'echo "FAIL 1 of 8 values differ" > tb_data/cosim_verdict.txt; exit 0'},
            r"cosim failed: the design differs .*1 of 8",
        ),
        ({"synth": 'echo "ERROR: [HLS 200-70] no"; exit 1'}, r"csynth failed: no new report.*HLS"),
        ({"synth": "kill -9 $$"}, "csynth failed: no new report"),
    ],
)
def test_failures_name_step_and_log(project: Path, broken: dict[str, str], message: str) -> None:
    install(project, "vitis-run")
    run_hls(project, "vitis", ["csim", "csynth", "cosim"])
    old = time.time() - 100
    for path in project.rglob("*.xml"):
        os.utime(path, (old, old))
    install(project, "vitis-run", **broken)
    with pytest.raises(UserError, match=message) as caught:
        run_hls(project, "vitis", ["csim", "csynth", "cosim"])
    assert "\n" not in str(caught.value) and str(project / "salt_hls.vitis-run.log") in str(
        caught.value
    )


COSIM = """\
+----------+----------+-----------------+-----------------+----------------------+
|          |          |     Latency     |    Interval     | Total Execution Time |
+   RTL    +  Status  +-----------------+-----------------+    (Clock Cycles)    +
|          |          | min | avg | max | min | avg | max |                      |
+----------+----------+-----------------+-----------------+----------------------+
|      VHDL|        NA|   NA|   NA|   NA|   NA|   NA|   NA|                    NA|
|   Verilog|@|   NA|   NA|   NA|   NA|   NA|   NA|                    NA|
+----------+----------+-----------------------------------+----------------------+
"""
LATER = "trap 'cp ../cosim.rpt model_prj/solution1/sim/report/model_cosim.rpt' EXIT"


@pytest.mark.parametrize("status", ["      Fail", "        NA"])
def test_the_report_of_a_cosimulation_outweighs_the_verdict_of_its_c_stage(
    project: Path, status: str
) -> None:
    """The testbench writes PASS when cosim runs the C code, before the RTL."""
    (project.parent / "tools/cp").symlink_to("/bin/cp")
    (project.parent / "cosim.rpt").write_text(COSIM.replace("@", status))
    install(project, "vitis-run", cosim=LATER)
    with pytest.raises(UserError, match="cosim failed: model_cosim.rpt does not say"):
        run_hls(project, "vitis", ["cosim"])
    assert (project / "tb_data/cosim_verdict.txt").read_text().startswith("PASS")
    (project.parent / "cosim.rpt").write_text(COSIM.replace("@", "      Pass"))
    assert run_hls(project, "vitis", ["cosim"]).steps == ("csynth", "cosim")


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ("cosim", "ERROR: [COSIM 212-4] *** C/RTL co-simulation finished: FAIL ***"),
        ("csim", "INFO: [SIM 211-1] CSim done with 3 errors."),
    ],
)
def test_what_the_tool_prints_outweighs_the_verdict(project: Path, step: str, line: str) -> None:
    install(project, "vitis-run", **{step: f"echo '{line}'"})
    with pytest.raises(UserError, match=f"{step} failed: salt_hls.vitis-run.log does not say"):
        run_hls(project, "vitis", ["csim", "cosim"])


def test_an_error_that_the_script_catches_is_not_the_reason(project: Path) -> None:
    caught = (
        "echo \"ERROR: [HLS 200-642] The 'config_array_partition -maximum_size' command is not "
        'supported."'
    )
    install(project, "vitis-run", csim=caught, synth="exit 1")
    with pytest.raises(UserError, match="no new report; see"):
        run_hls(project, "vitis", ["csim", "csynth"])
    real = 'echo "ERROR: [HLS 214-135] a real reason"; exit 1'
    install(project, "vitis-run", csim=caught, synth=real)
    with pytest.raises(UserError, match=r"no new report \(ERROR: \[HLS 214-135\] a real reason\)"):
        run_hls(project, "vitis", ["csim", "csynth"])


@pytest.mark.parametrize("name", ["vitis_hls", "vitis-run"])
def test_the_log_has_one_writer(project: Path, name: str) -> None:
    """The tools write logs of their own beside ours, the same lines except for the testbench's."""
    own = f"exec 3>./{name}.log; say() {{ echo $1; echo $1 >&3; }}; say first; echo testbench"
    install(project, name, csim=f"{own}; say last")
    done = run_hls(project, "vitis", ["csim"])
    lines = ["***** C SIMULATION *****", "first", "testbench", "last"]
    assert done.log.read_text().splitlines() == lines
    assert (project / f"{name}.log").read_text() == "first\nlast\n"


def test_a_bad_end_after_good_steps_is_a_failure(project: Path) -> None:
    install(project, "vitis-run", csim='trap "exit 3" EXIT')
    with pytest.raises(UserError, match="ended with status 3"):
        run_hls(project, "vitis", ["csim"])


def test_a_hanging_tool_is_stopped_with_its_children(project: Path) -> None:
    install(project, "vitis-run", csim="sleep 1000 & echo $! > child; wait")
    with pytest.raises(UserError, match="did not end within 1.5 s"):
        run_hls(project, "vitis", ["csim"], timeout_s=1.5)
    _ends(int((project / "child").read_text()))


def test_an_interrupt_stops_the_tool(project: Path) -> None:
    install(project, "vitis-run", csim="echo $$ > child; echo '***** ready'; sleep 1000")

    def interrupt(line: str) -> None:
        if "ready" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_hls(project, "vitis", ["csim"], progress=interrupt)
    _ends(int((project / "child").read_text()))


def _ends(pid: int) -> None:
    """A killed process leaves the table a moment after the signal; on a busy machine, later."""
    deadline = time.monotonic() + 30
    while _runs(pid):
        assert time.monotonic() < deadline, f"process {pid} runs on"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that waits for its parent to notice its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_unknown_steps_and_folders(project: Path) -> None:
    with pytest.raises(UserError, match="steps: expected some of"):
        run_hls(project, "vitis", ["place"])  # type: ignore[list-item]
    install(project, "vitis-run")
    with pytest.raises(UserError, match="no HLS project"):
        run_hls(project.parent, "vitis", ["csim"])


def test_vivado_on_an_rtl_project(project: Path) -> None:
    path = project.parent / "tools/vivado"
    path.write_text(
        "#!/bin/sh\necho \"$@\" > called\necho 'Command: synth_design -top salt'\n"
        "mkdir -p output_salt/reports\necho x > output_salt/reports/salt_post_route_util.rpt\n"
    )
    path.chmod(0o755)
    told: list[str] = []
    run_vivado(project, progress=told.append)
    assert "-mode batch" in (project / "called").read_text()
    assert told == ["vivado: synth_design -top salt"]
    path.write_text("#!/bin/sh\necho 'ERROR: [Common 17-345] no licence'\nexit 1\n")
    with pytest.raises(UserError, match="status 1.*no licence"):
        run_vivado(project)


def test_output_is_live_and_logged(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    start = time.monotonic()
    command = ["sh", "-c", "echo one; sleep 0.5; echo two >&2; printf three"]
    log = tmp_path / "log"
    status = run(
        command, tmp_path, log, on_line=lambda line: seen.append((line, time.monotonic() - start))
    )
    assert status == 0 and [line for line, _ in seen] == ["one", "two", "three"]
    assert seen[1][1] - seen[0][1] > 0.3
    assert log.read_text() == "one\ntwo\nthree"


def test_a_deaf_program_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salt_hls.system.processes.GRACE_S", 0.5)
    start = time.monotonic()
    with pytest.raises(TimedOut):
        run(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], tmp_path, tmp_path / "log",
            timeout_s=0.3)  # fmt: skip
    assert time.monotonic() - start < 20


def test_a_background_child_does_not_hold_a_finished_program(tmp_path: Path) -> None:
    start = time.monotonic()
    assert run(["sh", "-c", "sleep 60 & exit 4"], tmp_path, tmp_path / "log") == 4
    assert time.monotonic() - start < 20
