// y[c, h, i] = Q( sum_l kernel[h, c, l] * x[c * stride + l, h, i] ),  particles >= n_particles are 0
// stride = terms = ceil(N / p): chunks;  stride = 0, terms = N: Linformer's dense projection.
// broadcast: x has no head axis, every head reads all columns.
// On streams: p rows of sums, to which each particle adds its products; they leave one row a clock.
#ifndef NNET_PARTITIONED_PROJECTION_H_
#define NNET_PARTITIONED_PROJECTION_H_

#include "hls_stream.h"
#include "nnet_common.h"
#include "nnet_types.h"

namespace nnet {

struct partitioned_projection_config {
    static const unsigned n_particles = 1;
    static const unsigned n_columns = 1;
    static const unsigned n_heads = 1;
    static const unsigned n_partitions = 1;
    static const unsigned n_terms = 1;
    static const unsigned stride = 1;
    static const bool broadcast = false;
    static const unsigned rows_depth = 2; // of the FIFO between the two loops
    typedef float accum_t;
    typedef float kernel_t;
};

template <class data_T, class res_T, typename CONFIG_T>
void partitioned_projection(
    data_T data[CONFIG_T::n_particles * CONFIG_T::n_columns],
    res_T res[CONFIG_T::n_partitions * CONFIG_T::n_columns * (CONFIG_T::broadcast ? CONFIG_T::n_heads : 1)],
    typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::n_partitions * CONFIG_T::n_terms]) {
    static_assert(CONFIG_T::broadcast || CONFIG_T::n_columns % CONFIG_T::n_heads == 0,
                  "columns must divide into heads");
    static_assert(CONFIG_T::n_partitions <= CONFIG_T::n_particles, "more partitions than particles");
    const unsigned depth = CONFIG_T::broadcast ? CONFIG_T::n_columns : CONFIG_T::n_columns / CONFIG_T::n_heads;
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = kernel complete
Partitions:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
    Heads:
        for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
        Columns:
            for (unsigned i = 0; i < depth; i++) {
#pragma HLS UNROLL
                const unsigned column = CONFIG_T::broadcast ? i : h * depth + i;
                typename CONFIG_T::accum_t sum = 0;
            Terms:
                for (unsigned l = 0; l < CONFIG_T::n_terms; l++) {
#pragma HLS UNROLL
                    const unsigned n = c * CONFIG_T::stride + l;
                    if (n < CONFIG_T::n_particles)
                        sum += kernel[(h * CONFIG_T::n_partitions + c) * CONFIG_T::n_terms + l] *
                               data[n * CONFIG_T::n_columns + column];
                }
                res[(c * CONFIG_T::n_heads + h) * depth + i] = sum;
            }
        }
    }
}

// The products of particle n with one column of one head, added to the sums of that column. In chunks
// a particle has one weight a head, kernel[h, n], and belongs to one row; else one weight a row.
template <class data_T, typename CONFIG_T>
void partitioned_projection_add(unsigned n, unsigned h, const data_T &x, const typename CONFIG_T::kernel_t *kernel,
                                typename CONFIG_T::accum_t sums[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
    const bool chunks = CONFIG_T::stride > 0;
    const typename CONFIG_T::accum_t product = kernel[h * CONFIG_T::n_partitions * CONFIG_T::n_terms + n] * x;
Rows:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
        if (chunks) {
            if (c * CONFIG_T::stride <= n && n < (c + 1) * CONFIG_T::stride)
                sums[c] += product;
        } else {
            sums[c] += kernel[(h * CONFIG_T::n_partitions + c) * CONFIG_T::n_terms + n] * x;
        }
    }
}

template <class data_T, class rows_T, typename CONFIG_T>
void partitioned_projection_accumulate(
    hls::stream<data_T> &data, hls::stream<rows_T> &rows,
    typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::n_partitions * CONFIG_T::n_terms]) {
    const unsigned lanes = data_T::size / CONFIG_T::n_columns;
    const unsigned transfers = DIV_ROUNDUP(CONFIG_T::n_particles, lanes);
    const unsigned depth = CONFIG_T::broadcast ? CONFIG_T::n_columns : CONFIG_T::n_columns / CONFIG_T::n_heads;
    // A ROM for each weight that a particle reads.
    const unsigned roms = CONFIG_T::n_heads * (CONFIG_T::stride > 0 ? 1 : CONFIG_T::n_partitions);
#pragma HLS ARRAY_PARTITION variable = kernel block factor = roms
    typename CONFIG_T::accum_t sums[CONFIG_T::n_heads][depth][CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = sums complete dim = 0
Transfers:
    for (unsigned t = 0; t < transfers; t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
        rows_T y;
        PRAGMA_DATA_PACK(y)
    Heads:
        for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
        Columns:
            for (unsigned i = 0; i < depth; i++) {
#pragma HLS UNROLL
            Reset:
                for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
                    if (t == 0)
                        sums[h][i][c] = 0;
                }
            Lanes:
                for (unsigned u = 0; u < lanes; u++) {
#pragma HLS UNROLL
                    const unsigned column = CONFIG_T::broadcast ? i : h * depth + i;
                    if (t * lanes + u < CONFIG_T::n_particles)
                        partitioned_projection_add<typename data_T::value_type, CONFIG_T>(
                            t * lanes + u, h, x[u * CONFIG_T::n_columns + column], kernel, sums[h][i]);
                }
            Rows:
                for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
                    if (t == transfers - 1)
                        y[(c * CONFIG_T::n_heads + h) * depth + i] = sums[h][i][c];
                }
            }
        }
        if (t == transfers - 1)
            rows.write(y);
    }
}

template <class rows_T, class res_T, typename CONFIG_T>
void partitioned_projection_emit(hls::stream<rows_T> &rows, hls::stream<res_T> &res) {
    rows_T x;
Rows:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS PIPELINE II = 1
        if (c == 0)
            x = rows.read();
        res_T y;
        PRAGMA_DATA_PACK(y)
    Values:
        for (unsigned i = 0; i < res_T::size; i++) {
#pragma HLS UNROLL
            y[i] = x[i];
        }
    Shift:
        for (unsigned i = 0; i + res_T::size < rows_T::size; i++) {
#pragma HLS UNROLL
            x[i] = x[i + res_T::size];
        }
        res.write(y);
    }
}

template <class data_T, class res_T, typename CONFIG_T>
void partitioned_projection(
    hls::stream<data_T> &data, hls::stream<res_T> &res,
    typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::n_partitions * CONFIG_T::n_terms]) {
    static_assert(res_T::size == CONFIG_T::n_columns * (CONFIG_T::broadcast ? CONFIG_T::n_heads : 1),
                  "the projected rows leave one by one");
#pragma HLS DATAFLOW
    typedef array<typename res_T::value_type, CONFIG_T::n_partitions * res_T::size> rows_T;
    const unsigned rows_depth = CONFIG_T::rows_depth;
    hls::stream<rows_T> rows("rows");
#pragma HLS STREAM variable = rows depth = rows_depth
    partitioned_projection_accumulate<data_T, rows_T, CONFIG_T>(data, rows, kernel);
    partitioned_projection_emit<rows_T, res_T, CONFIG_T>(rows, res);
}

} // namespace nnet

#endif
