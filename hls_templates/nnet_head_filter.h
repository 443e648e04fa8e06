// y[n, h, d] = Q( sum_a kernel[h, a] * x[n + a - pad_up, h, d] ),  zeros outside
// On streams, two loops: one hands the rows on, those that the filter looks ahead together; the other
// slides a window over them.
#ifndef NNET_HEAD_FILTER_H_
#define NNET_HEAD_FILTER_H_

#include "hls_stream.h"
#include "nnet_common.h"
#include "nnet_types.h"

namespace nnet {

struct head_filter_config {
    static const unsigned n_rows = 1;
    static const unsigned n_heads = 1;
    static const unsigned depth = 1;
    static const unsigned height = 1;
    static const unsigned pad_up = 0;
    static const unsigned early_depth = 2; // of the FIFOs between the loops
    static const unsigned late_depth = 2;
    typedef float accum_t; // exact
    typedef float kernel_t;
};

// One row: `window` holds the rows that the filter covers, zeros outside the tensor.
template <class data_T, class res_T, typename CONFIG_T>
void head_filter_row(const data_T window[CONFIG_T::height][CONFIG_T::n_heads * CONFIG_T::depth],
                     const typename CONFIG_T::kernel_t *kernel, res_T *res) {
    static_assert(CONFIG_T::height > CONFIG_T::pad_up, "a filter covers its own row");
#pragma HLS INLINE
Columns:
    for (unsigned c = 0; c < CONFIG_T::n_heads * CONFIG_T::depth; c++) {
#pragma HLS UNROLL
        typename CONFIG_T::accum_t sum = 0;
    FilterRows:
        for (unsigned a = 0; a < CONFIG_T::height; a++) {
#pragma HLS UNROLL
            sum += kernel[c / CONFIG_T::depth * CONFIG_T::height + a] * window[a][c];
        }
        res[c] = sum;
    }
}

template <class data_T, class res_T, typename CONFIG_T>
void head_filter(data_T data[CONFIG_T::n_rows * CONFIG_T::n_heads * CONFIG_T::depth],
                 res_T res[CONFIG_T::n_rows * CONFIG_T::n_heads * CONFIG_T::depth],
                 typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::height]) {
    const unsigned columns = CONFIG_T::n_heads * CONFIG_T::depth;
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = kernel complete
    // The tensor between the zeros before and after it.
    data_T padded[CONFIG_T::n_rows + CONFIG_T::height - 1][columns];
#pragma HLS ARRAY_PARTITION variable = padded complete dim = 0
Padding:
    for (unsigned n = 0; n < CONFIG_T::n_rows + CONFIG_T::height - 1; n++) {
#pragma HLS UNROLL
        for (unsigned c = 0; c < columns; c++) {
#pragma HLS UNROLL
            if (n >= CONFIG_T::pad_up && n < CONFIG_T::pad_up + CONFIG_T::n_rows)
                padded[n][c] = data[(n - CONFIG_T::pad_up) * columns + c];
            else
                padded[n][c] = 0;
        }
    }
Rows:
    for (unsigned n = 0; n < CONFIG_T::n_rows; n++) {
#pragma HLS UNROLL
        head_filter_row<data_T, res_T, CONFIG_T>(padded + n, kernel, res + n * columns);
    }
}

// Streams: sizes in lanes (rows of a transfer) and transfers.
template <class data_T, typename CONFIG_T> struct head_filter_stream {
    static const unsigned columns = CONFIG_T::n_heads * CONFIG_T::depth;
    static const unsigned lanes = data_T::size / columns;
    static const unsigned transfers = DIV_ROUNDUP(CONFIG_T::n_rows, lanes);
    // So many transfers beyond its own the filter of a transfer looks ahead.
    static const unsigned ahead = DIV_ROUNDUP(CONFIG_T::height - 1 - CONFIG_T::pad_up, lanes);
    // They travel together: then the window is full at the first step and every step emits.
    static const unsigned early = MIN(ahead, transfers);
    typedef array<typename data_T::value_type, data_T::size> late_t;
    typedef array<typename data_T::value_type, (early > 0 ? early : 1) * data_T::size> early_t;
};

