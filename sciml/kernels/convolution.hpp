// Convolutions of fields of several channels in two dimensions, zero beyond the walls, as learned multigrid has them, and
// both of their adjoints: 3 or 4 points an axis with stride 2, 1 or 3 points with stride 1.
//
// One kernel w[coarse channel][fine channel][p][q] ties two grids: gather takes the fine one to the coarse one,
//     c[o][Y][X] = sum of w[o][i][p][q] f[i][s Y + p - 1][s X + q - 1],
// spread takes c back to f by the transposed sum, and correlate makes of f and c the derivative with respect to w.
//
// Sums are held in registers for a tile of channels times neighbouring points of a row. With stride 1, four rows at a
// time are computed from six products instead of twelve, by the minimal filter F(4, 3) along columns (Lavin and Gray,
// Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.3).
#pragma once

#include <cstring>
#include <mutex>

#include "rows.hpp"

#ifdef __AVX512F__
constexpr int CHANNEL_BYTES = 64, CHANNEL_SUMS = 24;   // of 32 registers
#else
constexpr int CHANNEL_BYTES = 32, CHANNEL_SUMS = 12;   // of 16
#endif

struct Convolution {
    Index batch, fine_channels, coarse_channels, fine[2], coarse[2], points, stride;
};

template <class T>
using Channels = Lane<T, CHANNEL_BYTES>;

// Memory of a thread that begins at a vector's boundary and is kept for the next call; what is in it is left over.
template <class T, int NUMBER>
T *scratch(Index size) {
    static thread_local std::vector<T> kept;
    if (Index(kept.size()) < size + Channels<T>::WIDTH) kept.resize(size + Channels<T>::WIDTH);
    const auto beyond = reinterpret_cast<std::uintptr_t>(kept.data()) % CHANNEL_BYTES;
    return kept.data() + (CHANNEL_BYTES - beyond) % CHANNEL_BYTES / sizeof(T);
}

// Numbers at the beginning of a vector, zeros behind them.
template <class T>
typename Channels<T>::Type load_some(const T *from, Index count) {
    if (count >= Channels<T>::WIDTH) return Channels<T>::load(from);
    typename Channels<T>::Type value = {};
    if (count > 0) std::memcpy(&value, from, count * sizeof(T));
    return value;
}

// to = add + scale (bias + value) for the first so many numbers
template <class T>
void finish(T *to, const T *add, T scale, T bias, typename Channels<T>::Type value, Index count) {
    value = scale * (bias + value);
    if (count >= Channels<T>::WIDTH) {
        Channels<T>::store(to, add ? Channels<T>::load(add) + value : value);
    } else {
        if (add) value += load_some(add, count);
        std::memcpy(to, &value, count * sizeof(T));
    }
}

template <class T>
using Numbers = std::make_index_sequence<Channels<T>::WIDTH>;

// Of two vectors one after the other, every second number from the first (0) or second (1) on.
template <class T, int FIRST, std::size_t... I>
typename Channels<T>::Type every_second(typename Channels<T>::Type a, typename Channels<T>::Type b,
                                        std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (2 * I + FIRST)...);
}

// The first (0) or second (1) half of the numbers of two vectors in turn.
template <class T, int HALF, std::size_t... I>
typename Channels<T>::Type in_turn(typename Channels<T>::Type a, typename Channels<T>::Type b,
                                   std::index_sequence<I...>) {
    constexpr int W = Channels<T>::WIDTH;
    return __builtin_shufflevector(a, b, (I % 2 * W + I / 2 + HALF * W / 2)...);
}

// Has numbers that are needed soon, to be read (0) or written (1), brought into the cache.
template <int WRITTEN, class T>
void prefetch(const T *from, Index count) {
    for (Index k = 0; k < count; k += 64 / sizeof(T)) __builtin_prefetch(from + k, WRITTEN, 2);
}

// Rows as tiles of equally many vectors, four at most.
template <class T>
struct Tiling {
    Index tiles, vectors;
    explicit Tiling(Index points) {
        const Index needed = (points + Channels<T>::WIDTH - 1) / Channels<T>::WIDTH;
        tiles = (needed + 3) / 4, vectors = (needed + tiles - 1) / tiles;
    }
    Index width() const { return vectors * Channels<T>::WIDTH; }
    Index reached() const { return tiles * width(); }
};

