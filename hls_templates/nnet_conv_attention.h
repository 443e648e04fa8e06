// S[h,n,c] = Q( q[n,h,:] . k[c,h,:] / 2^shift )
// C[h,n,c] = Q( sum_{a,j} kernel[a,j] * S[h, n + a - pad_up, c + j - pad_left] ),  zeros outside
// e = Q( exp(C - max C) )   s = Q( sum e )   A = Q( e * Q(1 / s) )   per row, by two tables
// o[n,h,:] = Q( sum_c A[h,n,c] * v[c,h,:] )
// filter_height 0 means no convolution: C = S.
// Not stable: e = max(Q( exp(C) ), one step), by a table over the type of C.
// normalize_context: o[n,h,:] = Q( Q( sum_c e * v[c,h,:] ) * Q(1 / s) )
// On streams, four loops: collect the keys, collect the values, logits of the queries, and the rest on
// a window of logits that slides over the particles. The queries of a jet wait for its keys.
#ifndef NNET_CONV_ATTENTION_H_
#define NNET_CONV_ATTENTION_H_

#include "hls_stream.h"
#include "nnet_common.h"
#include "nnet_types.h"

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
    static const unsigned keys_depth = 2;  // of the FIFOs between the loops
    static const unsigned values_depth = 2;
    static const unsigned early_depth = 2;
    static const unsigned late_depth = 2;
    static const bool stable = true;
    static const bool normalize_context = false;
    typedef float dot_t;    // exact q.k
    typedef float scaled_t; // the bits of dot_t, divided by 2^shift
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
    typedef float context_t;
    typedef float product_t; // exact context * reciprocal
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

// The convolution of one row: `window` holds the rows that the filter covers, zeros outside the jet.
// Decided when the template is made, so that a model without convolution needs no kernel.
template <unsigned height> struct conv_attention_filter {
    static const unsigned window = height;

    template <typename CONFIG_T>
    static void row(typename CONFIG_T::logits_t window[height][CONFIG_T::n_partitions],
                    const typename CONFIG_T::kernel_t *kernel, typename CONFIG_T::conv_t row[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
    Columns:
        for (int c = 0; c < int(CONFIG_T::n_partitions); c++) {
#pragma HLS UNROLL
            typename CONFIG_T::conv_sum_t sum = 0;
        FilterRows:
            for (int a = 0; a < int(height); a++) {
#pragma HLS UNROLL
            FilterColumns:
                for (int j = 0; j < int(CONFIG_T::n_partitions); j++) {
#pragma HLS UNROLL
                    const int i_c = c + j - int(CONFIG_T::pad_left);
                    if (i_c >= 0 && i_c < int(CONFIG_T::n_partitions))
                        sum += kernel[a * CONFIG_T::n_partitions + j] * window[a][i_c];
                }
            }
            row[c] = sum;
        }
    }
};

template <> struct conv_attention_filter<0> {
    static const unsigned window = 1;

    template <typename CONFIG_T>
    static void row(typename CONFIG_T::logits_t window[1][CONFIG_T::n_partitions], const typename CONFIG_T::kernel_t *,
                    typename CONFIG_T::conv_t row[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
    Copy:
        for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
            row[c] = window[0][c];
        }
    }
};

// The exponentials of one row. Decided like the convolution: types of what is not chosen do not exist.
template <bool stable> struct conv_attention_exponentials {
    template <typename CONFIG_T>
    static void row(const typename CONFIG_T::conv_t logits[CONFIG_T::n_partitions],
                    const typename CONFIG_T::exp_t *exp_table,
                    typename CONFIG_T::exp_t exponential[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
        typename CONFIG_T::conv_t largest = logits[0];
    Largest:
        for (unsigned c = 1; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
            if (logits[c] > largest)
                largest = logits[c];
        }
    Exponentials:
        for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
            typename CONFIG_T::difference_t difference = largest - logits[c];
            ap_uint<CONFIG_T::difference_t::width> bits = difference.range(CONFIG_T::difference_t::width - 1, 0);
            exponential[c] = exp_table[bits.to_uint()];
        }
    }
};

template <> struct conv_attention_exponentials<false> {
    template <typename CONFIG_T>
    static void row(const typename CONFIG_T::conv_t logits[CONFIG_T::n_partitions],
                    const typename CONFIG_T::exp_t *exp_table,
                    typename CONFIG_T::exp_t exponential[CONFIG_T::n_partitions]) {
#pragma HLS INLINE
    Exponentials:
        for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
            ap_uint<CONFIG_T::conv_t::width> bits = logits[c].range(CONFIG_T::conv_t::width - 1, 0);
            exponential[c] = exp_table[bits.to_uint()];
        }
    }
};

