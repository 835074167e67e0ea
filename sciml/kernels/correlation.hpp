// The derivative of a convolution with respect to its kernel.
//
// Numbers of the fine field lie channel by channel, so that all that one number of the coarse field is multiplied by, at
// its own point and the points beside it, is one row of memory: sums are held in registers for a tile of such numbers
// times a few coarse channels, and no vector is ever summed over its lanes.
#pragma once

#include "convolution.hpp"

constexpr Index BAND = 128;     // points that are correlated at once: with all channels they stay in the cache
constexpr int CORRELATED = 4;   // coarse channels of a tile

template <class T>
Index whole_vectors(Index count) {
    return (count + Channels<T>::WIDTH - 1) / Channels<T>::WIDTH * Channels<T>::WIDTH;
}

// Points of two fields that belong together, in rows. A point of f has a window: the numbers of it and its neighbours.
template <class T>
struct Band {
    Index rows, points;       // points of a row
    const T *c;               // row k of channel o begins at o c_channel_size + k c_row_size
    Index c_channel_size, c_row_size;
    const T *f;               // the first window of row k begins at starts[k], the next ones a step apart
    const Index *starts;
    Index step;
};

// w[o][k] += sum of c[o] times the k-th number of the windows, for CO channels and VX vectors of windows
template <class T, int CO, int VX>
void correlate_tile(const Band<T> &band, const T *c, const T *f, T *w, Index w_size) {
    using L = Channels<T>;
    typename L::Type sum[CO][VX] = {};
    for (Index row = 0; row < band.rows; ++row, c += band.c_row_size) {
        const T *x = f + band.starts[row];
        for (Index point = 0; point < band.points; ++point, x += band.step) {
            typename L::Type in[VX];
#pragma GCC unroll 6
            for (int v = 0; v < VX; ++v) in[v] = L::load(x + v * L::WIDTH);
#pragma GCC unroll 12
            for (int o = 0; o < CO; ++o)
#pragma GCC unroll 6
                for (int v = 0; v < VX; ++v) sum[o][v] += c[o * band.c_channel_size + point] * in[v];
        }
    }
#pragma GCC unroll 12
    for (int o = 0; o < CO; ++o)
#pragma GCC unroll 6
        for (int v = 0; v < VX; ++v) {
            T *to = w + o * w_size + v * L::WIDTH;
            L::store(to, L::load(to) + sum[o][v]);
        }
}

template <class T, int CO, int VX>
void correlate_tiles(const Band<T> &band, Index &o, Index coarse, Index first, T *w, Index w_size) {
    for (; o + CO <= coarse; o += CO)
        correlate_tile<T, CO, VX>(band, band.c + o * band.c_channel_size, band.f + first, w + o * w_size + first,
                                  w_size);
}

// Tiles of few vectors take more channels, so that sums do not wait for one another.
template <class T, int VX>
void correlate_channels(const Band<T> &band, Index coarse, Index first, T *w, Index w_size) {
    Index o = 0;
    if constexpr (VX <= 2) correlate_tiles<T, CHANNEL_SUMS / 2, VX>(band, o, coarse, first, w, w_size);
    correlate_tiles<T, CORRELATED, VX>(band, o, coarse, first, w, w_size);
    correlate_tiles<T, 1, VX>(band, o, coarse, first, w, w_size);
}

// The same for all channels and numbers of windows, in tiles of equally many vectors.
template <class T>
void correlate_band(const Band<T> &band, Index coarse, T *w, Index w_size) {
    constexpr int most = CHANNEL_SUMS / CORRELATED;
    const Index vectors = w_size / Channels<T>::WIDTH, tiles = (vectors + most - 1) / most;
    for (Index tile = 0, begin = 0; tile < tiles; ++tile) {
        const Index end = vectors * (tile + 1) / tiles, first = begin * Channels<T>::WIDTH;
        switch (end - begin) {
        case 1: correlate_channels<T, 1>(band, coarse, first, w, w_size); break;
        case 2: correlate_channels<T, 2>(band, coarse, first, w, w_size); break;
        case 3: correlate_channels<T, 3>(band, coarse, first, w, w_size); break;
        case 4: correlate_channels<T, 4>(band, coarse, first, w, w_size); break;
        case 5: correlate_channels<T, 5>(band, coarse, first, w, w_size); break;
        default: correlate_channels<T, 6>(band, coarse, first, w, w_size);
        }
        begin = end;
    }
}

