// Grid transfers of geometric multigrid. Fine index of coarse point c along an axis: step c + start + k, k = -1, 0, 1.
#pragma once

#include <utility>

#include "rows.hpp"

struct Axes {
    Index fine[3], coarse[3], step[3], start[3], periodic[3];
};

// Prolongation weights `up` and restriction weights `down`: where `batch` is 0 a product over the axes,
// w[axis][(k + 1) coarse[axis] + c]; otherwise a field for each of the 27 neighbours k of a coarse point,
// w[(ki + 1) 9 + (kj + 1) 3 + kk + 1], null where it is zero, of `batch` rows (repeated over those of the fields) and
// the coarse shape, `stride` numbers from one to the next, of which number `first` belongs to the first row of the fields.
template <class T>
struct Transfer {
    Axes axes;
    Index batch, first, stride;
    const T *const *up, *const *down;
};

template <class T>
inline void add_product(T *__restrict sum, const T *__restrict weight, const T *__restrict x, Index length) {
    for (Index k = 0; k < length; ++k) sum[k] += weight[k] * x[k];
}

// split[side][c] = line[2 c + start + side - 1], zero or wrapped outside.
template <class T>
void take_every_second(const T *__restrict line, Index nf, Index start, Index nc, bool wraps, T *const *split) {
    T *__restrict before = split[0], *__restrict at = split[1], *__restrict after = split[2];
    for (Index c = 1; c + 1 < nc; ++c) {
        const T *x = line + 2 * c + start;
        before[c] = x[-1], at[c] = x[0], after[c] = x[1];
    }
    for (Index c = 0; c < nc; c += std::max(Index(1), nc - 1))
        for (Index side = 0; side < 3; ++side) {
            const Index f = neighbour(2 * c + start + side - 1, nf, wraps);
            split[side][c] = f < 0 ? T(0) : line[f];
        }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAVE_SHUFFLE 1
#endif
#endif

#ifdef HAVE_SHUFFLE
// The numbers of two lanes in turn, from index `first` on.
template <int first, class L, std::size_t... I>
inline typename L::Type in_turn(typename L::Type even, typename L::Type odd, std::index_sequence<I...>) {
    return __builtin_shufflevector(even, odd, (int(I) % 2 ? int(L::WIDTH) : 0) + first + int(I) / 2 ...);
}

// The numbers 2 i + first of two lanes, one after the other.
template <int first, class L, std::size_t... I>
inline typename L::Type every_second(typename L::Type low, typename L::Type high, std::index_sequence<I...>) {
    return __builtin_shufflevector(low, high, (first + 2 * int(I)) ...);
}

template <int BYTES, class T>
inline Index add_lanes_in_turn(T *to, const T *even, const T *odd, Index k, Index count) {
    using L = Lane<T, BYTES>;
    constexpr auto all = std::make_index_sequence<L::WIDTH>{};
    for (; k + L::WIDTH <= count; k += L::WIDTH) {
        const auto a = L::load(even + k), b = L::load(odd + k);
        T *at = to + 2 * k;
        L::store(at, L::load(at) + in_turn<0, L>(a, b, all));
        L::store(at + L::WIDTH, L::load(at + L::WIDTH) + in_turn<L::WIDTH / 2, L>(a, b, all));
    }
    return k;
}
#endif

// to[2 k] += even[k] and to[2 k + 1] += odd[k]
template <class T>
inline void add_in_turn(T *to, const T *even, const T *odd, Index count) {
    Index k = 0;
#ifdef HAVE_SHUFFLE
    k = add_lanes_in_turn<64>(to, even, odd, k, count);
    k = add_lanes_in_turn<32>(to, even, odd, k, count);
    k = add_lanes_in_turn<16>(to, even, odd, k, count);
#endif
    for (; k < count; ++k) to[2 * k] += even[k], to[2 * k + 1] += odd[k];
}

// result[2 c + start + side - 1] += (before, at, after)[side][c], wrapped or dropped outside; changes `before`.
template <class T>
void add_spread(T *result, Index nf, Index start, Index nc, bool wraps, T *__restrict before, const T *__restrict at,
                const T *__restrict after) {
    const auto outside = [&](Index f, T value) {
        if ((f = neighbour(f, nf, wraps)) >= 0) result[f] += value;
    };
    outside(start - 1, before[0]);
    outside(start + 2 * nc - 1, after[nc - 1]);
    for (Index c = 0; c + 1 < nc; ++c) before[c] = after[c] + before[c + 1];
    add_in_turn(result + start, at, before, nc - 1);
    result[start + 2 * (nc - 1)] += at[nc - 1];
}

// coarse = restriction of fine, weights a product over the axes: w[axis][(k + 1) coarse[axis] + c].
template <class T>
void restrict_product(const Transfer<T> &transfer, const T *fine, T *coarse, Index batch, const Team &team) {
    const Axes &a = transfer.axes;
    const T *const *w = transfer.down;
    const Index rows = a.coarse[0] * a.coarse[1], nf = a.fine[2], nc = a.coarse[2];
    over_rows(batch * rows, batch * rows * nf * 4, team, [&](Index begin, Index end) {
        std::vector<T> line(nf + 2, T(0));
        T *middle = line.data() + 1;
        Place place(begin, a.coarse[0], a.coarse[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            const Index batch_row = place.batch, ci = place.i, cj = place.j;
            Terms<T> lines;
            for (int ki = 0; ki < 3; ++ki) {
                const Index fi = neighbour(a.step[0] * ci + a.start[0] + ki - 1, a.fine[0], a.periodic[0]);
                const T wi = w[0][ki * a.coarse[0] + ci];
                if (fi < 0 || wi == 0) continue;
                for (int kj = 0; kj < 3; ++kj) {
                    const Index fj = neighbour(a.step[1] * cj + a.start[1] + kj - 1, a.fine[1], a.periodic[1]);
                    const T wj = w[1][kj * a.coarse[1] + cj];
                    if (fj < 0 || wj == 0) continue;
                    lines.x[lines.scalars] = fine + ((batch_row * a.fine[0] + fi) * a.fine[1] + fj) * nf;
                    lines.c[lines.scalars++] = wi * wj;
                }
            }
            accumulate(middle, lines, 0, nf);
            if (a.periodic[2]) line[0] = line[nf], line[nf + 1] = line[1];
            T *result = coarse + row * nc;
            const T *left = w[2], *centre = w[2] + nc, *right = w[2] + 2 * nc;
            if (a.step[2] == 2) {
                const T *at = middle + a.start[2];
                for (Index c = 0; c < nc; ++c)
                    result[c] = left[c] * at[2 * c - 1] + centre[c] * at[2 * c] + right[c] * at[2 * c + 1];
            } else {
                for (Index c = 0; c < nc; ++c) result[c] = centre[c] * middle[c];
            }
        }
    });
}

// The coarse index that reaches fine index f through k, or -1.
inline Index parent(Index f, int k, int axis, const Axes &a) {
    const Index from = f - a.start[axis] - k;
    if (from < 0 && !a.periodic[axis]) return -1;
    const Index c = from < 0 ? from + a.fine[axis] : from;
    if (a.step[axis] == 1) return c < a.coarse[axis] ? c : -1;
    return c % 2 == 0 && c / 2 < a.coarse[axis] ? c / 2 : -1;
}

template <class T>
inline void split_products(T *__restrict before, T *__restrict at, T *__restrict after, const T *left, const T *centre,
                           const T *right, const T *value, Index count) {
    for (Index c = 0; c < count; ++c) {
        before[c] = left[c] * value[c];
        at[c] = centre[c] * value[c];
        after[c] = right[c] * value[c];
    }
}

// fine += prolongation of coarse, weights a product over the axes.
template <class T>
void prolong_product(const Transfer<T> &transfer, const T *coarse, T *fine, Index batch, const Team &team) {
    const Axes &a = transfer.axes;
    const T *const *w = transfer.up;
    const Index rows = a.fine[0] * a.fine[1], nf = a.fine[2], nc = a.coarse[2];
    over_rows(batch * rows, batch * rows * nf * 3, team, [&](Index begin, Index end) {
        std::vector<T> line(nc), split(3 * nc);
        T *value = line.data();
        Place place(begin, a.fine[0], a.fine[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            const Index batch_row = place.batch, fi = place.i, fj = place.j;
            Terms<T> lines;
            for (int ki = -1; ki <= 1; ++ki) {
                const Index ci = parent(fi, ki, 0, a);
                if (ci < 0) continue;
                const T wi = w[0][(ki + 1) * a.coarse[0] + ci];
                if (wi == 0) continue;
                for (int kj = -1; kj <= 1; ++kj) {
                    const Index cj = parent(fj, kj, 1, a);
                    if (cj < 0) continue;
                    const T wj = w[1][(kj + 1) * a.coarse[1] + cj];
                    if (wj == 0) continue;
                    lines.x[lines.scalars] = coarse + ((batch_row * a.coarse[0] + ci) * a.coarse[1] + cj) * nc;
                    lines.c[lines.scalars++] = wi * wj;
                }
            }
            if (!lines.scalars) continue;
            accumulate(value, lines, 0, nc);
            T *result = fine + row * nf;
            const T *left = w[2], *centre = w[2] + nc, *right = w[2] + 2 * nc;
            if (a.step[2] == 2) {
                T *before = split.data(), *at = before + nc, *after = at + nc;
                split_products(before, at, after, left, centre, right, value, nc);
                add_spread(result, nf, a.start[2], nc, a.periodic[2], before, at, after);
            } else {
                for (Index c = 0; c < nc; ++c) result[c] += centre[c] * value[c];
            }
        }
    });
}

template <class T>
void restrict_fields(const Transfer<T> &transfer, const T *fine, T *coarse, Index batch, const Team &team) {
    const Axes &a = transfer.axes;
    const T *const *w = transfer.down;
    const Index rows = a.coarse[0] * a.coarse[1], nc = a.coarse[2], nf = a.fine[2];
    over_rows(batch * rows, batch * rows * nc * 9, team, [&](Index begin, Index end) {
        // The fine line split into the points before, at and after each coarse one.
        std::vector<T> buffer(3 * nc);
        T *const split[3] = {buffer.data(), buffer.data() + nc, buffer.data() + 2 * nc};
        Place place(begin, a.coarse[0], a.coarse[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            const Index batch_row = place.batch, ci = place.i, cj = place.j;
            T *result = coarse + row * nc;
            std::fill(result, result + nc, T(0));
            for (int k = 0; k < 27; k += 3) {
                if (!w[k + 1]) continue;
                const Index fi = neighbour(a.step[0] * ci + a.start[0] + k / 9 - 1, a.fine[0], a.periodic[0]);
                const Index fj = neighbour(a.step[1] * cj + a.start[1] + k / 3 % 3 - 1, a.fine[1], a.periodic[1]);
                if (fi < 0 || fj < 0) continue;
                const T *line = fine + ((batch_row * a.fine[0] + fi) * a.fine[1] + fj) * nf;
                const Index at = (transfer.first + batch_row) % transfer.batch * transfer.stride + row % rows * nc;
                if (a.step[2] == 1) {
                    add_product(result, w[k + 1] + at, line, nc);
                    continue;
                }
                take_every_second(line, nf, a.start[2], nc, a.periodic[2], split);
                for (int side = 0; side < 3; ++side) add_product(result, w[k + side] + at, split[side], nc);
            }
        }
    });
}

template <class T>
void prolong_fields(const Transfer<T> &transfer, const T *coarse, T *fine, Index batch, const Team &team) {
    const Axes &a = transfer.axes;
    const T *const *w = transfer.up;
    const Index rows = a.fine[0] * a.fine[1], nf = a.fine[2], nc = a.coarse[2];
    over_rows(batch * rows, batch * rows * nf * 4, team, [&](Index begin, Index end) {
        std::vector<T> buffer(3 * nc);
        T *const split[3] = {buffer.data(), buffer.data() + nc, buffer.data() + 2 * nc};
        Place place(begin, a.fine[0], a.fine[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            const Index batch_row = place.batch, fi = place.i, fj = place.j;
            T *result = fine + row * nf;
            std::fill(buffer.begin(), buffer.end(), T(0));
            bool any = false;
            for (int k = 0; k < 27; k += 3) {
                if (!w[k + 1]) continue;
                const Index ci = parent(fi, k / 9 - 1, 0, a), cj = parent(fj, k / 3 % 3 - 1, 1, a);
                if (ci < 0 || cj < 0) continue;
                const Index coarse_row = ci * a.coarse[1] + cj;
                const T *line = coarse + (batch_row * a.coarse[0] * a.coarse[1] + coarse_row) * nc;
                const Index at = (transfer.first + batch_row) % transfer.batch * transfer.stride + coarse_row * nc;
                any = true;
                for (int side = 0; side < 3; ++side)
                    if (w[k + side]) add_product(split[side], w[k + side] + at, line, nc);
            }
            if (!any) continue;
            if (a.step[2] == 1) {
                for (Index c = 0; c < nc; ++c) result[c] += split[1][c];
            } else {
                add_spread(result, nf, a.start[2], nc, a.periodic[2], split[0], split[1], split[2]);
            }
        }
    });
}

#ifdef HAVE_SHUFFLE
// Up to nine lines with the fields of weights that multiply each: of the neighbours before, at and after coarse points.
template <class T>
struct WeightedLines {
    const T *line[9], *weight[9][3];
    int count = 0;

    void add(const T *from, const T *const *w, Index at) {
        line[count] = from;
        for (int side = 0; side < 3; ++side) weight[count][side] = w[side] + at;
        ++count;
    }
};

// Whether the two functions that follow suit: no axis wraps, and of the last one every second point is coarse. They want
// fields of a flat stencil and PADDING numbers around all weights: what they read outside a line is multiplied by zero or
// not stored.
constexpr Index PADDING = 64;

template <class T>
inline bool is_flat(const Transfer<T> &transfer) {
    const Axes &a = transfer.axes;
    return transfer.batch && a.step[2] == 2 && !a.periodic[0] && !a.periodic[1] && !a.periodic[2];
}

template <class T>
void restrict_flat(const Transfer<T> &transfer, const T *fine, T *coarse, const Team &team) {
    using L = Lane<T, 64>;
    constexpr auto all = std::make_index_sequence<L::WIDTH>{};
    const Axes &a = transfer.axes;
    const Index rows = a.coarse[0] * a.coarse[1], nc = a.coarse[2], nf = a.fine[2];
    const Index own = transfer.first % transfer.batch * transfer.stride;
    over_rows(rows, rows * nc * 3, team, [&](Index begin, Index end) {
        Place place(begin, a.coarse[0], a.coarse[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            WeightedLines<T> lines;
            for (int k = 0; k < 27; k += 3) {
                if (!transfer.down[k]) continue;
                const Index fi = neighbour(a.step[0] * place.i + a.start[0] + k / 9 - 1, a.fine[0], false);
                const Index fj = neighbour(a.step[1] * place.j + a.start[1] + k / 3 % 3 - 1, a.fine[1], false);
                if (fi >= 0 && fj >= 0)
                    lines.add(fine + (fi * a.fine[1] + fj) * nf, transfer.down + k, own + row * nc);
            }
            for (Index c = 0; c < nc; c += L::WIDTH) {
                typename L::Type sum = {};
                for (int t = 0; t < lines.count; ++t) {
                    const T *x = lines.line[t] + 2 * c;
                    const auto low = L::load(x), high = L::load(x + L::WIDTH);
                    const auto after_low = L::load(x + 2), after_high = L::load(x + L::WIDTH + 2);
                    sum += L::load(lines.weight[t][0] + c) * every_second<0, L>(low, high, all);
                    sum += L::load(lines.weight[t][1] + c) * every_second<1, L>(low, high, all);
                    sum += L::load(lines.weight[t][2] + c) * every_second<0, L>(after_low, after_high, all);
                }
                T *to = coarse + row * nc + c;
                if (c + L::WIDTH <= nc)
                    L::store(to, sum);
                else
                    for (Index k = 0; k < nc - c; ++k) to[k] = sum[k];
            }
        }
    });
}

template <class T>
void prolong_flat(const Transfer<T> &transfer, const T *coarse, T *fine, const Team &team) {
    using L = Lane<T, 64>;
    constexpr auto all = std::make_index_sequence<L::WIDTH>{};
    const Axes &a = transfer.axes;
    const Index rows = a.fine[0] * a.fine[1], nf = a.fine[2], nc = a.coarse[2];
    const Index own = transfer.first % transfer.batch * transfer.stride;
    over_rows(rows, rows * nc * 3, team, [&](Index begin, Index end) {
        Place place(begin, a.fine[0], a.fine[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            WeightedLines<T> lines;
            for (int k = 0; k < 27; k += 3) {
                if (!transfer.up[k]) continue;
                const Index ci = parent(place.i, k / 9 - 1, 0, a), cj = parent(place.j, k / 3 % 3 - 1, 1, a);
                const Index at = ci * a.coarse[1] + cj;
                if (ci >= 0 && cj >= 0) lines.add(coarse + at * nc, transfer.up + k, own + at * nc);
            }
            T *result = fine + row * nf;
            const T first = result[0];
            for (Index c = 0; c < nc; c += L::WIDTH) {
                typename L::Type even = {}, odd = {};
                for (int t = 0; t < lines.count; ++t) {
                    const T *x = lines.line[t] + c;
                    const auto here = L::load(x);
                    even += L::load(lines.weight[t][0] + c) * here + L::load(lines.weight[t][2] + c - 1) * L::load(x - 1);
                    odd += L::load(lines.weight[t][1] + c) * here;
                }
                T *to = result + 2 * c;
                const auto low = in_turn<0, L>(even, odd, all), high = in_turn<L::WIDTH / 2, L>(even, odd, all);
                if (c + L::WIDTH <= nc) {
                    L::store(to, L::load(to) + low);
                    L::store(to + L::WIDTH, L::load(to + L::WIDTH) + high);
                } else {
                    for (Index k = 0; k < std::min(L::WIDTH, 2 * (nc - c)); ++k) to[k] += low[k];
                    for (Index k = L::WIDTH; k < 2 * (nc - c); ++k) to[k] += high[k - L::WIDTH];
                }
            }
            if (nf == 2 * nc) continue;
            // The last fine point lies behind the last coarse one, whose weight for it the first one was given too.
            T begins = first, ends = result[nf - 1];
            for (int t = 0; t < lines.count; ++t) {
                begins += lines.weight[t][0][0] * lines.line[t][0];
                ends += lines.weight[t][2][nc - 1] * lines.line[t][nc - 1];
            }
            result[0] = begins, result[nf - 1] = ends;
        }
    });
}
#endif

// coarse = restriction of fine
template <class T>
void restrict_rows(const Transfer<T> &transfer, const T *fine, T *coarse, Index batch, const Team &team) {
    (transfer.batch ? restrict_fields<T> : restrict_product<T>)(transfer, fine, coarse, batch, team);
}

// fine += prolongation of coarse
template <class T>
void prolong_rows(const Transfer<T> &transfer, const T *coarse, T *fine, Index batch, const Team &team) {
    (transfer.batch ? prolong_fields<T> : prolong_product<T>)(transfer, coarse, fine, batch, team);
}
