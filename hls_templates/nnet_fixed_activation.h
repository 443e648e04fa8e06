// y[i] = Q_i(x[i])  or  Q_i(max(x[i], 0))
// Q_i: assignment to res_T or, with elements, to ap_[u]fixed<width[i], iwidth[i], AP_RND, AP_SAT> inside res_T;
// width[i] = 0: y[i] = 0
#ifndef NNET_FIXED_ACTIVATION_H_
#define NNET_FIXED_ACTIVATION_H_

#include "ap_fixed.h"
#include "hls_stream.h"
#include "nnet_common.h"
#include <type_traits>

namespace nnet {

struct fixed_activation_config {
    static const unsigned n_in = 1;
    static const bool relu = false;
    static const bool elements = false; // each has its type: width[n_in], iwidth[n_in]
    static const bool signed_elements = false;
};

// ---- a type for each element: the compiler sees how narrow it is

template <class data_T, class res_T, bool RELU, bool SIGNED, int WIDTH, int IWIDTH> struct fixed_element {
    typedef typename std::conditional<SIGNED, ap_fixed<WIDTH, IWIDTH, AP_RND, AP_SAT>,
                                      ap_ufixed<WIDTH, IWIDTH, AP_RND, AP_SAT>>::type type;
    static_assert(IWIDTH <= res_T::iwidth && WIDTH - IWIDTH <= res_T::width - res_T::iwidth,
                  "an element's grid lies inside that of the result");
    static void of(const data_T &x, res_T &res) {
#pragma HLS INLINE
        res = RELU && x < 0 ? type(0) : type(x);
    }
};

template <class data_T, class res_T, bool RELU, bool SIGNED, int IWIDTH>
struct fixed_element<data_T, res_T, RELU, SIGNED, 0, IWIDTH> {
    static void of(const data_T &, res_T &res) {
#pragma HLS INLINE
        res = 0;
    }
};

// Elements FIRST ... FIRST + COUNT - 1, in halves: templates nest no deeper than log2 of their number.
template <class data_T, class res_T, typename CONFIG_T, unsigned FIRST, unsigned COUNT> struct fixed_elements {
    static void of(const data_T *data, res_T *res) {
#pragma HLS INLINE
        fixed_elements<data_T, res_T, CONFIG_T, FIRST, COUNT / 2>::of(data, res);
        fixed_elements<data_T, res_T, CONFIG_T, FIRST + COUNT / 2, COUNT - COUNT / 2>::of(data, res);
    }
};

template <class data_T, class res_T, typename CONFIG_T, unsigned FIRST>
struct fixed_elements<data_T, res_T, CONFIG_T, FIRST, 1> {
    static void of(const data_T *data, res_T *res) {
#pragma HLS INLINE
        fixed_element<data_T, res_T, CONFIG_T::relu, CONFIG_T::signed_elements, CONFIG_T::width[FIRST],
                      CONFIG_T::iwidth[FIRST]>::of(data[FIRST], res[FIRST]);
    }
};

// Whether elements FIRST ... FIRST + COUNT - 1 have the types of the first transfer of SIZE values.
template <typename CONFIG_T> constexpr bool same_in_transfers(unsigned size, unsigned first, unsigned count) {
    return count == 1 ? CONFIG_T::width[first] == CONFIG_T::width[first % size] &&
                            CONFIG_T::iwidth[first] == CONFIG_T::iwidth[first % size]
                      : same_in_transfers<CONFIG_T>(size, first, count / 2) &&
                            same_in_transfers<CONFIG_T>(size, first + count / 2, count - count / 2);
}

// ---- a transfer, or all values

template <class data_T, class res_T, unsigned SIZE, typename CONFIG_T, bool ELEMENTS> struct fixed_activation_values {
    static void of(const data_T data[SIZE], res_T res[SIZE]) {
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
};

template <class data_T, class res_T, unsigned SIZE, typename CONFIG_T>
struct fixed_activation_values<data_T, res_T, SIZE, CONFIG_T, true> {
    static_assert(same_in_transfers<CONFIG_T>(SIZE, 0, CONFIG_T::n_in),
                  "elements of one lane pass through the same hardware and have one type");
    static void of(const data_T data[SIZE], res_T res[SIZE]) {
#pragma HLS INLINE
        fixed_elements<data_T, res_T, CONFIG_T, 0, SIZE>::of(data, res);
    }
};

template <class data_T, class res_T, typename CONFIG_T>
void fixed_activation(data_T data[CONFIG_T::n_in], res_T res[CONFIG_T::n_in]) {
    static_assert(CONFIG_T::n_in > 0, "fixed_activation needs values");
#pragma HLS PIPELINE II = 1
    fixed_activation_values<data_T, res_T, CONFIG_T::n_in, CONFIG_T, CONFIG_T::elements>::of(data, res);
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
        fixed_activation_values<typename data_T::value_type, typename res_T::value_type, data_T::size, CONFIG_T,
                                CONFIG_T::elements>::of(x.data, y.data);
        res.write(y);
    }
}

} // namespace nnet

#endif
