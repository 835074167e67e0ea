// The derivative of a convolution with respect to its kernel.
#pragma once

#include "convolution.hpp"

constexpr Index BAND = 32;   // vectors of rows that are correlated at once: with all channels they stay in the cache

// Sums over the lanes of as many vectors as there are lanes, eight at most, by adding halves of pairs; behind them the
// same ones again, up to a whole vector.
template <class T, int SEGMENT, std::size_t... I>
typename Channels<T>::Type add_halves(typename Channels<T>::Type a, typename Channels<T>::Type b,
                                      std::index_sequence<I...>) {
    constexpr int half = SEGMENT / 2;
    return __builtin_shufflevector(a, b, (I / half * SEGMENT + I % half)...) +
           __builtin_shufflevector(a, b, (I / half * SEGMENT + I % half + half)...);
}

template <class T, int COUNT, int SEGMENT = Channels<T>::WIDTH>
void sums_of_lanes(typename Channels<T>::Type *vectors, T *sums) {
    if constexpr (COUNT == 1 && SEGMENT == 1) {
        Channels<T>::store(sums, vectors[0]);
    } else if constexpr (COUNT == 1) {
        vectors[0] = add_halves<T, SEGMENT>(vectors[0], vectors[0], Numbers<T>());
        sums_of_lanes<T, 1, SEGMENT / 2>(vectors, sums);
    } else {
#pragma GCC unroll 4
        for (int k = 0; k < COUNT / 2; ++k)
            vectors[k] = add_halves<T, SEGMENT>(vectors[2 * k], vectors[2 * k + 1], Numbers<T>());
        sums_of_lanes<T, COUNT / 2, SEGMENT / 2>(vectors, sums);
    }
}

// Rows of two fields that belong together, zero beyond their ends.
template <class T>
struct Band {
    Index count, vectors;
    const T *c;                       // [channel][row][...]
    Index c_channel_size;
    const T *f;                       // row k of channel i begins at rows[k] + i f_channel_size
    const Index *rows, *columns;
    Index f_channel_size;
};

// w[o][i][q] += sum of c[o] f[i] at columns[q], for CO and CI channels and Q columns
template <class T, int CO, int CI, int Q>
void correlate_tile(const Band<T> &band, const T *c, const T *f, T *w, Index o_size) {
    using L = Channels<T>;
    constexpr int COUNT = CO * CI * Q, GROUP = L::WIDTH < 8 ? L::WIDTH : 8;
    constexpr int PADDED = (COUNT + GROUP - 1) / GROUP * GROUP;
    typename L::Type sum[PADDED] = {};
    for (Index row = 0; row < band.count; ++row) {
        const T *x = f + band.rows[row];
        for (Index v = 0; v < band.vectors; ++v, c += L::WIDTH, x += L::WIDTH) {
            typename L::Type in[CI * Q];
#pragma GCC unroll 4
            for (int i = 0; i < CI; ++i)
#pragma GCC unroll 4
                for (int q = 0; q < Q; ++q) in[i * Q + q] = L::load(x + i * band.f_channel_size + band.columns[q]);
#pragma GCC unroll 8
            for (int o = 0; o < CO; ++o) {
                const auto value = L::load(c + o * band.c_channel_size);
#pragma GCC unroll 12
                for (int k = 0; k < CI * Q; ++k) sum[o * CI * Q + k] += value * in[k];
            }
        }
    }
    T sums[PADDED + L::WIDTH];
#pragma GCC unroll 8
    for (int group = 0; group < PADDED; group += GROUP) sums_of_lanes<T, GROUP>(sum + group, sums + group);
#pragma GCC unroll 8
    for (int o = 0; o < CO; ++o)
#pragma GCC unroll 12
        for (int k = 0; k < CI * Q; ++k) w[o * o_size + k] += sums[o * CI * Q + k];
}

