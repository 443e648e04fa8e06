// Clocks a streaming design: offers transfers in order, with gaps at random, and takes every result.
// Usage: simulator INPUT TRANSFERS OUTPUT RESULTS PERCENT
// INPUT: binary rows of whole 32-bit words, little endian. OUTPUT: for every transfer the clock at
// which it was taken, then for every result its clock and its row. PERCENT: clocks without an offer.
#include "Vtop.h"
#include "verilated.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

template <typename T> constexpr size_t row_bytes() { return (sizeof(T) + 3) / 4 * 4; }

const long PATIENCE = 100000; // clocks in which nothing moves

int main(int argc, char **argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: simulator INPUT TRANSFERS OUTPUT RESULTS PERCENT\n");
        return 2;
    }
    std::FILE *input = std::fopen(argv[1], "rb");
    std::FILE *output = std::fopen(argv[3], "wb");
    if (!input || !output) {
        std::fprintf(stderr, "cannot open the files\n");
        return 2;
    }
    const long transfers = std::atol(argv[2]), results = std::atol(argv[4]);
    const unsigned percent = std::atoi(argv[5]);
    const auto context = std::make_unique<VerilatedContext>();
    const auto top = std::make_unique<Vtop>(context.get());
    std::vector<unsigned char> in(row_bytes<decltype(top->model_inp)>(), 0);
    std::vector<unsigned char> out(row_bytes<decltype(top->model_out)>(), 0);
    std::vector<int64_t> taken;
    std::vector<unsigned char> got;
    std::mt19937 random(1);
    bool offers = false;
    long given = 0, finished = 0, moved = 0;
    for (int64_t clock = -4; finished < results; ++clock) {
        top->rst = clock < 0;
        if (clock >= 0 && !offers && given < transfers && random() % 100 >= percent) {
            if (std::fread(in.data(), 1, in.size(), input) != in.size()) {
                std::fprintf(stderr, "input ends early\n");
                return 2;
            }
            offers = true;
        }
        top->in_valid = offers;
        std::memcpy(&top->model_inp, in.data(), sizeof(top->model_inp));
        if (!offers) // what lies on the wires between transfers is nobody's business
            std::memset(&top->model_inp, random() & 0x7f, sizeof(top->model_inp));
        top->clk = 0;
        top->eval();
        const bool takes = offers && top->in_ready && clock >= 0;
        if (takes) {
            taken.push_back(clock);
            offers = false;
            ++given;
            moved = clock;
        }
        if (top->out_valid && clock >= 0) {
            std::memcpy(out.data(), &top->model_out, sizeof(top->model_out));
            const unsigned char *stamp = reinterpret_cast<const unsigned char *>(&clock);
            got.insert(got.end(), stamp, stamp + sizeof clock);
            got.insert(got.end(), out.begin(), out.end());
            ++finished;
            moved = clock;
        }
        if (clock - moved > PATIENCE) {
            std::fprintf(stderr, "stuck after %ld transfers and %ld results\n", given, finished);
            return 3;
        }
        top->clk = 1;
        top->eval();
    }
    top->final();
    std::fclose(input);
    std::fwrite(taken.data(), sizeof(int64_t), taken.size(), output);
    std::fwrite(got.data(), 1, got.size(), output);
    return std::fclose(output) == 0 ? 0 : 2;
}