// out[o][v] = sums over channels, rows and columns for CO channels and VX vectors; w in this order, o last.
template <class T, int CO, int VX>
void channel_tile(const T *const *rows, int row_count, const Index *columns, int column_count, Index channels,
                  Index channel_size, const T *w, T *out) {
    using L = Channels<T>;
    typename L::Type sum[CO][VX] = {};
    for (Index i = 0; i < channels; ++i)
        for (int r = 0; r < row_count; ++r) {
            const T *x = rows[r] + i * channel_size;
            for (int q = 0; q < column_count; ++q, w += CO) {
                typename L::Type in[VX];
#pragma GCC unroll 4
                for (int v = 0; v < VX; ++v) in[v] = L::load(x + columns[q] + v * L::WIDTH);
#pragma GCC unroll 24
                for (int o = 0; o < CO; ++o)
#pragma GCC unroll 4
                    for (int v = 0; v < VX; ++v) sum[o][v] += w[o] * in[v];
            }
        }
#pragma GCC unroll 24
    for (int o = 0; o < CO; ++o)
#pragma GCC unroll 4
        for (int v = 0; v < VX; ++v) L::store(out + (o * VX + v) * L::WIDTH, sum[o][v]);
}

template <class T>
using ChannelTile = void (*)(const T *const *, int, const Index *, int, Index, Index, const T *, T *);

// The tile of the most channels out of those that are left, and their number.
template <class T, int VX>
ChannelTile<T> largest_tile(Index left, int &channels) {
    constexpr int most = CHANNEL_SUMS / VX;
    if (left >= (channels = most)) return channel_tile<T, most, VX>;
    if constexpr (most > 16)
        if (left >= (channels = 16)) return channel_tile<T, 16, VX>;
    if constexpr (most > 8)
        if (left >= (channels = 8)) return channel_tile<T, 8, VX>;
    if constexpr (most > 4)
        if (left >= (channels = 4)) return channel_tile<T, 4, VX>;
    if constexpr (most > 2)
        if (left >= (channels = 2)) return channel_tile<T, 2, VX>;
    channels = 1;
    return channel_tile<T, 1, VX>;
}

// Output channels in blocks, each with its tile and its part of the kernel in the order in which the tile reads it.
template <class T>
struct PackedKernel {
    struct Block {
        ChannelTile<T> tile;
        Index first;
        int channels;
        std::vector<T> w;
    };
    std::vector<Block> blocks;

    // at(o, i, r, q): the number of output channel o, input channel i, row r, column q
    template <class F>
    PackedKernel(Index vectors, Index out, Index in, int rows, int columns, F at) {
        for (Index first = 0; first < out;) {
            Block block{nullptr, first, 0, {}};
            const Index left = out - first;
            switch (vectors) {
            case 1: block.tile = largest_tile<T, 1>(left, block.channels); break;
            case 2: block.tile = largest_tile<T, 2>(left, block.channels); break;
            case 3: block.tile = largest_tile<T, 3>(left, block.channels); break;
            default: block.tile = largest_tile<T, 4>(left, block.channels);
            }
            block.w.resize(in * rows * columns * block.channels);
            T *w = block.w.data();
            for (Index i = 0; i < in; ++i)
                for (int r = 0; r < rows; ++r)
                    for (int q = 0; q < columns; ++q)
                        for (int o = 0; o < block.channels; ++o) *w++ = at(first + o, i, r, q);
            first += block.channels;
            blocks.push_back(std::move(block));
        }
    }
};

// F(4, 3): y = A' ((G w) (B' d)), four y from six d and three w.
constexpr Index BAND = 32;   // vectors of rows that are correlated at once: with all channels they stay in the cache
constexpr int FILTERS = 6, QUAD = 4;

template <class T>
void filter_kernel(T w0, T w1, T w2, T *out, Index stride) {
    out[0] = w0 / 4;
    out[stride] = -(w0 + w1 + w2) / 6;
    out[2 * stride] = -(w0 - w1 + w2) / 6;
    out[3 * stride] = (w0 + 2 * w1 + 4 * w2) / 24;
    out[4 * stride] = (w0 - 2 * w1 + 4 * w2) / 24;
    out[5 * stride] = w2;
}

