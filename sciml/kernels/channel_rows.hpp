// Rows of all channels of a field as convolutions read them: copied with zeros around them, even and odd columns apart
// where the stride is 2, so that all loads are contiguous; or filtered, so that four rows come from six products.
#pragma once

#include "channels.hpp"

// Rows of all channels of a sample, zero beyond the walls: whole, or in halves, columns -1, 1, 3, ... and 0, 2, 4, ...
template <class T>
struct Strips {
    using L = Channels<T>;
    Index channels, rows, columns, halves, length, lead;

    Strips(Index channels, const Index *space, Index halves, Index reached)
        : channels(channels), rows(space[0]), columns(space[1]), halves(halves),
          length(reached + (halves == 1 ? 2 : 1) * Channels<T>::WIDTH), lead(halves == 1 ? Channels<T>::WIDTH : 0) {}

    Index channel_size() const { return halves * length; }
    Index row_size() const { return channels * channel_size(); }

    void fill(T *strip, const T *sample, Index row) const {
        if (row < 0 || row >= rows) return std::fill(strip, strip + row_size(), T(0));
        for (Index i = 0; i < channels; ++i, strip += channel_size()) {
            const T *from = sample + (i * rows + row) * columns;
            prefetch<0>(from + 2 * columns, columns);
            halves == 1 ? fill_whole(strip, from) : fill_halves(strip, from);
        }
    }

    void fill_whole(T *strip, const T *from) const {
        L::store(strip, typename L::Type{});
        Index k = 0;
        for (; k + L::WIDTH <= columns; k += L::WIDTH) L::store(strip + lead + k, L::load(from + k));
        for (; lead + k < length; k += L::WIDTH) L::store(strip + lead + k, load_some(from + k, columns - k));
    }

    void fill_halves(T *strip, const T *from) const {
        T *outer = strip + 1, *inner = strip + length;
        strip[0] = 0;
        Index k = 0;
        const auto put = [&](typename L::Type a, typename L::Type b) {
            L::store(inner + k / 2, every_second<T, 0>(a, b, Numbers<T>()));
            L::store(outer + k / 2, every_second<T, 1>(a, b, Numbers<T>()));
        };
        for (Index half = 1; half <= 2; ++half) L::store(strip + half * length - L::WIDTH, typename L::Type{});
        for (; k + 2 * L::WIDTH <= columns; k += 2 * L::WIDTH) put(L::load(from + k), L::load(from + k + L::WIDTH));
        for (; k < 2 * (length - L::WIDTH); k += 2 * L::WIDTH)
            put(load_some(from + k, columns - k), load_some(from + k + L::WIDTH, columns - k - L::WIDTH));
    }
};

// The last few rows of a sample, filled as they are asked for in rising order.
template <class T>
class Ring {
    const Strips<T> &strips;
    const Index size;
    T *const slots;
    const T *sample = nullptr;
    Index next = 0;

    T *slot(Index at) const { return slots + (at + size) % size * strips.row_size(); }

public:
    Ring(const Strips<T> &strips, Index size)
        : strips(strips), size(size), slots(scratch<T, 0>(size * strips.row_size())) {}

    void advance(const T *of_sample, Index first, Index last) {
        if (of_sample != sample || first > next) next = first;
        sample = of_sample;
        for (; next <= last; ++next) strips.fill(slot(next), sample, next);
    }

    const T *row(Index at) const { return slot(at); }
};

// Points of a sample from one on, of all channels, with zeros behind the last, close together: in place, fields of 2^k
// points would compete for the same places of the cache.
template <class T>
void copy_points(const T *sample, Index channels, Index size, Index first, Index width, T *copy) {
    const Index count = std::min(width, size - first);
    for (Index i = 0; i < channels; ++i, copy += width) {
        const T *from = sample + i * size + first;
        prefetch<0>(from + width, width);
        std::copy(from, from + count, copy);
        std::fill(copy + count, copy + width, T(0));
    }
}

