// y[r, h, o] = Q( sum_i x[r, h, i] * kernel[h, i, o] )
#ifndef NNET_HEAD_DENSE_H_
#define NNET_HEAD_DENSE_H_

#include "hls_stream.h"
#include "nnet_common.h"

namespace nnet {

struct head_dense_config {
    static const unsigned n_rows = 1;
    static const unsigned n_heads = 1;
    static const unsigned depth_in = 1;
    static const unsigned depth_out = 1;
    typedef float accum_t;
    typedef float kernel_t;
};

template <class data_T, class res_T, unsigned ROWS, typename CONFIG_T>
void head_dense_rows(const data_T *data, res_T *res, const typename CONFIG_T::kernel_t *kernel) {
    static_assert(CONFIG_T::n_heads > 0 && CONFIG_T::depth_in > 0, "head_dense needs heads and columns");
#pragma HLS INLINE
Rows:
    for (unsigned r = 0; r < ROWS; r++) {
#pragma HLS UNROLL
    Heads:
        for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
        Outputs:
            for (unsigned o = 0; o < CONFIG_T::depth_out; o++) {
#pragma HLS UNROLL
                typename CONFIG_T::accum_t sum = 0;
            Inputs:
                for (unsigned i = 0; i < CONFIG_T::depth_in; i++) {
#pragma HLS UNROLL
                    sum += data[(r * CONFIG_T::n_heads + h) * CONFIG_T::depth_in + i] *
                           kernel[(h * CONFIG_T::depth_in + i) * CONFIG_T::depth_out + o];
                }
                res[(r * CONFIG_T::n_heads + h) * CONFIG_T::depth_out + o] = sum;
            }
        }
    }
}

template <class data_T, class res_T, typename CONFIG_T>
void head_dense(data_T data[CONFIG_T::n_rows * CONFIG_T::n_heads * CONFIG_T::depth_in],
                res_T res[CONFIG_T::n_rows * CONFIG_T::n_heads * CONFIG_T::depth_out],
                typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::depth_in * CONFIG_T::depth_out]) {
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = kernel complete
    head_dense_rows<data_T, res_T, CONFIG_T::n_rows, CONFIG_T>(data, res, kernel);
}

template <class data_T, class res_T, typename CONFIG_T>
void head_dense(hls::stream<data_T> &data, hls::stream<res_T> &res,
                typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::depth_in * CONFIG_T::depth_out]) {
    const unsigned rows = data_T::size / (CONFIG_T::n_heads * CONFIG_T::depth_in);
    static_assert(res_T::size == rows * CONFIG_T::n_heads * CONFIG_T::depth_out, "as many rows out as in");
#pragma HLS ARRAY_PARTITION variable = kernel complete
Transfers:
    for (unsigned t = 0; t < DIV_ROUNDUP(CONFIG_T::n_rows, rows); t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
        res_T y;
        PRAGMA_DATA_PACK(y)
        head_dense_rows<typename data_T::value_type, typename res_T::value_type, rows, CONFIG_T>(x.data, y.data,
                                                                                                 kernel);
        res.write(y);
    }
}

} // namespace nnet

#endif
