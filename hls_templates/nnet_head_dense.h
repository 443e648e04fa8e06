// y[r, h, o] = Q( sum_i x[r, h, i] * kernel[h, i, o] )
#ifndef NNET_HEAD_DENSE_H_
#define NNET_HEAD_DENSE_H_

namespace nnet {

struct head_dense_config {
    static const unsigned n_rows = 1;
    static const unsigned n_heads = 1;
    static const unsigned depth_in = 1;
    static const unsigned depth_out = 1;
    typedef float accum_t;
    typedef float kernel_t;
};

template <class data_T, class res_T, typename CONFIG_T>
void head_dense(data_T data[CONFIG_T::n_rows * CONFIG_T::n_heads * CONFIG_T::depth_in],
                res_T res[CONFIG_T::n_rows * CONFIG_T::n_heads * CONFIG_T::depth_out],
                typename CONFIG_T::kernel_t kernel[CONFIG_T::n_heads * CONFIG_T::depth_in * CONFIG_T::depth_out]) {
    static_assert(CONFIG_T::n_heads > 0 && CONFIG_T::depth_in > 0, "head_dense needs heads and columns");
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = kernel complete
Rows:
    for (unsigned r = 0; r < CONFIG_T::n_rows; r++) {
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

} // namespace nnet

#endif
