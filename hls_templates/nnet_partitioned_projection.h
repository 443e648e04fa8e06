// y[c, h, i] = Q( sum_l kernel[h, c, l] * x[c * stride + l, h, i] ),  particles >= n_particles are 0
// stride = terms = ceil(N / p): chunks;  stride = 0, terms = N: Linformer's dense projection.
// broadcast: x has no head axis, every head reads all columns.
#ifndef NNET_PARTITIONED_PROJECTION_H_
#define NNET_PARTITIONED_PROJECTION_H_

namespace nnet {

struct partitioned_projection_config {
    static const unsigned n_particles = 1;
    static const unsigned n_columns = 1;
    static const unsigned n_heads = 1;
    static const unsigned n_partitions = 1;
    static const unsigned n_terms = 1;
    static const unsigned stride = 1;
    static const bool broadcast = false;
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

} // namespace nnet

#endif