// One by the sum of one row's exponentials.
template <typename CONFIG_T>
typename CONFIG_T::reciprocal_t
conv_attention_reciprocal(const typename CONFIG_T::exp_t exponential[CONFIG_T::n_partitions],
                          const typename CONFIG_T::reciprocal_t *reciprocal_table) {
#pragma HLS INLINE
    typename CONFIG_T::exp_sum_t exact_sum = 0;
Sum:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
        exact_sum += exponential[c];
    }
    typename CONFIG_T::sum_t sum = exact_sum;
    ap_uint<CONFIG_T::sum_t::width> bits = sum.range(CONFIG_T::sum_t::width - 1, 0);
    return reciprocal_table[bits.to_uint() - CONFIG_T::first_sum];
}

// Exact sum of the values of one column, weighted.
template <class weight_T, class value_T, typename CONFIG_T>
typename CONFIG_T::context_sum_t conv_attention_weighted(const weight_T weight[CONFIG_T::n_partitions],
                                                         const value_T *value, unsigned column) {
#pragma HLS INLINE
    typename CONFIG_T::context_sum_t sum = 0;
Values:
    for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
        sum += weight[c] * value[c * CONFIG_T::n_heads * CONFIG_T::depth + column];
    }
    return sum;
}

// The context of one particle in one head, normalized before the values are summed, or after.
template <bool normalize_context> struct conv_attention_context {
    template <class value_T, class res_T, typename CONFIG_T>
    static void row(const typename CONFIG_T::exp_t exponential[CONFIG_T::n_partitions],
                    typename CONFIG_T::reciprocal_t reciprocal, const value_T *value, unsigned head, res_T *res) {
#pragma HLS INLINE
        typename CONFIG_T::attention_t attention[CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = attention complete
    Normalize:
        for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
            attention[c] = exponential[c] * reciprocal;
        }
    Columns:
        for (unsigned d = 0; d < CONFIG_T::depth; d++) {
#pragma HLS UNROLL
            const unsigned column = head * CONFIG_T::depth + d;
            res[column] =
                conv_attention_weighted<typename CONFIG_T::attention_t, value_T, CONFIG_T>(attention, value, column);
        }
    }
};

template <> struct conv_attention_context<true> {
    template <class value_T, class res_T, typename CONFIG_T>
    static void row(const typename CONFIG_T::exp_t exponential[CONFIG_T::n_partitions],
                    typename CONFIG_T::reciprocal_t reciprocal, const value_T *value, unsigned head, res_T *res) {
#pragma HLS INLINE
    Columns:
        for (unsigned d = 0; d < CONFIG_T::depth; d++) {
#pragma HLS UNROLL
            const unsigned column = head * CONFIG_T::depth + d;
            typename CONFIG_T::context_t context =
                conv_attention_weighted<typename CONFIG_T::exp_t, value_T, CONFIG_T>(exponential, value, column);
            typename CONFIG_T::product_t product = context * reciprocal;
            res[column] = product;
        }
    }
};

