// Convolutions of fields of several channels in two dimensions, zero beyond the walls, as learned multigrid has them,
// and their adjoints: 3 or 4 points an axis with stride 2, 1 or 3 points with stride 1.
//
// One kernel w[coarse channel][fine channel][p][q] ties two grids: gather takes the fine one to the coarse one,
//     c[o][Y][X] = sum of w[o][i][p][q] f[i][s Y + p - 1][s X + q - 1],
// spread takes c back to f by the transposed sum, and correlate makes of f and c the derivative with respect to w.
//
// Sums are held in registers for a tile of channels times neighbouring points of a row. With stride 1, four rows at a
// time are computed from six products instead of twelve, by the minimal filter F(4, 3) along columns (Lavin and Gray,
// Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.3).
#pragma once

#include "channel_rows.hpp"

struct Convolution {
    Index batch, fine_channels, coarse_channels, fine[2], coarse[2], points, stride;
};

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
                filter_kernel(at(o, i, 0, q), at(o, i, 1, q), at(o, i, 2, q), &filtered[(o * in + i) * 3 + q],
                              out * in * 3);
    std::vector<PackedKernel<T>> kernels;
    for (int filter = 0; filter < FILTERS; ++filter)
        kernels.emplace_back(tiling.vectors, out, in, 1, 3, [&](Index o, Index i, int, int q) {
            return filtered[((filter * out + o) * in + i) * 3 + q];
        });
    const T scale = T(factor);
    over_rows(batch * quads, batch * size * in * out * 9, team, [&](Index begin, Index end) {
        const Index channel_size = tiling.reached() + 2 * L::WIDTH, filter_size = in * channel_size;
        T *filtered_rows = scratch<T, 0>(FILTERS * filter_size);
        T *sums = scratch<T, 1>(FILTERS * CHANNEL_SUMS * L::WIDTH);
        for (Index number = begin; number < end; ++number) {
            const Index sample = number / quads, quad = number % quads;
            filter_rows(x + sample * in * size, in, space, quad, filtered_rows, filter_size, channel_size,
                        channel_size);
            for (Index tile = 0; tile < tiling.tiles; ++tile) {
                const Index first = tile * tiling.width();
                const Index columns[] = {first + L::WIDTH - 1, first + L::WIDTH, first + L::WIDTH + 1};
                for (std::size_t b = 0; b < kernels[0].blocks.size(); ++b) {
                    const Index block_size = kernels[0].blocks[b].channels * tiling.width();
                    for (int filter = 0; filter < FILTERS; ++filter) {
                        const auto &block = kernels[filter].blocks[b];
                        const T *row = filtered_rows + filter * filter_size;
                        block.tile(&row, 1, columns, in, channel_size, block.w.data(), sums + filter * block_size);
                    }
                    const auto &block = kernels[0].blocks[b];
                    for (int o = 0; o < block.channels; ++o) {
                        const T constant = bias ? bias[block.first + o] : T(0);
                        const Index row = (sample * out + block.first + o) * space[0] + QUAD * quad;
                        const Index place = row * space[1] + first;
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
                    block.tile(rows, points, columns, a.fine_channels, strips.channel_size(), block.w.data(),
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
                        block.tile(rows, down.count, columns, a.coarse_channels, strips.channel_size(),
                                   block.w.data(), sums + parity * half);
                    }
                    const auto &block = kernel->blocks[b];
                    for (int i = 0; i < block.channels; ++i) {
                        const Index channel = sample * a.fine_channels + block.first + i;
                        const Index place = channel * size + row * a.fine[1] + 2 * first;
                        prefetch<1>(f + place + a.fine[1], 2 * tiling.width());
                        if (add) prefetch<0>(add + place + a.fine[1], 2 * tiling.width());
                        for (Index v = 0; v < tiling.vectors; ++v) {
                            const T *sum = sums + i * tiling.width() + v * L::WIDTH;
                            const auto even = L::load(sum), odd = L::load(sum + half);
                            const Index x = 2 * v * L::WIDTH, to = place + x;
                            if (length > x)
                                finish(f + to, add ? add + to : nullptr, scale, T(0),
                                       in_turn<T, 0>(even, odd, Numbers<T>()), length - x);
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

// y[o] = add + factor (bias[o] + sum over i of at(o, i) x[i]) at each of `size` points
template <class T, class F>
void mix(Index batch, Index in, Index out, Index size, const T *x, F at, const T *add, double factor, const T *bias,
         T *y, const Team &team) {
    using L = Channels<T>;
    const Tiling<T> tiling(size);
    const Index tiles = std::min<Index>(tiling.tiles, 4), width = tiles * tiling.width();
    const Index pieces = (size + width - 1) / width;
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
                    block.tile(&copy, 1, &column, in, width, block.w.data(), sums);
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