// vectors[n][lane] for vectors[lane][n]
template <class T>
INLINE void transpose(typename Channels<T>::Type *vectors) {
    constexpr int W = Channels<T>::WIDTH;
#pragma GCC unroll 4
    for (int stage = 1; stage < W; stage *= 2) {
        typename Channels<T>::Type shuffled[W];
#pragma GCC unroll 8
        for (int k = 0; k < W / 2; ++k) {
            shuffled[2 * k] = in_turn<T, 0>(vectors[k], vectors[k + W / 2], Numbers<T>());
            shuffled[2 * k + 1] = in_turn<T, 1>(vectors[k], vectors[k + W / 2], Numbers<T>());
        }
#pragma GCC unroll 16
        for (int k = 0; k < W; ++k) vectors[k] = shuffled[k];
    }
}

// to[point][channel] = from[channel][point] for a vector of points, or some of it; behind the last channel of the last
// point, up to a vector of numbers is overwritten.
template <class T>
void put_points(const T *from, Index channels, Index points, T *to) {
    using L = Channels<T>;
    if (channels <= L::WIDTH / 4) {
        for (Index k = 0, count = std::min<Index>(points, L::WIDTH); k < count; ++k)
            for (Index i = 0; i < channels; ++i) to[k * channels + i] = from[i * L::WIDTH + k];
        return;
    }
    for (Index i = 0; i < channels; i += L::WIDTH) {
        const Index first = std::max<Index>(0, std::min(i, channels - L::WIDTH));
        typename L::Type block[L::WIDTH] = {};
        if (first + L::WIDTH <= channels) {
#pragma GCC unroll 16
            for (int k = 0; k < L::WIDTH; ++k) block[k] = L::load(from + (first + k) * L::WIDTH);
        } else {
            for (Index k = 0; k < channels; ++k) block[k] = L::load(from + k * L::WIDTH);
        }
        transpose<T>(block);
        if (points >= L::WIDTH) {
#pragma GCC unroll 16
            for (int k = 0; k < L::WIDTH; ++k) L::store(to + k * channels + first, block[k]);
        } else {
            for (Index k = 0; k < points; ++k) L::store(to + k * channels + first, block[k]);
        }
    }
}

// Numbers of a row of points with one point of zeros before it and two behind.
template <class T>
Index row_size(Index channels, Index points) { return (points + 3) * channels + Channels<T>::WIDTH; }

// COUNT such rows, so far apart; at(i, k, out) has of each the vector of channel i from point k on.
template <class T, int COUNT, class F>
void fill_rows(Index channels, Index points, F at, T *rows, Index distance) {
    using L = Channels<T>;
    T *block = scratch<T, 2>(COUNT * channels * L::WIDTH);
    for (int n = 0; n < COUNT; ++n) std::fill_n(rows + n * distance, channels, T(0));
    for (Index k = 0; k < points; k += L::WIDTH) {
        for (Index i = 0; i < channels; ++i) {
            typename L::Type out[COUNT];
            at(i, k, out);
#pragma GCC unroll 6
            for (int n = 0; n < COUNT; ++n) L::store(block + (n * channels + i) * L::WIDTH, out[n]);
        }
        for (int n = 0; n < COUNT; ++n)
            put_points(block + n * channels * L::WIDTH, channels, points - k, rows + n * distance + (1 + k) * channels);
    }
    for (int n = 0; n < COUNT; ++n)
        std::fill_n(rows + n * distance + (1 + points) * channels, 2 * channels + L::WIDTH, T(0));
}

// total = sum of body(begin, end, its own total) over shares of the rows, in the order of the shares
template <class T, class F>
void sum_shares(Index rows, Index cost, Index size, T *total, const Team &team, F body) {
    std::vector<std::pair<Index, std::vector<T>>> shares;
    std::mutex growing;
    over_rows(rows, cost, team, [&](Index begin, Index end) {
        std::vector<T> own(size);
        body(begin, end, own.data());
        const std::lock_guard<std::mutex> lock(growing);
        shares.emplace_back(begin, std::move(own));
    });
    std::sort(shares.begin(), shares.end());
    std::fill(total, total + size, T(0));
    for (const auto &share : shares)
        for (Index k = 0; k < size; ++k) total[k] += share.second[k];
}

