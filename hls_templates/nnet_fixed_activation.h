// y[i] = Q(x[i])  or  Q(max(x[i], 0)),  Q: assignment to res_T
#ifndef NNET_FIXED_ACTIVATION_H_
#define NNET_FIXED_ACTIVATION_H_

namespace nnet {

struct fixed_activation_config {
    static const unsigned n_in = 1;
    static const bool relu = false;
};

template <class data_T, class res_T, typename CONFIG_T>
void fixed_activation(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in]) {
    static_assert(CONFIG_T::n_in > 0, "fixed_activation needs values");
#pragma HLS PIPELINE II = 1
Values:
    for (unsigned i = 0; i < CONFIG_T::n_in; i++) {
#pragma HLS UNROLL
        data_T x = data[i];
        if (CONFIG_T::relu && x < 0)
            x = 0;
        res[i] = x;
    }
}

} // namespace nnet

#endif
