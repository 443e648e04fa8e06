// y[i] = table[Q_in(x[i])],  table[b] = Q( tanh(alpha * value(b) + beta) ) for the bit pattern b
#ifndef NNET_DYNAMIC_TANH_H_
#define NNET_DYNAMIC_TANH_H_

namespace nnet {

struct dynamic_tanh_config {
    static const unsigned n_in = 1;
    static const unsigned index_width = 1;
    typedef float argument_t;
    typedef float table_t;
};

template <class data_T, class res_T, typename CONFIG_T>
void dynamic_tanh(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in],
                  typename CONFIG_T::table_t table[1 << CONFIG_T::index_width]) {
    static_assert(CONFIG_T::argument_t::width == CONFIG_T::index_width, "one entry for each argument");
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = table complete
Values:
    for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
#pragma HLS UNROLL
        typename CONFIG_T::argument_t x = data[i];
        ap_uint<CONFIG_T::index_width> bits = x.range(CONFIG_T::index_width - 1, 0);
        res[i] = table[bits.to_uint()];
    }
}

} // namespace nnet

#endif
