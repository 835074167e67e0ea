// Fields of several channels in vectors: sums over channels and points, held in registers for a tile of output channels
// times neighbouring points of a row.
#pragma once

#include <cstring>
#include <mutex>

#include "rows.hpp"

#ifdef __AVX512F__
constexpr int CHANNEL_BYTES = 64, CHANNEL_SUMS = 24;   // of 32 registers
#else
constexpr int CHANNEL_BYTES = 32, CHANNEL_SUMS = 12;   // of 16
#endif

#define INLINE __attribute__((always_inline)) inline   // vectors stay in registers

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

// Rows as tiles of equally many vectors, two at most.
template <class T>
struct Tiling {
    Index tiles, vectors;
    explicit Tiling(Index points) {
        const Index needed = (points + Channels<T>::WIDTH - 1) / Channels<T>::WIDTH;
        tiles = (needed + 1) / 2, vectors = (needed + tiles - 1) / tiles;
    }
    Index width() const { return vectors * Channels<T>::WIDTH; }
    Index reached() const { return tiles * width(); }
};

// out[o][v] = sums over channels, rows and columns for CO channels and VX vectors; w in this order, o last.
template <class T, int CO, int VX, int Q>
void channel_tile(const T *const *rows, int row_count, const Index *columns, Index channels, Index channel_size,
                  const T *w, T *out) {
    using L = Channels<T>;
    typename L::Type sum[CO][VX] = {};
    for (Index i = 0; i < channels; ++i)
        for (int r = 0; r < row_count; ++r) {
            const T *x = rows[r] + i * channel_size;
#pragma GCC unroll 4
            for (int q = 0; q < Q; ++q, w += CO) {
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
using ChannelTile = void (*)(const T *const *, int, const Index *, Index, Index, const T *, T *);

// The tile of the most channels out of those that are left, and their number.
template <class T, int VX, int Q>
ChannelTile<T> largest_tile(Index left, int &channels) {
    constexpr int most = CHANNEL_SUMS / VX;
    if (left >= (channels = most)) return channel_tile<T, most, VX, Q>;
    if constexpr (most > 16)
        if (left >= (channels = 16)) return channel_tile<T, 16, VX, Q>;
    if constexpr (most > 8)
        if (left >= (channels = 8)) return channel_tile<T, 8, VX, Q>;
    if constexpr (most > 4)
        if (left >= (channels = 4)) return channel_tile<T, 4, VX, Q>;
    if constexpr (most > 2)
        if (left >= (channels = 2)) return channel_tile<T, 2, VX, Q>;
    channels = 1;
    return channel_tile<T, 1, VX, Q>;
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

    template <int VX>
    static ChannelTile<T> pick(int columns, Index left, int &channels) {
        switch (columns) {
        case 1: return largest_tile<T, VX, 1>(left, channels);
        case 2: return largest_tile<T, VX, 2>(left, channels);
        case 3: return largest_tile<T, VX, 3>(left, channels);
        default: return largest_tile<T, VX, 4>(left, channels);
        }
    }

    // at(o, i, r, q): the number of output channel o, input channel i, row r, column q
    template <class F>
    PackedKernel(Index vectors, Index out, Index in, int rows, int columns, F at) {
        for (Index first = 0; first < out;) {
            Block block{nullptr, first, 0, {}};
            const Index left = out - first;
            block.tile = (vectors == 1 ? pick<1> : pick<2>)(columns, left, block.channels);
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