// One particle in one head, from the logits around it to its context.
template <class value_T, class res_T, typename CONFIG_T>
void conv_attention_particle(
    typename CONFIG_T::logits_t window[conv_attention_filter<CONFIG_T::filter_height>::window][CONFIG_T::n_partitions],
    const value_T *value, unsigned head, res_T *res,
    const typename CONFIG_T::exp_t exp_table[1 << CONFIG_T::difference_t::width],
    const typename CONFIG_T::reciprocal_t reciprocal_table[CONFIG_T::reciprocals],
    const typename CONFIG_T::kernel_t *kernel) {
#pragma HLS INLINE
    typename CONFIG_T::conv_t row[CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = row complete
    typename CONFIG_T::exp_t exponential[CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = exponential complete
    conv_attention_filter<CONFIG_T::filter_height>::template row<CONFIG_T>(window, kernel, row);
    conv_attention_exponentials<CONFIG_T::stable>::template row<CONFIG_T>(row, exp_table, exponential);
    conv_attention_context<CONFIG_T::normalize_context>::template row<value_T, res_T, CONFIG_T>(
        exponential, conv_attention_reciprocal<CONFIG_T>(exponential, reciprocal_table), value, head, res);
}

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
    const unsigned height = conv_attention_filter<CONFIG_T::filter_height>::window;
#pragma HLS PIPELINE II = 1
#pragma HLS ARRAY_PARTITION variable = exp_table complete
#pragma HLS ARRAY_PARTITION variable = reciprocal_table complete
Heads:
    for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
        // The jet between the zeros above and below it.
        typename CONFIG_T::logits_t logits[CONFIG_T::n_particles + height - 1][CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = logits complete dim = 0
    Logits:
        for (unsigned n = 0; n < CONFIG_T::n_particles; n++) {
#pragma HLS UNROLL
            conv_attention_logits<query_T, key_T, CONFIG_T>(query + n * CONFIG_T::n_heads * CONFIG_T::depth, key, h,
                                                            logits[n + CONFIG_T::pad_up]);
        }
    Padding:
        for (unsigned n = 0; n < height - 1; n++) {
#pragma HLS UNROLL
            for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
                logits[n < CONFIG_T::pad_up ? n : n + CONFIG_T::n_particles][c] = 0;
            }
        }
    Particles:
        for (unsigned n = 0; n < CONFIG_T::n_particles; n++) {
#pragma HLS UNROLL
            conv_attention_particle<value_T, res_T, CONFIG_T>(logits + n, value, h,
                                                              res + n * CONFIG_T::n_heads * CONFIG_T::depth, exp_table,
                                                              reciprocal_table, kernel);
        }
    }
}

// Streams: sizes in lanes (particles of a transfer) and transfers.
template <class query_T, typename CONFIG_T> struct conv_attention_stream {
    static const unsigned columns = CONFIG_T::n_heads * CONFIG_T::depth;
    static const unsigned lanes = query_T::size / columns;
    static const unsigned transfers = DIV_ROUNDUP(CONFIG_T::n_particles, lanes);
    static const unsigned height = conv_attention_filter<CONFIG_T::filter_height>::window;
    // So many transfers beyond its own the filter of a transfer looks ahead.
    static const unsigned ahead = DIV_ROUNDUP(height - 1 - CONFIG_T::pad_up, lanes);
    // They travel together: then the window is full at the first step and every step emits.
    static const unsigned early = MIN(ahead, transfers);
    static const unsigned logits = lanes * CONFIG_T::n_heads * CONFIG_T::n_partitions; // of a transfer
    static const unsigned kernel = height * CONFIG_T::n_partitions;
    typedef array<typename CONFIG_T::logits_t, logits> late_t;
    typedef array<typename CONFIG_T::logits_t, (early > 0 ? early : 1) * logits> early_t;
};

template <class data_T, class rows_T>
void conv_attention_collect(hls::stream<data_T> &data, hls::stream<rows_T> &rows) {
    const unsigned transfers = DIV_ROUNDUP(rows_T::size, data_T::size);
    rows_T y;
    PRAGMA_DATA_PACK(y)
Transfers:
    for (unsigned t = 0; t < transfers; t++) {
#pragma HLS PIPELINE II = 1
        data_T x = data.read();
    Values:
        for (unsigned i = 0; i < rows_T::size; i++) {
#pragma HLS UNROLL
            if (i / data_T::size == t)
                y[i] = x[i % data_T::size];
        }
        if (t == transfers - 1)
            rows.write(y);
    }
}

