// y[i] = Q(x[i])  or  Q(max(x[i], 0)),  Q: assignment to res_T
#ifndef NNET_FIXED_ACTIVATION_H_
#define NNET_FIXED_ACTIVATION_H_

#include "hls_stream.h"
#include "nnet_common.h"

namespace nnet {

struct fixed_activation_config {
    static const unsigned n_in = 1;
    static const bool relu = false;
};

template <class data_T, class res_T, unsigned SIZE, typename CONFIG_T>
void fixed_activation_values(const data_T data[SIZE], res_T res[SIZE]) {
#pragma HLS INLINE
Values:
    for (unsigned i = 0; i < SIZE; i++) {
#pragma HLS UNROLL
        data_T x = data[i];
        if (CONFIG_T::relu && x < 0)
            x = 0;
        res[i] = x;
    }
}

template <class data_T, class res_T, typename CONFIG_T>
void fixed_activation(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in]) {
    static_assert(CONFIG_T::n_in > 0, "fixed_activation needs values");
#pragma HLS PIPELINE II = 1
    fixed_activation_values<data_T, res_T, CONFIG_T::n_in, CONFIG_T>(data, res);
}

template <class data_T, class res_T, typename CONFIG_T>
void fixed_activation(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    static_assert(data_T::size == res_T::size, "a transfer out for each transfer in");
Transfers:
    for (unsigned t = 0; t < DIV_ROUNDUP(CONFIG_T::n_in, data_T::size); t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
        res_T y;
        PRAGMA_DATA_PACK(y)
        fixed_activation_values<typename data_T::value_type, typename res_T::value_type, data_T::size, CONFIG_T>(
            x.data, y.data);
        res.write(y);
    }
}

} // namespace nnet

#endif
