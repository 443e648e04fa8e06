"""The emitted HLS testbench: carries golden outputs and fails when one bit differs.

hls4ml's own testbench prints results and always succeeds. This one replaces it, in C-simulation
and in C/RTL co-simulation: values travel as integers, so no decimal text is ever rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.hls import hls4ml_types as hls4ml
from salt_hls.hls.nodes import fixed_type_of, tensor

INPUTS, GOLDEN = "tb_data/tb_inputs.dat", "tb_data/tb_golden.dat"
VERDICTS = {"csim": "csim_verdict.txt", "cosim": "cosim_verdict.txt"}
"""What the testbench leaves in tb_data: `PASS` or `FAIL`, and the counts."""

_SOURCE = """\
// Compares the design with golden outputs, bit by bit; a difference makes it fail.
#include <fstream>
#include <iostream>
#include <string>

#include "firmware/@TOP@.h"
#include "firmware/nnet_utils/nnet_helpers.h"
@INCLUDES@

namespace nnet {
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
} // namespace nnet

@NAMESPACE@
#ifdef RTL_SIM
static const char *RESULTS = "tb_data/rtl_cosim_results.log";
static const char *VERDICT = "tb_data/@COSIM@";
#else
static const char *RESULTS = "tb_data/csim_results.log";
static const char *VERDICT = "tb_data/@CSIM@";
#endif

static std::ifstream inputs("@INPUTS@");
static std::ifstream golden("@GOLDEN@");
static std::ofstream results(RESULTS);
static unsigned event_number = 0;
static unsigned values = 0;
static unsigned differences = 0;
static bool complete = true;

// Codes are unsigned: the bits of the value.
static unsigned long long next(std::ifstream &file) {
    unsigned long long code = 0;
    if (!(file >> code))
        complete = false;
    return code;
}

template <class T, int W> void give(T &value) { value.range(W - 1, 0) = next(inputs); }

template <class T, int W> void check(T &value) {
    unsigned long long expected = next(golden);
    unsigned long long got = value.range(W - 1, 0).to_uint64();
    if (got != expected) {
        if (differences == 0)
            std::cout << "ERROR: event " << event_number << ": expected code " << expected
                      << ", got " << got << std::endl;
        differences++;
    }
    values++;
    results << value.to_double() << " ";
}

int main() {
    for (event_number = 0; event_number < @EVENTS@; event_number++) {
@BODY@
        results << std::endl;
    }
    if (!complete || !results)
        std::cout << "ERROR: tb_data cannot be read or written, or ends early" << std::endl;
    bool passed = complete && results && differences == 0;
    std::ofstream verdict(VERDICT);
    verdict << (passed ? "PASS " : "FAIL ") << differences << " of " << values
            << " values differ" << std::endl;
    std::cout << "salt-hls: " << differences << " of " << values
              << " values of @EVENTS@ events differ" << std::endl;
    return passed ? 0 : 1;
}
"""


def write_testbench(
    graph: hls4ml.Graph,
    project: Path,
    inputs: Sequence[NDArray[np.float64]],
    golden: Sequence[NDArray[np.float64]],
) -> None:
    """Replaces the testbench of a project that hls4ml has written for `graph`.

    inputs, golden: grid floats (events, *shape), one array for each input and output, in order.
    """
    name = graph.config.get_project_name()
    ins, outs = graph.get_input_variables(), list(graph.get_output_variables())
    brams = [v for v in graph.get_weight_variables() if v.storage.lower() == "bram"]
    data = project / "tb_data"
    data.mkdir(exist_ok=True)
    (project / INPUTS).write_text(_codes(ins, inputs))
    (project / GOLDEN).write_text(_codes(outs, golden))
    body = [f"{variable.definition_cpp()};" for variable in [*ins, *outs]]
    body += [line for variable in ins for line in _transfer(variable, "give")]
    call = ", ".join([v.name for v in (*ins, *outs)] + [bram.name for bram in brams])
    body += [f"{name}({call});"]
    body += [line for variable in outs for line in _transfer(variable, "check")]
    namespace = graph.config.get_writer_config().get("Namespace")
    text = _SOURCE
    for key, value in {
        "TOP": name,
        "INCLUDES": "\n".join(f'#include "firmware/weights/{b.name}.h"' for b in brams),
        "NAMESPACE": f"using namespace {namespace};\n" if namespace else "",
        "CSIM": VERDICTS["csim"],
        "COSIM": VERDICTS["cosim"],
        "INPUTS": INPUTS,
        "GOLDEN": GOLDEN,
        "EVENTS": str(len(inputs[0])),
        "BODY": "\n".join("        " + line for line in body),
    }.items():
        text = text.replace(f"@{key}@", value)
    (project / f"{name}_test.cpp").write_text(text)


def _codes(variables: Sequence[hls4ml.Variable], arrays: Sequence[NDArray[np.float64]]) -> str:
    columns = []
    for variable, array in zip(variables, arrays, strict=True):
        fixed_type = fixed_type_of(variable.type.precision)
        if not fixed_type.contains(array):
            raise UserError(f"testbench: {variable.name} has values that are not {fixed_type}")
        codes = fixed_type.codes(np.asarray(array).reshape(len(array), -1))
        columns.append(codes & (2**fixed_type.width - 1))
    rows = np.concatenate(columns, axis=1)
    return "".join(" ".join(map(str, row)) + "\n" for row in rows.tolist())


def _transfer(variable: hls4ml.Variable, function: str) -> list[str]:
    """C++ lines that give or check every value of a variable: an array, or a stream of arrays."""
    fixed_type: FixedType = fixed_type_of(variable.type.precision)
    width, name, type_name = fixed_type.width, variable.name, variable.type.name
    size = math.prod(variable.shape)
    if not variable.definition_cpp().lstrip().startswith("hls::stream"):
        return [
            f"for (unsigned i = 0; i < {size}; i++)",
            f"    {function}<{type_name}, {width}>({name}[i]);",
        ]
    stream = tensor(name, variable)
    per_token = stream.transfer_size
    # The last transfer of several particles may be partly filled: the rest of it is don't-care.
    inside = "" if size % per_token == 0 else f"if (t * {per_token} + i < {size}) "
    each = [
        f"    for (unsigned i = 0; i < {per_token}; i++)",
        f"        {inside}{function}<{type_name}::value_type, {width}>(token[i]);",
    ]
    if function == "give":
        inner = [f"    {type_name} token = {type_name}();", *each, f"    {name}.write(token);"]
    else:
        inner = [f"    {type_name} token = {name}.read();", *each]
    return [f"for (unsigned t = 0; t < {stream.transfers}; t++) {{", *inner, "}"]