// The transpose: derivatives with respect to the products as those with respect to w0, w1, w2.
template <class T>
void filter_kernel_transposed(const T *u, Index stride, T *w, Index w_stride) {
    const T a = u[stride] + u[2 * stride], b = u[stride] - u[2 * stride];
    const T e = u[3 * stride] + u[4 * stride], g = u[3 * stride] - u[4 * stride];
    w[0] = u[0] / 4 - a / 6 + e / 24;
    w[w_stride] = -b / 6 + g / 12;
    w[2 * w_stride] = -a / 6 + e / 6 + u[5 * stride];
}

template <class V>
void filter_input(const V *d, V *out) {
    const V a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], e = d[4] - d[2], g = 2 * (d[3] - d[1]);
    out[0] = 4 * d[0] - 5 * d[2] + d[4];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = e + g;
    out[4] = e - g;
    out[5] = 4 * d[1] - 5 * d[3] + d[5];
}

template <class V>
void filter_output(const V *m, V *y) {
    const V a = m[1] + m[2], b = m[1] - m[2], e = m[3] + m[4], g = m[3] - m[4];
    y[0] = m[0] + a + e;
    y[1] = b + 2 * g;
    y[2] = a + 4 * e;
    y[3] = b + 8 * g + m[5];
}

template <class V>
void filter_output_transposed(const V *y, V *out) {
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
        const T *from = sample + (i * space[0] + QUAD * quad - 1) * space[1];
        prefetch<0>(from + 6 * space[1], QUAD * space[1]);
        Index k = 0;
        for (; k < space[1]; k += L::WIDTH) {
            typename L::Type d[6], out[FILTERS];
            if (quad > 0 && QUAD * quad + QUAD < space[0] && k + L::WIDTH <= space[1]) {
#pragma GCC unroll 6
                for (int r = 0; r < 6; ++r) d[r] = L::load(from + r * space[1] + k);
            } else {
                for (int r = 0; r < 6; ++r) {
                    const Index row = QUAD * quad - 1 + r;
                    d[r] = load_some(from + r * space[1] + k, row < 0 || row >= space[0] ? 0 : space[1] - k);
                }
            }
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

// y[o] = add + factor (bias[o] + sum over i and (p, q) of at(o, i, p, q) x[i], moved by (p - 1, q - 1)); what is not
// given is 0
template <class T, class F>
void convolve(Index batch, Index in, Index out, const Index *space, const T *x, F at, const T *add, double factor,
              const T *bias, T *y, const Team &team) {
    using L = Channels<T>;
    const Index quads = (space[0] + QUAD - 1) / QUAD, size = space[0] * space[1];
    const Tiling<T> tiling(space[1]);
    std::vector<T> filtered(FILTERS * out * in * 3);
    for (Index o = 0; o < out; ++o)
        for (Index i = 0; i < in; ++i)
            for (int q = 0; q < 3; ++q)
                filter_kernel(at(o, i, 0, q), at(o, i, 1, q), at(o, i, 2, q), &filtered[(o * in + i) * 3 + q], out * in * 3);
    std::vector<PackedKernel<T>> kernels;
    for (int filter = 0; filter < FILTERS; ++filter)
        kernels.emplace_back(tiling.vectors, out, in, 1, 3, [&](Index o, Index i, int, int q) {
            return filtered[((filter * out + o) * in + i) * 3 + q];
        });
    const T scale = T(factor);
    over_rows(batch * quads, batch * size * in * out * 9, team, [&](Index begin, Index end) {
        const Index channel_size = tiling.reached() + 2 * L::WIDTH, filter_size = in * channel_size;
        T *filtered_rows = scratch<T, 0>(FILTERS * filter_size), *sums = scratch<T, 1>(FILTERS * CHANNEL_SUMS * L::WIDTH);
        for (Index number = begin; number < end; ++number) {
            const Index sample = number / quads, quad = number % quads;
            filter_rows(x + sample * in * size, in, space, quad, filtered_rows, filter_size, channel_size, channel_size);
            for (Index tile = 0; tile < tiling.tiles; ++tile) {
                const Index first = tile * tiling.width();
                const Index columns[] = {first + L::WIDTH - 1, first + L::WIDTH, first + L::WIDTH + 1};
                for (std::size_t b = 0; b < kernels[0].blocks.size(); ++b) {
                    const Index block_size = kernels[0].blocks[b].channels * tiling.width();
                    for (int filter = 0; filter < FILTERS; ++filter) {
                        const auto &block = kernels[filter].blocks[b];
                        const T *row = filtered_rows + filter * filter_size;
                        block.tile(&row, 1, columns, 3, in, channel_size, block.w.data(), sums + filter * block_size);
                    }
                    const auto &block = kernels[0].blocks[b];
                    for (int o = 0; o < block.channels; ++o) {
                        const T constant = bias ? bias[block.first + o] : T(0);
                        const Index place = ((sample * out + block.first + o) * space[0] + QUAD * quad) * space[1] + first;
                        if (tile == 0) {
                            prefetch<1>(y + place + QUAD * space[1], QUAD * space[1]);
                            if (add) prefetch<0>(add + place + QUAD * space[1], QUAD * space[1]);
                        }
                        for (Index v = 0; v < tiling.vectors; ++v) {
                            const Index count = space[1] - first - v * L::WIDTH;
                            if (count <= 0) break;
                            typename L::Type m[FILTERS], of_rows[QUAD];
#pragma GCC unroll 6
                            for (int filter = 0; filter < FILTERS; ++filter)
                                m[filter] = L::load(sums + filter * block_size + (o * tiling.vectors + v) * L::WIDTH);
                            filter_output(m, of_rows);
#pragma GCC unroll 4
                            for (int r = 0; r < QUAD; ++r) {
                                if (QUAD * quad + r >= space[0]) break;
                                const Index to = place + r * space[1] + v * L::WIDTH;
                                finish(y + to, add ? add + to : nullptr, scale, constant, of_rows[r], count);
                            }
                        }
                    }
                }
            }
        }
    });
}

// Rows of all channels of a sample, zero beyond the walls: in two halves, columns -1, 1, 3, ... and 0, 2, 4, ..., or whole.
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
    Ring(const Strips<T> &strips, Index size) : strips(strips), size(size), slots(scratch<T, 0>(size * strips.row_size())) {}

    void advance(const T *of_sample, Index first, Index last) {
        if (of_sample != sample || first > next) next = first;
        sample = of_sample;
        for (; next <= last; ++next) strips.fill(slot(next), sample, next);
    }

    const T *row(Index at) const { return slot(at); }
};

// c = add + factor (bias + w f), with stride 2
template <class T>
void gather_coarse(const Convolution &a, const T *f, const T *w, const T *add, double factor, const T *bias, T *c,
                   const Team &team) {
    using L = Channels<T>;
    const Index points = a.points, size = a.coarse[0] * a.coarse[1];
    const Tiling<T> tiling(a.coarse[1]);
    const Strips<T> strips(a.fine_channels, a.fine, 2, tiling.reached());
    const PackedKernel<T> kernel(tiling.vectors, a.coarse_channels, a.fine_channels, points, points,
                                 [=](Index o, Index i, int p, int q) {
                                     return w[((o * a.fine_channels + i) * points + p) * points + q];
                                 });
    const T scale = T(factor);
    over_rows(a.batch * a.coarse[0], a.batch * size * a.coarse_channels * a.fine_channels * points, team,
              [&](Index begin, Index end) {
        Ring<T> ring(strips, points);
        T *sums = scratch<T, 1>(CHANNEL_SUMS * L::WIDTH);
        for (Index number = begin; number < end; ++number) {
            const Index sample = number / a.coarse[0], row = number % a.coarse[0], top = 2 * row - 1;
            ring.advance(f + sample * a.fine_channels * a.fine[0] * a.fine[1], top, top + points - 1);
            const T *rows[4];
            for (Index p = 0; p < points; ++p) rows[p] = ring.row(top + p);
            for (Index tile = 0; tile < tiling.tiles; ++tile) {
                const Index first = tile * tiling.width();
                const Index columns[] = {first, strips.length + first, first + 1, strips.length + first + 1};
                for (const auto &block : kernel.blocks) {
                    block.tile(rows, points, columns, points, a.fine_channels, strips.channel_size(), block.w.data(),
                               sums);
                    for (int o = 0; o < block.channels; ++o) {
                        const Index place = (sample * a.coarse_channels + block.first + o) * size + row * a.coarse[1];
                        for (Index v = 0, x = first; v < tiling.vectors && x < a.coarse[1]; ++v, x += L::WIDTH)
                            finish(c + place + x, add ? add + place + x : nullptr, scale,
                                   bias ? bias[block.first + o] : T(0),
                                   L::load(sums + (o * tiling.vectors + v) * L::WIDTH), a.coarse[1] - x);
                    }
                }
            }
        }
    });
}

// Along an axis, points 2 m and 2 m + 1 of f are reached from points m + shift of c by these numbers of the kernel.
struct Reached {
    int count = 0;
    Index shift[2], number[2];
    Reached(Index parity, Index points) {
        for (Index number = points - 1; number >= 0; --number)
            if ((parity + 1 - number) % 2 == 0) {
                shift[count] = (parity + 1 - number) / 2;
                this->number[count++] = number;
            }
    }
};

// f = add + factor w' c, with stride 2
template <class T>
void spread_fine(const Convolution &a, const T *c, const T *w, const T *add, double factor, T *f, const Team &team) {
    using L = Channels<T>;
    const Index points = a.points, size = a.fine[0] * a.fine[1];
    const Tiling<T> tiling((a.fine[1] + 1) / 2);
    const Strips<T> strips(a.coarse_channels, a.coarse, 1, tiling.reached());
    const Reached reached[] = {{0, points}, {1, points}};
    std::vector<PackedKernel<T>> kernels;
    for (const Reached &down : reached)
        for (const Reached &along : reached)
            kernels.emplace_back(tiling.vectors, a.fine_channels, a.coarse_channels, down.count, along.count,
                                 [&](Index i, Index o, int r, int q) {
                                     return w[((o * a.fine_channels + i) * points + down.number[r]) * points +
                                              along.number[q]];
                                 });
    const T scale = T(factor);
    over_rows(a.batch * a.fine[0], a.batch * size * a.fine_channels * a.coarse_channels * points, team,
              [&](Index begin, Index end) {
        Ring<T> ring(strips, 3);
        const Index half = CHANNEL_SUMS * L::WIDTH;
        T *sums = scratch<T, 1>(2 * half);
        for (Index number = begin; number < end; ++number) {
            const Index sample = number / a.fine[0], row = number % a.fine[0], m = row / 2;
            ring.advance(c + sample * a.coarse_channels * a.coarse[0] * a.coarse[1], m - 1, m + 1);
            const Reached &down = reached[row % 2];
            const T *rows[2];
            for (int r = 0; r < down.count; ++r) rows[r] = ring.row(m + down.shift[r]);
            const PackedKernel<T> *kernel = &kernels[row % 2 * 2];
            for (Index tile = 0; tile < tiling.tiles; ++tile) {
                const Index first = tile * tiling.width(), length = a.fine[1] - 2 * first;
                for (std::size_t b = 0; b < kernel->blocks.size(); ++b) {
                    for (int parity = 0; parity < 2; ++parity) {
                        const Reached &along = reached[parity];
                        const auto &block = kernel[parity].blocks[b];
                        Index columns[2];
                        for (int q = 0; q < along.count; ++q) columns[q] = strips.lead + first + along.shift[q];
                        block.tile(rows, down.count, columns, along.count, a.coarse_channels, strips.channel_size(),
                                   block.w.data(), sums + parity * half);
                    }
                    const auto &block = kernel->blocks[b];
                    for (int i = 0; i < block.channels; ++i) {
                        const Index place = (sample * a.fine_channels + block.first + i) * size + row * a.fine[1] + 2 * first;
                        prefetch<1>(f + place + a.fine[1], 2 * tiling.width());
                        if (add) prefetch<0>(add + place + a.fine[1], 2 * tiling.width());
                        for (Index v = 0; v < tiling.vectors; ++v) {
                            const T *sum = sums + i * tiling.width() + v * L::WIDTH;
                            const auto even = L::load(sum), odd = L::load(sum + half);
                            const Index x = 2 * v * L::WIDTH, to = place + x;
                            if (length > x)
                                finish(f + to, add ? add + to : nullptr, scale, T(0), in_turn<T, 0>(even, odd, Numbers<T>()),
                                       length - x);
                            if (length > x + L::WIDTH)
                                finish(f + to + L::WIDTH, add ? add + to + L::WIDTH : nullptr, scale, T(0),
                                       in_turn<T, 1>(even, odd, Numbers<T>()), length - x - L::WIDTH);
                        }
                    }
                }
            }
        }
    });
}

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

// y[o] = add + factor (bias[o] + sum over i of at(o, i) x[i]) at each of `size` points
template <class T, class F>
void mix(Index batch, Index in, Index out, Index size, const T *x, F at, const T *add, double factor, const T *bias,
         T *y, const Team &team) {
    using L = Channels<T>;
    const Tiling<T> tiling(size);
    const Index tiles = std::min<Index>(tiling.tiles, 4), width = tiles * tiling.width(), pieces = (size + width - 1) / width;
    const PackedKernel<T> kernel(tiling.vectors, out, in, 1, 1, [=](Index o, Index i, int, int) { return at(o, i); });
    const T scale = T(factor);
    over_rows(batch * pieces, batch * size * in * out, team, [&](Index begin, Index end) {
        T *copy = scratch<T, 0>(in * width), *sums = scratch<T, 1>(CHANNEL_SUMS * L::WIDTH);
        for (Index number = begin; number < end; ++number) {
            const Index sample = number / pieces, first = number % pieces * width;
            copy_points(x + sample * in * size, in, size, first, width, copy);
            for (const auto &block : kernel.blocks)
                for (Index tile = 0; tile < tiles; ++tile) {
                    const Index column = tile * tiling.width();
                    block.tile(&copy, 1, &column, 1, in, width, block.w.data(), sums);
                    for (int o = 0; o < block.channels; ++o) {
                        const Index place = (sample * out + block.first + o) * size + first;
                        if (tile == 0) {
                            prefetch<1>(y + place + width, width);
                            if (add) prefetch<0>(add + place + width, width);
                        }
                        for (Index v = 0, k = column; v < tiling.vectors && first + k < size; ++v, k += L::WIDTH)
                            finish(y + place + k, add ? add + place + k : nullptr, scale,
                                   bias ? bias[block.first + o] : T(0),
                                   L::load(sums + (o * tiling.vectors + v) * L::WIDTH), size - first - k);
                    }
                }
        }
    });
}

template <class T>
void gather(const Convolution &a, const T *f, const T *w, const T *add, double factor, const T *bias, T *c,
            const Team &team) {
    const Index fine = a.fine_channels, coarse = a.coarse_channels;
    if (a.points == 1) {
        const auto at = [=](Index o, Index i) { return w[o * fine + i]; };
        mix(a.batch, fine, coarse, a.fine[0] * a.fine[1], f, at, add, factor, bias, c, team);
    } else if (a.stride == 1) {
        const auto at = [=](Index o, Index i, int p, int q) { return w[((o * fine + i) * 3 + p) * 3 + q]; };
        convolve(a.batch, fine, coarse, a.fine, f, at, add, factor, bias, c, team);
    } else {
        gather_coarse(a, f, w, add, factor, bias, c, team);
    }
}

template <class T>
void spread(const Convolution &a, const T *c, const T *w, const T *add, double factor, T *f, const Team &team) {
    const Index fine = a.fine_channels, coarse = a.coarse_channels;
    const T *none = nullptr;
    if (a.points == 1) {
        const auto at = [=](Index i, Index o) { return w[o * fine + i]; };
        mix(a.batch, coarse, fine, a.fine[0] * a.fine[1], c, at, add, factor, none, f, team);
    } else if (a.stride == 1) {
        const auto at = [=](Index i, Index o, int p, int q) { return w[((o * fine + i) * 3 + 2 - p) * 3 + 2 - q]; };
        convolve(a.batch, coarse, fine, a.fine, c, at, add, factor, none, f, team);
    } else {
        spread_fine(a, c, w, add, factor, f, team);
    }
}

// Sums over the lanes of as many vectors as there are lanes, eight at most: halves of pairs are added until they are done.
template <class T, int SEGMENT, std::size_t... I>
typename Channels<T>::Type add_halves(typename Channels<T>::Type a, typename Channels<T>::Type b,
                                      std::index_sequence<I...>) {
    constexpr int half = SEGMENT / 2;
    return __builtin_shufflevector(a, b, (I / half * SEGMENT + I % half)...) +
           __builtin_shufflevector(a, b, (I / half * SEGMENT + I % half + half)...);
}

template <class T, int COUNT, int SEGMENT = Channels<T>::WIDTH>
void sums_of_lanes(typename Channels<T>::Type *vectors, T *sums) {
    if constexpr (COUNT == 1) {
        T lanes[Channels<T>::WIDTH];
        Channels<T>::store(lanes, vectors[0]);
        for (int k = 0; k < Channels<T>::WIDTH / SEGMENT; ++k) {
            sums[k] = lanes[k * SEGMENT];
            for (int l = 1; l < SEGMENT; ++l) sums[k] += lanes[k * SEGMENT + l];
        }
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
void correlate_tile(const Band<T> &band, const T *c, const T *f, T *w, Index o_size, Index i_size) {
    using L = Channels<T>;
    constexpr int COUNT = CO * CI * Q, GROUP = L::WIDTH < 8 ? L::WIDTH : 8, PADDED = (COUNT + GROUP - 1) / GROUP * GROUP;
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
    T sums[PADDED];
#pragma GCC unroll 8
    for (int group = 0; group < PADDED; group += GROUP) sums_of_lanes<T, GROUP>(sum + group, sums + group);
    for (int o = 0; o < CO; ++o)
        for (int i = 0; i < CI; ++i)
            for (int q = 0; q < Q; ++q) w[o * o_size + i * i_size + q] += sums[(o * CI + i) * Q + q];
}

template <class T, int CO, int CI, int Q>
void correlate_channels(const Band<T> &band, Index &o, Index coarse, Index fine, T *w, Index o_size, Index i_size) {
    for (; o + CO <= coarse; o += CO) {
        const T *c = band.c + o * band.c_channel_size;
        Index i = 0;
        for (; i + CI <= fine; i += CI)
            correlate_tile<T, CO, CI, Q>(band, c, band.f + i * band.f_channel_size, w + o * o_size + i * i_size, o_size,
                                         i_size);
        for (; i < fine; ++i)
            correlate_tile<T, CO, 1, Q>(band, c, band.f + i * band.f_channel_size, w + o * o_size + i * i_size, o_size,
                                        i_size);
    }
}

// w[o][i][q] += ... for all channels
template <class T, int Q>
void correlate_band(const Band<T> &band, Index coarse, Index fine, T *w, Index o_size, Index i_size) {
    constexpr int CI = Q == 1 ? CHANNEL_SUMS / 4 : Q == 3 && CHANNEL_SUMS >= 24 ? 2 : 1, CO = CHANNEL_SUMS / (CI * Q);
    Index o = 0;
    correlate_channels<T, CO, CI, Q>(band, o, coarse, fine, w, o_size, i_size);
    correlate_channels<T, 1, CI, Q>(band, o, coarse, fine, w, o_size, i_size);
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
    const Index o_size = fine * FILTERS * 3, i_size = FILTERS * 3;
    std::vector<T> filtered(coarse * o_size);
    sum_shares(a.batch * quads, a.batch * size * coarse * fine * 9, coarse * o_size, filtered.data(), team,
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
                                y[r] = load_some(from + r * a.fine[1] + x, QUAD * quad + r < a.fine[0] ? a.fine[1] - x : 0);
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
                correlate_band<T, 3>(band, coarse, fine, total + filter * 3, o_size, i_size);
            }
        }
    });
    for (Index k = 0; k < coarse * fine; ++k)
        for (int q = 0; q < 3; ++q) filter_kernel_transposed(&filtered[k * i_size + q], 3, w + k * 9 + q, 3);
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
    const Index i_size = points * points, o_size = fine * i_size;
    sum_shares(a.batch * a.coarse[0], a.batch * a.coarse[0] * a.coarse[1] * coarse * o_size, coarse * o_size, w, team,
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
                (points == 3 ? correlate_band<T, 3> : correlate_band<T, 4>)(band, coarse, fine, total + p * points,
                                                                            o_size, i_size);
            }
        }
    });
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
            correlate_band<T, 1>(band, coarse, fine, total, fine, 1);
        }
    });
}

template <class T>
void correlate(const Convolution &a, const T *f, const T *c, T *w, const Team &team) {
    if (a.points == 1) return correlate_points(a, f, c, w, team);
    (a.stride == 1 ? correlate_fine<T> : correlate_coarse<T>)(a, f, c, w, team);
}