template <class T, int CO, int CI, int Q>
void correlate_channels(const Band<T> &band, Index &o, Index coarse, Index fine, T *w) {
    for (; o + CO <= coarse; o += CO) {
        const T *c = band.c + o * band.c_channel_size;
        T *of_o = w + o * fine * Q;
        Index i = 0;
        for (; i + CI <= fine; i += CI)
            correlate_tile<T, CO, CI, Q>(band, c, band.f + i * band.f_channel_size, of_o + i * Q, fine * Q);
        for (; i < fine; ++i)
            correlate_tile<T, CO, 1, Q>(band, c, band.f + i * band.f_channel_size, of_o + i * Q, fine * Q);
    }
}

// w[o][i][q] += ... for all channels
template <class T, int Q>
void correlate_band(const Band<T> &band, Index coarse, Index fine, T *w) {
    constexpr int CI = Q == 1 ? CHANNEL_SUMS / 4 : Q == 3 && CHANNEL_SUMS >= 24 ? 2 : 1, CO = CHANNEL_SUMS / (CI * Q);
    Index o = 0;
    correlate_channels<T, CO, CI, Q>(band, o, coarse, fine, w);
    correlate_channels<T, 1, CI, Q>(band, o, coarse, fine, w);
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
    const Index fine = a.fine_channels, coarse = a.coarse_channels, size = a.fine[0] * a.fine[1];
    const Index vectors = (a.fine[1] + L::WIDTH - 1) / L::WIDTH, quads = (a.fine[0] + QUAD - 1) / QUAD;
    const Index c_row = vectors * L::WIDTH, f_row = c_row + 2 * L::WIDTH;
    const Index most = std::max<Index>(1, std::min(BAND / vectors, a.batch * quads));
    const Index f_size = fine * most * f_row + L::WIDTH, c_size = coarse * most * c_row + L::WIDTH;   // no powers of 2
    const Index columns[] = {L::WIDTH - 1, L::WIDTH, L::WIDTH + 1};
    const Index w_size = coarse * fine * 3;
    std::vector<T> filtered(FILTERS * w_size);
    sum_shares(a.batch * quads, a.batch * size * coarse * fine * 9, FILTERS * w_size, filtered.data(), team,
               [&](Index begin, Index end, T *total) {
        T *f_rows = scratch<T, 0>(FILTERS * f_size), *c_rows = scratch<T, 1>(FILTERS * c_size);
        std::vector<Index> rows(most);
        for (Index k = 0; k < most; ++k) rows[k] = k * f_row;
        for (; begin < end; begin += most) {
            const Index count = std::min(most, end - begin);
            for (Index k = 0; k < count; ++k) {
                const Index sample = (begin + k) / quads, quad = (begin + k) % quads;
                filter_rows(f + sample * fine * size, fine, a.fine, quad, f_rows + k * f_row, f_size,
                            most * f_row, f_row);
                for (Index o = 0; o < coarse; ++o) {
                    const T *from = c + ((sample * coarse + o) * a.fine[0] + QUAD * quad) * a.fine[1];
                    prefetch<0>(from + QUAD * a.fine[1], QUAD * a.fine[1]);
                    T *to = c_rows + (o * most + k) * c_row;
                    for (Index x = 0; x < a.fine[1]; x += L::WIDTH) {
                        typename L::Type y[QUAD], out[FILTERS];
                        if (QUAD * quad + QUAD <= a.fine[0] && x + L::WIDTH <= a.fine[1]) {
#pragma GCC unroll 4
                            for (int r = 0; r < QUAD; ++r) y[r] = L::load(from + r * a.fine[1] + x);
                        } else {
                            for (int r = 0; r < QUAD; ++r)
                                y[r] = load_some(from + r * a.fine[1] + x,
                                                 QUAD * quad + r < a.fine[0] ? a.fine[1] - x : 0);
                        }
                        filter_output_transposed(y, out);
#pragma GCC unroll 6
                        for (int filter = 0; filter < FILTERS; ++filter)
                            L::store(to + filter * c_size + x, out[filter]);
                    }
                }
            }
            for (int filter = 0; filter < FILTERS; ++filter) {
                const Band<T> band{count, vectors, c_rows + filter * c_size, most * c_row,
                                   f_rows + filter * f_size, rows.data(), columns, most * f_row};
                correlate_band<T, 3>(band, coarse, fine, total + filter * w_size);
            }
        }
    });
    for (Index k = 0; k < coarse * fine; ++k)
        for (int q = 0; q < 3; ++q) filter_kernel_transposed(&filtered[k * 3 + q], w_size, w + k * 9 + q, 3);
}