template <class data_T, class early_T, class late_T, typename CONFIG_T>
void head_filter_stream_rows(hls::stream<data_T> &data, hls::stream<early_T> &early, hls::stream<late_T> &late) {
    typedef head_filter_stream<data_T, CONFIG_T> sizes;
    early_T first;
    PRAGMA_DATA_PACK(first)
Transfers:
    for (unsigned t = 0; t < sizes::transfers; t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
        late_T y;
        PRAGMA_DATA_PACK(y)
    Values:
        for (unsigned i = 0; i < data_T::size; i++) {
#pragma HLS UNROLL
            if (t * sizes::lanes + i / sizes::columns < CONFIG_T::n_rows)
                y[i] = x[i];
            else
                y[i] = 0;
        }
    Early:
        for (unsigned i = 0; i < early_T::size; i++) {
#pragma HLS UNROLL
            if (i / data_T::size == t)
                first[i] = y[i % data_T::size];
        }
        if (t + 1 == sizes::early)
            early.write(first);
        if (t >= sizes::early)
            late.write(y);
    }
}

template <class data_T, class res_T, class early_T, class late_T, typename CONFIG_T>
void head_filter_stream_filter(hls::stream<early_T> &early, hls::stream<late_T> &late, hls::stream<res_T> &res,
                               typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::height]) {
    typedef head_filter_stream<data_T, CONFIG_T> sizes;
    typedef typename data_T::value_type value_T;
    // Row w of the window is row t * lanes - pad_up + w of the tensor.
    const unsigned rows = CONFIG_T::pad_up + (sizes::ahead + 1) * sizes::lanes;
    value_T window[rows][sizes::columns];
#pragma HLS ARRAY_PARTITION variable = window complete dim = 0
#pragma HLS ARRAY_PARTITION variable = kernel complete
    early_T first;
    late_T last;
Transfers:
    for (unsigned t = 0; t < sizes::transfers; t++) {
#pragma HLS PIPELINE II = 1
        if (t == 0 && sizes::early > 0)
            first = early.read();
        if (t + sizes::ahead < sizes::transfers)
            last = late.read();
    Slide:
        for (unsigned w = 0; w < rows; w++) {
#pragma HLS UNROLL
            // Where row w stands in `first` and in `last`, if it is there.
            const unsigned i_first = w - CONFIG_T::pad_up, i_last = w + sizes::lanes - rows;
        Columns:
            for (unsigned c = 0; c < sizes::columns; c++) {
#pragma HLS UNROLL
                value_T x = 0;
                if (w + sizes::lanes >= rows) {
                    if (t + sizes::ahead < sizes::transfers)
                        x = last[i_last * sizes::columns + c];
                } else if (t > 0) {
                    x = window[w + sizes::lanes][c];
                } else if (w >= CONFIG_T::pad_up && i_first < sizes::early * sizes::lanes) {
                    x = first[i_first * sizes::columns + c];
                }
                window[w][c] = x;
            }
        }
        res_T y;
        PRAGMA_DATA_PACK(y)
    Lanes:
        for (unsigned u = 0; u < sizes::lanes; u++) {
#pragma HLS UNROLL
            head_filter_row<value_T, typename res_T::value_type, CONFIG_T>(window + u, kernel,
                                                                           y.data + u * sizes::columns);
        }
        res.write(y);
    }
}

template <class data_T, class res_T, typename CONFIG_T>
void head_filter(hls::stream<data_T> &data, hls::stream<res_T> &res,
                 typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::height]) {
    typedef typename head_filter_stream<data_T, CONFIG_T>::early_t early_T;
    typedef typename head_filter_stream<data_T, CONFIG_T>::late_t late_T;
    static_assert(int(res_T::size) == int(data_T::size), "a transfer out for each transfer in");
#pragma HLS DATAFLOW
    const unsigned early_depth = CONFIG_T::early_depth, late_depth = CONFIG_T::late_depth;
    hls::stream<early_T> early("early");
#pragma HLS STREAM variable = early depth = early_depth
    hls::stream<late_T> late("late");
#pragma HLS STREAM variable = late depth = late_depth
    head_filter_stream_rows<data_T, early_T, late_T, CONFIG_T>(data, early, late);
    head_filter_stream_filter<data_T, res_T, early_T, late_T, CONFIG_T>(early, late, res, kernel);
}

} // namespace nnet

#endif