// w = the derivative of c . (w f) with respect to w, with stride 1
template <class T>
void correlate_fine(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    using L = Channels<T>;
    using V = typename L::Type;
    const Index fine = a.fine_channels, coarse = a.coarse_channels, size = a.fine[0] * a.fine[1], columns = a.fine[1];
    const Index quads = (a.fine[0] + QUAD - 1) / QUAD, all = a.batch * quads;
    const Index most = std::max<Index>(1, std::min(BAND / columns, all));
    const Index f_row = row_size<T>(fine, columns), c_row = whole_vectors<T>(columns), c_size = coarse * most * c_row;
    const Index w_size = whole_vectors<T>(3 * fine), of_filter = coarse * w_size;
    std::vector<Index> starts(most);
    for (Index k = 0; k < most; ++k) starts[k] = k * f_row;
    std::vector<T> filtered(FILTERS * of_filter);
    sum_shares(all, a.batch * size * coarse * fine * 9, FILTERS * of_filter, filtered.data(), team,
               [&](Index begin, Index end, T *total) {
        T *f_rows = scratch<T, 0>(FILTERS * most * f_row), *c_rows = scratch<T, 1>(FILTERS * c_size);
        for (; begin < end; begin += most) {
            const Index count = std::min(most, end - begin);
            for (Index k = 0; k < count; ++k) {
                const Index sample = (begin + k) / quads, row = (begin + k) % quads * QUAD;
                const auto input = [&](Index i, Index x, V *out) {
                    const T *field = f + (sample * fine + i) * size;
                    V d[6];
#pragma GCC unroll 4
                    for (int r = 0; r < QUAD; ++r) __builtin_prefetch(field + (row + 5 + r) * columns + x, 0, 2);
                    load_rows<T, 6>(field, a.fine, row - 1, x, d);
                    filter_input(d, out);
                };
                fill_rows<T, FILTERS>(fine, columns, input, f_rows + starts[k], most * f_row);
                for (Index o = 0; o < coarse; ++o) {
                    const T *field = c + (sample * coarse + o) * size;
                    T *to = c_rows + (o * most + k) * c_row;
                    prefetch<0>(field + (row + QUAD) * columns, QUAD * columns);
                    for (Index x = 0; x < columns; x += L::WIDTH) {
                        V y[QUAD], out[FILTERS];
                        load_rows<T, QUAD>(field, a.fine, row, x, y);
                        filter_output_transposed(y, out);
#pragma GCC unroll 6
                        for (int filter = 0; filter < FILTERS; ++filter)
                            L::store(to + filter * c_size + x, out[filter]);
                    }
                }
            }
            for (int filter = 0; filter < FILTERS; ++filter) {
                const Band<T> band{count, columns, c_rows + filter * c_size, most * c_row, c_row,
                                   f_rows + filter * most * f_row, starts.data(), fine};
                correlate_band(band, coarse, total + filter * of_filter, w_size);
            }
        }
    });
    for (Index o = 0; o < coarse; ++o)
        for (Index i = 0; i < fine; ++i)
            for (int q = 0; q < 3; ++q)
                filter_kernel_transposed(&filtered[o * w_size + q * fine + i], of_filter, w + (o * fine + i) * 9 + q,
                                         3);
}