template <class query_T, class keys_T, class early_T, class late_T, typename CONFIG_T>
void conv_attention_stream_logits(hls::stream<query_T> &query, hls::stream<keys_T> &key, hls::stream<early_T> &early,
                                  hls::stream<late_T> &late) {
    typedef conv_attention_stream<query_T, CONFIG_T> sizes;
    keys_T keys;
    early_T first;
    PRAGMA_DATA_PACK(first)
Transfers:
    for (unsigned t = 0; t < sizes::transfers; t++) {
#pragma HLS PIPELINE II = 1
        if (t == 0)
            keys = key.read();
        query_T x = query.read();
        late_T y;
        PRAGMA_DATA_PACK(y)
    Lanes:
        for (unsigned u = 0; u < sizes::lanes; u++) {
#pragma HLS UNROLL
        Heads:
            for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
                typename CONFIG_T::logits_t logits[CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = logits complete
                conv_attention_logits<typename query_T::value_type, typename keys_T::value_type, CONFIG_T>(
                    x.data + u * sizes::columns, keys.data, h, logits);
            Columns:
                for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
                    if (t * sizes::lanes + u >= CONFIG_T::n_particles)
                        logits[c] = 0;
                    y[(u * CONFIG_T::n_heads + h) * CONFIG_T::n_partitions + c] = logits[c];
                }
            }
        }
    Early:
        for (unsigned i = 0; i < early_T::size; i++) {
#pragma HLS UNROLL
            if (i / late_T::size == t)
                first[i] = y[i % late_T::size];
        }
        if (t + 1 == sizes::early)
            early.write(first);
        if (t >= sizes::early)
            late.write(y);
    }
}

template <class query_T, class values_T, class res_T, class early_T, class late_T, typename CONFIG_T>
void conv_attention_stream_context(
    hls::stream<early_T> &early, hls::stream<late_T> &late, hls::stream<values_T> &value, hls::stream<res_T> &res,
    const typename CONFIG_T::exp_t exp_table[1 << CONFIG_T::difference_t::width],
    const typename CONFIG_T::reciprocal_t reciprocal_table[CONFIG_T::reciprocals],
    const typename CONFIG_T::kernel_t kernel[conv_attention_stream<query_T, CONFIG_T>::kernel]) {
    typedef conv_attention_stream<query_T, CONFIG_T> sizes;
    // Row w of the window is particle t * lanes - pad_up + w.
    const unsigned rows = CONFIG_T::pad_up + (sizes::ahead + 1) * sizes::lanes;
    typename CONFIG_T::logits_t window[CONFIG_T::n_heads][rows][CONFIG_T::n_partitions];
#pragma HLS ARRAY_PARTITION variable = window complete dim = 0
#pragma HLS ARRAY_PARTITION variable = exp_table complete
#pragma HLS ARRAY_PARTITION variable = reciprocal_table complete
    values_T values;
    early_T first;
    late_T last;
Transfers:
    for (unsigned t = 0; t < sizes::transfers; t++) {
#pragma HLS PIPELINE II = 1
        if (t == 0) {
            values = value.read();
            if (sizes::early > 0)
                first = early.read();
        }
        if (t + sizes::ahead < sizes::transfers)
            last = late.read();
    Heads:
        for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
        Slide:
            for (unsigned w = 0; w < rows; w++) {
#pragma HLS UNROLL
                // Where row w stands in `first` and in `last`, if it is there.
                const unsigned i_first = w - CONFIG_T::pad_up, i_last = w + sizes::lanes - rows;
            Columns:
                for (unsigned c = 0; c < CONFIG_T::n_partitions; c++) {
#pragma HLS UNROLL
                    typename CONFIG_T::logits_t x = 0;
                    if (w + sizes::lanes >= rows) {
                        if (t + sizes::ahead < sizes::transfers)
                            x = last[(i_last * CONFIG_T::n_heads + h) * CONFIG_T::n_partitions + c];
                    } else if (t > 0) {
                        x = window[h][w + sizes::lanes][c];
                    } else if (w >= CONFIG_T::pad_up && i_first < sizes::early * sizes::lanes) {
                        x = first[(i_first * CONFIG_T::n_heads + h) * CONFIG_T::n_partitions + c];
                    }
                    window[h][w][c] = x;
                }
            }
        }
        res_T y;
        PRAGMA_DATA_PACK(y)
    Lanes:
        for (unsigned u = 0; u < sizes::lanes; u++) {
#pragma HLS UNROLL
        Contexts:
            for (unsigned h = 0; h < CONFIG_T::n_heads; h++) {
#pragma HLS UNROLL
                conv_attention_particle<typename values_T::value_type, typename res_T::value_type, CONFIG_T>(
                    window[h] + u, values.data, h, y.data + u * sizes::columns, exp_table, reciprocal_table, kernel);
            }
        }
        res.write(y);
    }
}

