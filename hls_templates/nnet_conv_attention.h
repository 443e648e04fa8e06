// S[h,n,c] = Q( q[n,h,:] . k[c,h,:] / 2^shift )
// C[h,n,c] = Q( sum_{a,j} kernel[a,j] * S[h, n + a - pad_up, c + j - pad_left] ),  zeros outside
// e = Q( exp(C - max C) )   s = Q( sum e )   A = Q( e * Q(1 / s) )   per row, by two tables
// o[n,h,:] = Q( sum_c A[h,n,c] * v[c,h,:] )
// filter_height 0 means no convolution: C = S.
#ifndef NNET_CONV_ATTENTION_H_
#define NNET_CONV_ATTENTION_H_

namespace nnet {

struct conv_attention_config {
    static const unsigned n_particles = 1;
    static const unsigned n_partitions = 1;
    static const unsigned n_heads = 1;
    static const unsigned depth = 1;
    static const unsigned filter_height = 0;
    static const unsigned pad_up = 0;
    static const unsigned pad_left = 0;
    static const unsigned first_sum = 0;   // code of the least sum, at reciprocal_table[0]
    static const unsigned reciprocals = 1; // entries of reciprocal_table
    typedef float dot_t;                   // exact q.k
    typedef float scaled_t;                // the bits of dot_t, divided by 2^shift
    typedef float logits_t;
    typedef float conv_sum_t; // exact
    typedef float conv_t;
    typedef float difference_t; // exact max C - C
    typedef float exp_t;
    typedef float exp_sum_t; // exact
    typedef float sum_t;
    typedef float reciprocal_t;
    typedef float attention_t;
    typedef float context_sum_t; // exact
    typedef float kernel_t;
};

// One row of one head: dot products of a query with every key.
template <class query_T, class key_T, typename CONFIG_T>
void conv_attention_logits(const query_T *query, const key_T *key, unsigned head,
                           typename CONFIG_T::logits_t logits[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
Keys:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
        typename CONFIG_T::dot_t dot = 0;
    Dot:
        for (unsigned d = 0; d < CONFIG_T::depth; d++) {
#pragma HLS UNROLL
            const unsigned column = head * CONFIG_T::depth + d;
            dot += query[column] * key[c * CONFIG_T::n_heads * CONFIG_T::depth + column];
        }
        typename CONFIG_T::scaled_t scaled = 0;
        scaled.range(CONFIG_T::scaled_t::width - 1, 0) = dot.range(CONFIG_T::dot_t::width - 1, 0);
        logits[c] = scaled;
    }
}

// One row of the convolution over the logits (N, p) of one head.
template <typename CONFIG_T>
void conv_attention_convolve(typename CONFIG_T::logits_t logits[CONFIG_T::n_particles][CONFIG_T::n_partitions],
                             unsigned n,
                             typename CONFIG_T::kernel_t kernel[CONFIG_T::filter_height * CONFIG_T::n_partitions],
                             typename CONFIG_T::conv_t row[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
Columns:
    for (int c = 0; c < int(CONFIG_T::n_partitions); c++) {
#pragma HLS UNROLL
        typename CONFIG_T::conv_sum_t sum = 0;
    FilterRows:
        for (int a = 0; a < int(CONFIG_T::filter_height); a++) {
#pragma HLS UNROLL
        FilterColumns:
            for (int j = 0; j < int(CONFIG_T::n_partitions); j++) {
#pragma HLS UNROLL
                const int i_n = int(n) + a - int(CONFIG_T::pad_up);
                const int i_c = c + j - int(CONFIG_T::pad_left);
                if (i_n >= 0 && i_n < int(CONFIG_T::n_particles) && i_c >= 0 && i_c < int(CONFIG_T::n_partitions))
                    sum += kernel[a * CONFIG_T::n_partitions + j] * logits[i_n][i_c];
            }
        }
        row[c] = sum;
    }
}

// Softmax of one row.
template <typename CONFIG_T>
void conv_attention_softmax(typename CONFIG_T::conv_t row[CONFIG_T::n_partitions],
                            typename CONFIG_T::exp_t exp_table[1 << CONFIG_T::difference_t::width],
                            typename CONFIG_T::reciprocal_t reciprocal_table[CONFIG_T::reciprocals],
                            typename CONFIG_T::attention_t attention[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
    typename CONFIG_T::conv_t largest = row[0];
Largest:
    for (unsigned c = 1; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
        if (row[c] > largest)
            largest = row[c];
    }
    typename CONFIG_T::exp_t exponential[CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = exponential complete
    typename CONFIG_T::exp_sum_t exact_sum = 0;
Exponentials:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
        typename CONFIG_T::difference_t difference = largest - row[c];
        ap_uint<CONFIG_T::difference_t::width> bits = difference.range(CONFIG_T::difference_t::width - 1, 0);
        exponential[c] = exp_table[bits.to_uint()];
        exact_sum += exponential[c];
    }
    typename CONFIG_T::sum_t sum = exact_sum;
    ap_uint<CONFIG_T::sum_t::width> bits = sum.range(CONFIG_T::sum_t::width - 1, 0);
    typename CONFIG_T::reciprocal_t reciprocal = reciprocal_table[bits.to_uint() - CONFIG_T::first_sum];
Normalize:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
        attention[c] = exponential[c] * reciprocal;
    }
}

// The context of one particle in one head: the values averaged with its attention weights.
template <class value_T, class res_T, typename CONFIG_T>
void conv_attention_context(typename CONFIG_T::attention_t attention[CONFIG_T::n_partitions], const value_T *value,
                            unsigned head, res_T *res) {
#pragma HLS INLINE
Columns:
    for (unsigned d = 0; d < CONFIG_T::depth; d++) {
#pragma HLS UNROLL
        const unsigned column = head * CONFIG_T::depth + d;
        typename CONFIG_T::context_sum_t sum = 0;
    Values:
        for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
            sum += attention[c] * value[c * CONFIG_T::n_heads * CONFIG_T::depth + column];
        }
        res[column] = sum;
    }
}

// The convolution where the model has one, else a copy: decided when the template is made, so that
// a model without convolution needs no kernel.
template <unsigned height> struct conv_attention_filter {
    template <typename CONFIG_T>
    static void row(typename CONFIG_T::logits_t logits[CONFIG_T::n_particles][CONFIG_T::n_partitions], unsigned n,
                    typename CONFIG_T::kernel_t *kernel, typename CONFIG_T::conv_t row[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
        conv_attention_convolve<CONFIG_T>(logits, n, kernel, row);
    }
};

template <> struct conv_attention_filter<0> {
    template <typename CONFIG_T>
    static void row(typename CONFIG_T::logits_t logits[CONFIG_T::n_particles][CONFIG_T::n_partitions], unsigned n,
                    typename CONFIG_T::kernel_t *, typename CONFIG_T::conv_t row[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
    Copy:
        for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
            row[c] = logits[n][c];
        }
    }
};

template <class query_T, class key_T, class value_T, class res_T, typename CONFIG_T>
void conv_attention(query_T query[CONFIG_T::n_particles * CONFIG_T::n_heads * CONFIG_T::depth],
                    key_T key[CONFIG_T::n_partitions * CONFIG_T::n_heads * CONFIG_T::depth],
                    value_T value[CONFIG_T::n_partitions * CONFIG_T::n_heads * CONFIG_T::depth],
                    res_T res[CONFIG_T::n_particles * CONFIG_T::n_heads * CONFIG_T::depth],
                    typename CONFIG_T::exp_t exp_table[1 << CONFIG_T::difference_t::width],
                    typename CONFIG_T::reciprocal_t reciprocal_table[CONFIG_T::reciprocals],
                    typename CONFIG_T::kernel_t *kernel = 0) {
    static_assert(CONFIG_T::n_particles > 0 && CONFIG_T::n_partitions > 0, "attention needs queries and keys");
    static_assert(int(CONFIG_T::scaled_t::width) == int(CONFIG_T::dot_t::width),
                  "the shift moves the point, not the bits");
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = exp_table complete
#pragma HLS ARRAY_PARTITION variable = reciprocal_table complete
Heads:
    for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
        typename CONFIG_T::logits_t logits[CONFIG_T::n_particles][CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = logits complete dim = 0
    Logits:
        for (unsigned n = 0; n < CONFIG_T::n_particles; n++) {
#pragma HLS UNROLL
            conv_attention_logits<query_T, key_T, CONFIG_T>(query + n * CONFIG_T::n_heads * CONFIG_T::depth, key, h,
                                                            logits[n]);
        }
    Rows:
        for (unsigned n = 0; n < CONFIG_T::n_particles; n++) {
#pragma HLS UNROLL
            typename CONFIG_T::conv_t row[CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = row complete
            typename CONFIG_T::attention_t attention[CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = attention complete
            conv_attention_filter<CONFIG_T::filter_height>::template row<CONFIG_T>(logits, n, kernel, row);
            conv_attention_softmax<CONFIG_T>(row, exp_table, reciprocal_table, attention);
            conv_attention_context<value_T, res_T, CONFIG_T>(attention, value, h,
                                                             res + n * CONFIG_T::n_heads * CONFIG_T::depth);
        }
    }
}

} // namespace nnet

#endif