// The same with stride 2.
template <class T>
void correlate_coarse(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    using L = Channels<T>;
    using V = typename L::Type;
    const Index fine = a.fine_channels, coarse = a.coarse_channels, points = a.points, columns = a.coarse[1];
    const Index all = a.batch * a.coarse[0], size = a.fine[0] * a.fine[1];
    const Index most = std::max<Index>(1, std::min(BAND / columns, all));
    const Index f_row = row_size<T>(fine, a.fine[1]), c_row = whole_vectors<T>(columns);
    const Index w_size = whole_vectors<T>(points * fine), of_point = coarse * w_size;
    std::vector<T> by_rows(points * of_point);
    sum_shares(all, all * columns * points * points * coarse * fine, points * of_point, by_rows.data(), team,
               [&](Index begin, Index end, T *total) {
        T *f_rows = scratch<T, 0>(most * points * f_row), *c_rows = scratch<T, 1>(coarse * most * c_row);
        std::vector<Index> starts(most);
        for (; begin < end; begin += most) {
            const Index count = std::min(most, end - begin);
            Index filled = 0, next = 0;
            for (Index k = 0; k < count; ++k) {
                const Index sample = (begin + k) / a.coarse[0], row = (begin + k) % a.coarse[0], top = 2 * row - 1;
                if (k == 0 || row == 0) next = top;
                starts[k] = (filled - (next - top)) * f_row;
                for (; next < top + points; ++next, ++filled) {
                    const auto input = [&](Index i, Index x, V *out) {
                        const T *field = f + (sample * fine + i) * size;
                        __builtin_prefetch(field + (next + 2) * a.fine[1] + x, 0, 2);
                        load_rows<T, 1>(field, a.fine, next, x, out);
                    };
                    fill_rows<T, 1>(fine, a.fine[1], input, f_rows + filled * f_row, 0);
                }
                for (Index o = 0; o < coarse; ++o) {
                    const T *from = c + ((sample * coarse + o) * a.coarse[0] + row) * columns;
                    T *to = c_rows + (o * most + k) * c_row;
                    prefetch<0>(from + columns, columns);
                    for (Index x = 0; x < columns; x += L::WIDTH) L::store(to + x, load_some(from + x, columns - x));
                }
            }
            for (Index p = 0; p < points; ++p) {
                const Band<T> band{count, columns, c_rows, most * c_row, c_row,
                                   f_rows + p * f_row, starts.data(), 2 * fine};
                correlate_band(band, coarse, total + p * of_point, w_size);
            }
        }
    });
    for (Index o = 0; o < coarse; ++o)
        for (Index i = 0; i < fine; ++i)
            for (Index p = 0; p < points; ++p)
                for (Index q = 0; q < points; ++q)
                    *w++ = by_rows[p * of_point + o * w_size + q * fine + i];
}

// The same with one point, of the same grid.
template <class T>
void correlate_points(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    using L = Channels<T>;
    const Index fine = a.fine_channels, coarse = a.coarse_channels, size = a.fine[0] * a.fine[1];
    const Index width = std::min(BAND, whole_vectors<T>(size)), bands = (size + width - 1) / width;
    const Index w_size = whole_vectors<T>(fine), start = fine;
    std::vector<T> sums(coarse * w_size);
    sum_shares(a.batch * bands, a.batch * size * coarse * fine, coarse * w_size, sums.data(), team,
               [&](Index begin, Index end, T *total) {
        T *f_points = scratch<T, 0>(row_size<T>(fine, width)), *c_copy = scratch<T, 1>(coarse * width);
        for (Index number = begin; number < end; ++number) {
            const Index sample = number / bands, first = number % bands * width, count = std::min(width, size - first);
            const auto input = [&](Index i, Index x, typename L::Type *out) {
                const T *from = f + (sample * fine + i) * size + first + x;
                __builtin_prefetch(from + width, 0, 2);
                *out = load_some(from, count - x);
            };
            fill_rows<T, 1>(fine, count, input, f_points, 0);
            copy_points(c + sample * coarse * size, coarse, size, first, width, c_copy);
            const Band<T> band{1, count, c_copy, width, width, f_points, &start, fine};
            correlate_band(band, coarse, total, w_size);
        }
    });
    for (Index o = 0; o < coarse; ++o) std::copy_n(&sums[o * w_size], fine, w + o * fine);
}

template <class T>
void correlate(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    const Index fine = a.fine_channels, coarse = a.coarse_channels, size = a.points * a.points;
    if (a.stride == 2) return correlate_coarse(a, f, c, w, team);
    const auto same_grid = a.points == 1 ? correlate_points<T> : correlate_fine<T>;
    if (fine >= coarse) return same_grid(a, f, c, w, team);
    // The field of more channels fills more of the vectors: w[o][i][p][q] is w'[i][o][2 - p][2 - q] of c and f.
    Convolution turned = a;
    std::swap(turned.fine_channels, turned.coarse_channels);
    std::vector<T> other(fine * coarse * size);
    same_grid(turned, c, f, other.data(), team);
    for (Index o = 0; o < coarse; ++o)
        for (Index i = 0; i < fine; ++i)
            std::reverse_copy(&other[(i * coarse + o) * size], &other[(i * coarse + o) * size] + size,
                              w + (o * fine + i) * size);
}