// The same with stride 2.
template <class T>
void correlate_coarse(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    using L = Channels<T>;
    const Index fine = a.fine_channels, coarse = a.coarse_channels, points = a.points;
    const Index vectors = (a.coarse[1] + L::WIDTH - 1) / L::WIDTH, c_row = vectors * L::WIDTH;
    const Strips<T> strips(fine, a.fine, 2, c_row);
    const Index most = std::max<Index>(1, std::min(BAND / vectors, a.batch * a.coarse[0]));
    const Index columns[] = {0, strips.length, 1, strips.length + 1};
    const Index w_size = coarse * fine * points;
    std::vector<T> by_rows(points * w_size);
    sum_shares(a.batch * a.coarse[0], a.batch * a.coarse[0] * a.coarse[1] * points * w_size, points * w_size,
               by_rows.data(), team,
               [&](Index begin, Index end, T *total) {
        T *f_rows = scratch<T, 0>(most * points * strips.row_size()), *c_rows = scratch<T, 1>(coarse * most * c_row);
        std::vector<Index> rows(most);
        for (; begin < end; begin += most) {
            const Index count = std::min(most, end - begin);
            Index filled = 0, next = 0;
            for (Index k = 0; k < count; ++k) {
                const Index sample = (begin + k) / a.coarse[0], row = (begin + k) % a.coarse[0], top = 2 * row - 1;
                if (k == 0 || row == 0) next = top;
                rows[k] = (filled - (next - top)) * strips.row_size();
                for (; next < top + points; ++next, ++filled)
                    strips.fill(f_rows + filled * strips.row_size(), f + sample * fine * a.fine[0] * a.fine[1], next);
                for (Index o = 0; o < coarse; ++o) {
                    const T *from = c + ((sample * coarse + o) * a.coarse[0] + row) * a.coarse[1];
                    T *to = c_rows + (o * most + k) * c_row;
                    prefetch<0>(from + a.coarse[1], a.coarse[1]);
                    for (Index x = 0; x < c_row; x += L::WIDTH) L::store(to + x, load_some(from + x, a.coarse[1] - x));
                }
            }
            for (Index p = 0; p < points; ++p) {
                const Band<T> band{count, vectors, c_rows, most * c_row, f_rows + p * strips.row_size(),
                                   rows.data(), columns, strips.channel_size()};
                (points == 3 ? correlate_band<T, 3> : correlate_band<T, 4>)(band, coarse, fine, total + p * w_size);
            }
        }
    });
    for (Index k = 0; k < coarse * fine; ++k)
        for (Index p = 0; p < points; ++p)
            std::copy_n(&by_rows[p * w_size + k * points], points, w + (k * points + p) * points);
}

// The same with one point, of the same grid.
template <class T>
void correlate_points(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    const Index fine = a.fine_channels, coarse = a.coarse_channels, size = a.fine[0] * a.fine[1];
    const Index vectors = std::min((size + Channels<T>::WIDTH - 1) / Channels<T>::WIDTH, BAND);
    const Index width = vectors * Channels<T>::WIDTH, bands = (size + width - 1) / width;
    sum_shares(a.batch * bands, a.batch * size * coarse * fine, coarse * fine, w, team,
               [&](Index begin, Index end, T *total) {
        T *f_copy = scratch<T, 0>(fine * width), *c_copy = scratch<T, 1>(coarse * width);
        const Index row = 0;
        for (Index number = begin; number < end; ++number) {
            const Index sample = number / bands, first = number % bands * width;
            copy_points(c + sample * coarse * size, coarse, size, first, width, c_copy);
            copy_points(f + sample * fine * size, fine, size, first, width, f_copy);
            const Band<T> band{1, vectors, c_copy, width, f_copy, &row, &row, width};
            correlate_band<T, 1>(band, coarse, fine, total);
        }
    });
}

template <class T>
void correlate(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    if (a.points == 1) return correlate_points(a, f, c, w, team);
    (a.stride == 1 ? correlate_fine<T> : correlate_coarse<T>)(a, f, c, w, team);
}
