// Clocks the generated design: one input row before every rising edge, one output row after it.
// Usage: simulator INPUT OUTPUT CYCLES (binary rows of whole 32-bit words, little endian)
#include "Vtop.h"
#include "verilated.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

template <typename T> constexpr size_t row_bytes() { return (sizeof(T) + 3) / 4 * 4; }

int main(int argc, char **argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: simulator INPUT OUTPUT CYCLES\n");
        return 2;
    }
    std::FILE *input = std::fopen(argv[1], "rb");
    std::FILE *output = std::fopen(argv[2], "wb");
    if (!input || !output) {
        std::fprintf(stderr, "cannot open the files\n");
        return 2;
    }
    const auto context = std::make_unique<VerilatedContext>();
    const auto top = std::make_unique<Vtop>(context.get());
    std::vector<unsigned char> in(row_bytes<decltype(top->model_inp)>(), 0);
    std::vector<unsigned char> out(row_bytes<decltype(top->model_out)>(), 0);
    for (long cycle = std::atol(argv[3]); cycle > 0; --cycle) {
        if (std::fread(in.data(), 1, in.size(), input) != in.size()) {
            std::fprintf(stderr, "input ends early\n");
            return 2;
        }
        std::memcpy(&top->model_inp, in.data(), sizeof(top->model_inp));
        top->clk = 0;
        top->eval();
        top->clk = 1;
        top->eval();
        std::memcpy(out.data(), &top->model_out, sizeof(top->model_out));
        if (std::fwrite(out.data(), 1, out.size(), output) != out.size()) {
            std::fprintf(stderr, "cannot write the output\n");
            return 2;
        }
    }
    top->final();
    std::fclose(input);
    return std::fclose(output) == 0 ? 0 : 2;
}