template <class query_T, class key_T, class value_T, class res_T, typename CONFIG_T>
void conv_attention(hls::stream<query_T> &query, hls::stream<key_T> &key, hls::stream<value_T> &value,
                    hls::stream<res_T> &res,
                    const typename CONFIG_T::exp_t exp_table[1 << CONFIG_T::difference_t::width],
                    const typename CONFIG_T::reciprocal_t reciprocal_table[CONFIG_T::reciprocals],
                    const typename CONFIG_T::kernel_t kernel[conv_attention_stream<query_T, CONFIG_T>::kernel]) {
    typedef conv_attention_stream<query_T, CONFIG_T> sizes;
    static_assert(res_T::size == query_T::size, "a transfer out for each transfer of queries");
    static_assert(int(CONFIG_T::scaled_t::width) == int(CONFIG_T::dot_t::width),
                  "the shift moves the point, not the bits");
#pragma HLS DATAFLOW
    typedef array<typename key_T::value_type, CONFIG_T::n_partitions * sizes::columns> keys_T;
    typedef array<typename value_T::value_type, CONFIG_T::n_partitions * sizes::columns> values_T;
    typedef typename sizes::early_t early_T;
    typedef typename sizes::late_t late_T;
    const unsigned keys_depth = CONFIG_T::keys_depth, values_depth = CONFIG_T::values_depth;
    const unsigned early_depth = CONFIG_T::early_depth, late_depth = CONFIG_T::late_depth;
    hls::stream<keys_T> keys("keys");
#pragma HLS STREAM variable = keys depth = keys_depth
    hls::stream<values_T> values("values");
#pragma HLS STREAM variable = values depth = values_depth
    hls::stream<early_T> early("early");
#pragma HLS STREAM variable = early depth = early_depth
    hls::stream<late_T> late("late");
#pragma HLS STREAM variable = late depth = late_depth
    conv_attention_collect<key_T, keys_T>(key, keys);
    conv_attention_collect<value_T, values_T>(value, values);
    conv_attention_stream_logits<query_T, keys_T, early_T, late_T, CONFIG_T>(query, keys, early, late);
    conv_attention_stream_context<query_T, values_T, res_T, early_T, late_T, CONFIG_T>(
        early, late, values, res, exp_table, reciprocal_table, kernel);
}

template <class query_T, class key_T, class value_T, class res_T, typename CONFIG_T>
void conv_attention(hls::stream<query_T> &query, hls::stream<key_T> &key, hls::stream<value_T> &value,
                    hls::stream<res_T> &res,
                    const typename CONFIG_T::exp_t exp_table[1 << CONFIG_T::difference_t::width],
                    const typename CONFIG_T::reciprocal_t reciprocal_table[CONFIG_T::reciprocals]) {
    static_assert(CONFIG_T::filter_height == 0, "a convolution needs its kernel");
#pragma HLS INLINE
    const typename CONFIG_T::kernel_t none[conv_attention_stream<query_T, CONFIG_T>::kernel] = {0};
    conv_attention<query_T, key_T, value_T, res_T, CONFIG_T>(query, key, value, res, exp_table, reciprocal_table, none);
}

} // namespace nnet

#endif