// Of COUNT rows of a channel, the first of them this far from the top, a vector each from a column on, zero beyond the
// walls.
template <class T, int COUNT>
INLINE void load_rows(const T *channel, const Index *space, Index row, Index column, typename Channels<T>::Type *out) {
    using L = Channels<T>;
    const T *from = channel + row * space[1] + column;
    if (row >= 0 && row + COUNT <= space[0] && column + L::WIDTH <= space[1]) {
#pragma GCC unroll 6
        for (int r = 0; r < COUNT; ++r) out[r] = L::load(from + r * space[1]);
    } else {
        for (int r = 0; r < COUNT; ++r)
            out[r] = load_some(from + r * space[1], row + r < 0 || row + r >= space[0] ? 0 : space[1] - column);
    }
}

// The minimal filter F(4, 3): y = A' ((G w) (B' d)), four y from six d and three w.
constexpr int FILTERS = 6, QUAD = 4;

template <class T>
void filter_kernel(T w0, T w1, T w2, T *out, Index stride) {
    constexpr T sixth = T(1) / 6, fourth = T(1) / 4, least = T(1) / 24;
    const T a = sixth * (w0 + w2), b = least * (w0 + 4 * w2), c = sixth * w1, e = 2 * least * w1;
    out[0] = fourth * w0;
    out[stride] = -a - c;
    out[2 * stride] = c - a;
    out[3 * stride] = b + e;
    out[4 * stride] = b - e;
    out[5 * stride] = w2;
}

// The transpose: derivatives with respect to the products as those with respect to w0, w1, w2.
template <class T>
void filter_kernel_transposed(const T *u, Index stride, T *w, Index w_stride) {
    constexpr T sixth = T(1) / 6, fourth = T(1) / 4, least = T(1) / 24;
    const T a = sixth * (u[stride] + u[2 * stride]), b = sixth * (u[stride] - u[2 * stride]);
    const T e = least * (u[3 * stride] + u[4 * stride]), g = 2 * least * (u[3 * stride] - u[4 * stride]);
    w[0] = fourth * u[0] - a + e;
    w[w_stride] = g - b;
    w[2 * w_stride] = 4 * e - a + u[5 * stride];
}

template <class V>
INLINE void filter_input(const V *d, V *out) {
    const V a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], e = d[4] - d[2], g = 2 * (d[3] - d[1]);
    out[0] = 4 * d[0] - 5 * d[2] + d[4];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = e + g;
    out[4] = e - g;
    out[5] = 4 * d[1] - 5 * d[3] + d[5];
}

template <class V>
INLINE void filter_output(const V *m, V *y) {
    const V a = m[1] + m[2], b = m[1] - m[2], e = m[3] + m[4], g = m[3] - m[4];
    y[0] = m[0] + a + e;
    y[1] = b + 2 * g;
    y[2] = a + 4 * e;
    y[3] = b + 8 * g + m[5];
}

template <class V>
INLINE void filter_output_transposed(const V *y, V *out) {
    const V a = y[0] + y[2], b = y[1] + y[3], e = y[0] + 4 * y[2], g = 2 * y[1] + 8 * y[3];
    out[0] = y[0];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = e + g;
    out[4] = e - g;
    out[5] = y[3];
}

// B' d of six rows from the one above a quad, of all channels, one vector of zeros before each row and zeros behind:
// to[filter][channel][...].
template <class T>
void filter_rows(const T *sample, Index channels, const Index *space, Index quad, T *to, Index filter_size,
                 Index channel_size, Index length) {
    using L = Channels<T>;
    for (Index i = 0; i < channels; ++i, to += channel_size) {
        const T *channel = sample + i * space[0] * space[1];
        prefetch<0>(channel + (QUAD * quad + 5) * space[1], QUAD * space[1]);
        Index k = 0;
        for (; k < space[1]; k += L::WIDTH) {
            typename L::Type d[6], out[FILTERS];
            load_rows<T, 6>(channel, space, QUAD * quad - 1, k, d);
            filter_input(d, out);
#pragma GCC unroll 6
            for (int filter = 0; filter < FILTERS; ++filter)
                L::store(to + filter * filter_size + L::WIDTH + k, out[filter]);
        }
        for (int filter = 0; filter < FILTERS; ++filter) {
            L::store(to + filter * filter_size, typename L::Type{});
            for (Index x = k + L::WIDTH; x < length; x += L::WIDTH)
                L::store(to + filter * filter_size + x, typename L::Type{});
        }
    }
}
