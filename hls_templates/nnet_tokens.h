// hls4ml's own layers on streams that carry several particles a clock:
// token_dense: y[n, :] = Q( x[n, :] W + b );  token_maximum: y[c] = max_n x[n, c]
#ifndef NNET_TOKENS_H_
#define NNET_TOKENS_H_

#include "hls_stream.h"
#include "nnet_common.h"

namespace nnet {

template <class data_T, class res_T, unsigned PARTICLES, typename CONFIG_T>
void token_dense(hls::stream<data_T> &data, hls::stream<res_T> &res,
                 typename CONFIG_T::weight_t weights[CONFIG_T::n_in * CONFIG_T::n_out],
                 typename CONFIG_T::bias_t biases[CONFIG_T::n_out]) {
    typedef typename data_T::value_type in_T;
    typedef typename res_T::value_type out_T;
    const unsigned lanes = data_T::size / CONFIG_T::n_in;
    static_assert(res_T::size == lanes * CONFIG_T::n_out, "a transfer out for each transfer in");
Transfers:
    for (unsigned t = 0; t < DIV_ROUNDUP(PARTICLES, lanes); t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
        res_T y;
        PRAGMA_DATA_PACK(y)
    Lanes:
        for (unsigned u = 0; u < lanes; u++) {
#pragma HLS UNROLL
            CONFIG_T::template kernel<in_T, out_T, CONFIG_T>::dense(x.data + u * CONFIG_T::n_in,
                                                                    y.data + u * CONFIG_T::n_out, weights, biases);
        }
        res.write(y);
    }
}

template <class data_T, class res_T, unsigned PARTICLES>
void token_maximum(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    const unsigned lanes = data_T::size / res_T::size;
    const unsigned transfers = DIV_ROUNDUP(PARTICLES, lanes);
    res_T y;
    PRAGMA_DATA_PACK(y)
Transfers:
    for (unsigned t = 0; t < transfers; t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
    Lanes:
        for (unsigned u = 0; u < lanes; u++) {
#pragma HLS UNROLL
        Columns:
            for (unsigned c = 0; c < res_T::size; c++) {
#pragma HLS UNROLL
                const typename data_T::value_type value = x[u * res_T::size + c];
                if (t * lanes + u < PARTICLES && (t * lanes + u == 0 || value > y[c]))
                    y[c] = value;
            }
        }
        if (t == transfers - 1)
            res.write(y);
    }
}

} // namespace nnet

#endif
