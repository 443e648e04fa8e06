// y[i] = table[Q_in(x[i])],  table[b] = Q( tanh(alpha * value(b) + beta) ) for the bit pattern b
#ifndef NNET_DYNAMIC_TANH_H_
#define NNET_DYNAMIC_TANH_H_

#include "hls_stream.h"
#include "nnet_common.h"

namespace nnet {

struct dynamic_tanh_config {
    static const unsigned n_in = 1;
    static const unsigned index_width = 1;
    typedef float argument_t;
    typedef float table_t;
};

template <class data_T, class res_T, unsigned SIZE, typename CONFIG_T>
void dynamic_tanh_values(const data_T data[SIZE], res_T res[SIZE],
                         const typename CONFIG_T::table_t table[1 << CONFIG_T::index_width]) {
    static_assert(CONFIG_T::argument_t::width == CONFIG_T::index_width, "one entry for each argument");
#pragma HLS INLINE
Values:
    for (unsigned i = 0; i < SIZE; i++) {
#pragma HLS UNROLL
        typename CONFIG_T::argument_t x = data[i];
        ap_uint<CONFIG_T::index_width> bits = x.range(CONFIG_T::index_width - 1, 0);
        res[i] = table[bits.to_uint()];
    }
}

template <class data_T, class res_T, typename CONFIG_T>
void dynamic_tanh(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in],
                  typename CONFIG_T::table_t table[1 << CONFIG_T::index_width]) {
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = table complete
    dynamic_tanh_values<data_T, res_T, CONFIG_T::n_in, CONFIG_T>(data, res, table);
}

template <class data_T, class res_T, typename CONFIG_T>
void dynamic_tanh(hls::stream<data_T> &data, hls::stream<res_T> &res,
                  typename CONFIG_T::table_t table[1 << CONFIG_T::index_width]) {
    static_assert(data_T::size == res_T::size, "a transfer out for each transfer in");
#pragma HLS ARRAY_PARTITION variable = table complete
Transfers:
    for (unsigned t = 0; t < DIV_ROUNDUP(CONFIG_T::n_in, data_T::size); t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
        res_T y;
        PRAGMA_DATA_PACK(y)
        dynamic_tanh_values<typename data_T::value_type, typename res_T::value_type, data_T::size, CONFIG_T>(
            x.data, y.data, table);
        res.write(y);
    }
}

} // namespace nnet

#endif
