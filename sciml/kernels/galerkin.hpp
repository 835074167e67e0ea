// Interpolation taken from a compact stencil, and its Galerkin product: see solvers/linear/coarse_stencils.py.
#pragma once

#include "transfer.hpp"

// A copy of a line with one number before it and room behind, so that whole lanes can be read at any shift from -1 on.
template <class T>
class PaddedLine {
    std::vector<T> numbers;
    Index length;

public:
    static constexpr Index FRONT = 16;
    explicit PaddedLine(Index length) : numbers(FRONT + 2 * length + 64, T(0)), length(length) {}
    T *data() { return numbers.data() + FRONT; }
    const T *data() const { return numbers.data() + FRONT; }
    void clear() { std::fill_n(data(), length, T(0)); }
    // What stands beside the line: its other end, or nothing.
    void close(bool wraps) { data()[-1] = wraps ? data()[length - 1] : T(0), data()[length] = wraps ? data()[0] : T(0); }
    void copy(const T *line, Index stride, bool wraps) {
        if (stride == 1)
            std::copy_n(line, length, data());
        else
            for (Index k = 0; k < length; ++k) data()[k] = line[k * stride];
        close(wraps);
    }
};

// visit(lane, c, take) for c in [0, count) in whole lanes, some of them reaching beyond, where take(line) are the numbers
// at line[step c] of a padded line.
template <class T, class F>
inline void over_coarse(Index count, Index step, F visit) {
#ifdef HAVE_SHUFFLE
    using L = Lane<T, 64>;
    constexpr auto all = std::make_index_sequence<L::WIDTH>{};
    for (Index c = 0; c < count; c += L::WIDTH)
        visit(L{}, c, [=](const T *line) {
            const T *at = line + step * c;
            return step == 1 ? L::load(at) : every_second<0, L>(L::load(at), L::load(at + L::WIDTH), all);
        });
#else
    using One = Lane<T, sizeof(T)>;
    for (Index c = 0; c < count; ++c) visit(One{}, c, [=](const T *line) { return One::load(line + step * c); });
#endif
}

template <class T>
inline Index whole_lanes(Index count) {
    return (count + 15) / 16 * 16;
}

// Weights w[k] of all fine points that lie between coarse ones along exactly the axes of `kind`; those of fewer axes are
// there already. Positive couplings count to the diagonal. `coefficient` holds terms x batch x fine numbers.
template <class T>
void interpolate(Index batch, const Axes &a, const Index *kind, int terms, const Index *offsets, const T *coefficient,
                 T *const *w, const Team &team) {
    const Index rows = a.coarse[0] * a.coarse[1], nc = a.coarse[2], size = rows * nc;
    const Index fine_size = a.fine[0] * a.fine[1] * a.fine[2];
    const auto index = [](Index i, Index j, Index k) { return 9 * i + 3 * j + k + 13; };
    std::vector<Index> target(terms);   // of each term in the stencil summed over the axes that are not in `kind`
    for (int t = 0; t < terms; ++t)
        target[t] = index(kind[0] * offsets[3 * t], kind[1] * offsets[3 * t + 1], kind[2] * offsets[3 * t + 2]);
    Index centre_term = 0;
    while (offsets[3 * centre_term] || offsets[3 * centre_term + 1] || offsets[3 * centre_term + 2]) ++centre_term;
    std::vector<Index> used = target;
    std::sort(used.begin(), used.end());
    used.erase(std::unique(used.begin(), used.end()), used.end());
    std::vector<int> place(27, -1);   // of each target among the planes
    for (std::size_t at = 0; at < used.size(); ++at) place[used[at]] = int(at);
    over_rows(batch * rows, batch * size * terms * 8, team, [&](Index begin, Index end) {
        // The summed stencil on a fine line, and its diagonal before positive couplings are added to it.
        std::vector<PaddedLine<T>> planes(used.size(), PaddedLine<T>(a.fine[2]));
        PaddedLine<T> centre(a.fine[2]);
        std::vector<T> given(27 * whole_lanes<T>(nc)), result(whole_lanes<T>(nc));
        T *const diagonal = planes[place[13]].data();
        Place at_row(begin, a.coarse[0], a.coarse[1]);
        for (Index row = begin; row < end; ++row, at_row.next()) {
            for (Index k0 = -kind[0]; k0 <= kind[0]; k0 += 2)
                for (Index k1 = -kind[1]; k1 <= kind[1]; k1 += 2) {
                    const Index fi = neighbour(a.step[0] * at_row.i + a.start[0] + k0, a.fine[0], a.periodic[0]);
                    const Index fj = neighbour(a.step[1] * at_row.j + a.start[1] + k1, a.fine[1], a.periodic[1]);
                    if (fi < 0 || fj < 0) {
                        for (Index k2 = -kind[2]; k2 <= kind[2]; k2 += 2)
                            std::fill_n(w[index(k0, k1, k2)] + row * nc, nc, T(0));
                        continue;
                    }
                    const Index line = at_row.batch * fine_size + (fi * a.fine[1] + fj) * a.fine[2];
                    for (PaddedLine<T> &plane : planes) plane.clear();
                    for (int t = 0; t < terms; ++t) {
                        const T *c = coefficient + t * batch * fine_size + line;
                        T *sum = planes[place[target[t]]].data();
                        if (sum == diagonal) {
                            for (Index k = 0; k < a.fine[2]; ++k) diagonal[k] += c[k];
                            continue;
                        }
#pragma omp simd
                        for (Index k = 0; k < a.fine[2]; ++k) {
                            sum[k] += c[k] > 0 ? T(0) : c[k];
                            diagonal[k] += c[k] > 0 ? c[k] : T(0);
                        }
                    }
                    centre.copy(coefficient + centre_term * batch * fine_size + line, 1, a.periodic[2]);
                    for (PaddedLine<T> &plane : planes) plane.close(a.periodic[2]);
                    for (Index k2 = -kind[2]; k2 <= kind[2]; k2 += 2) {
                        // Each coupling times the weights that its neighbour was given, over T in S.
                        const T *factor[8], *coupling[8];
                        int count = 0;
                        const Index shift = a.start[2] + k2;
                        for (Index t0 = 0; t0 <= kind[0]; ++t0)
                            for (Index t1 = 0; t1 <= kind[1]; ++t1)
                                for (Index t2 = 0; t2 <= kind[2]; ++t2) {
                                    const int plane = place[index(-k0 * t0, -k1 * t1, -k2 * t2)];
                                    if (plane < 0 || plane == place[13]) continue;
                                    T *own = given.data() + count * whole_lanes<T>(nc);
                                    std::copy_n(w[index(k0 - k0 * t0, k1 - k1 * t1, k2 - k2 * t2)] + row * nc, nc, own);
                                    factor[count] = own;
                                    coupling[count++] = planes[plane].data() + shift;
                                }
                        over_coarse<T>(nc, a.step[2], [&](auto lane, Index c, auto take) {
                            auto sum = take(diagonal + shift);
                            const auto divisor = sum, limit = T(1e-10) * take(centre.data() + shift);
                            sum = sum - sum;
                            for (int t = 0; t < count; ++t) sum += take(coupling[t]) * lane.load(factor[t] + c);
                            const auto zero = divisor - divisor, one = zero + T(1);
                            const auto usable = divisor > limit;
                            lane.store(result.data() + c, usable ? -sum / (usable ? divisor : one) : zero);
                        });
                        std::copy_n(result.data(), nc, w[index(k0, k1, k2)] + row * nc);
                    }
                }
        }
    });
}

// Coarse stencil R A P (see galerkin in solvers/linear/coarse_stencils.py). Fine terms t have offsets o and coefficients of
// strides (batch, i, j, k); r[k], p[k] and result[m] are coarse fields, 27 each, null where absent; coarse neighbours wrap
// on `ring` axes, fine points on a.periodic ones. Only the m for which result[m] is given are computed.
template <class T>
void galerkin(Index batch, const Axes &a, const Index *ring, int terms, const Index *offsets, const T *const *coefficient,
              const Index *strides, const T *const *r, const T *const *p, T *const *result, const Team &team) {
    const Index rows = a.coarse[0] * a.coarse[1], nc = a.coarse[2], nf = a.fine[2], size = rows * nc;
    const Index width = whole_lanes<T>(nc);
    over_rows(batch * rows, batch * size * 100, team, [&](Index begin, Index end) {
        PaddedLine<T> line(nf), empty(nc);
        std::vector<PaddedLine<T>> weights(9 * 27, empty);   // of p at the neighbouring coarse lines
        std::vector<T> products(width), sums(27 * width), factors(width);
        Place place(begin, a.coarse[0], a.coarse[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            const Index batch_row = place.batch, ci = place.i, cj = place.j;
            const Index at = batch_row * size + row % rows * nc;
            bool there[9];
            for (int m = 0; m < 9; ++m) {
                const Index ti = neighbour(ci + m / 3 - 1, a.coarse[0], ring[0]);
                const Index tj = neighbour(cj + m % 3 - 1, a.coarse[1], ring[1]);
                there[m] = ti >= 0 && tj >= 0;
                if (!there[m]) continue;
                for (int l = 0; l < 27; ++l)
                    if (p[l])
                        weights[m * 27 + l].copy(p[l] + batch_row * size + (ti * a.coarse[1] + tj) * nc, 1, ring[2]);
            }
            std::fill(sums.begin(), sums.end(), T(0));
            for (int k = 0; k < 27; k += 3) {
                const Index k0 = k / 9 - 1, k1 = k / 3 % 3 - 1;
                if (!r[k + 1]) continue;
                const Index fi = neighbour(a.step[0] * ci + a.start[0] + k0, a.fine[0], a.periodic[0]);
                const Index fj = neighbour(a.step[1] * cj + a.start[1] + k1, a.fine[1], a.periodic[1]);
                if (fi < 0 || fj < 0) continue;
                for (int t = 0; t < terms; ++t) {
                    const Index *s = strides + 4 * t;
                    line.copy(coefficient[t] + batch_row * s[0] + fi * s[1] + fj * s[2], s[3], a.periodic[2]);
                    for (Index k2 = -1; k2 <= 1; ++k2) {
                        if (!r[k + 1 + k2]) continue;
                        std::copy_n(r[k + 1 + k2] + at, nc, factors.data());
                        const T *from = line.data() + a.start[2] + k2;
                        over_coarse<T>(nc, a.step[2], [&](auto lane, Index c, auto take) {
                            lane.store(products.data() + c, lane.load(factors.data() + c) * take(from));
                        });
                        // Along each axis q = k + o = step m + l.
                        Index low[3], high[3], q[3] = {k0, k1, k2};
                        for (int x = 0; x < 3; ++x) {
                            q[x] += offsets[3 * t + x];
                            low[x] = a.step[x] == 1 ? q[x] : q[x] > 0 ? q[x] / 2 : -((1 - q[x]) / 2);
                            high[x] = a.step[x] == 1 ? q[x] : q[x] < 0 ? -(-q[x] / 2) : (1 + q[x]) / 2;
                            low[x] = std::max(low[x], Index(-1)), high[x] = std::min(high[x], Index(1));
                        }
                        for (Index mi = low[0]; mi <= high[0]; ++mi)
                            for (Index mj = low[1]; mj <= high[1]; ++mj)
                                for (Index mk = low[2]; mk <= high[2]; ++mk) {
                                    const Index plane = (mi + 1) * 3 + mj + 1, m = plane * 3 + mk + 1;
                                    const Index l = (q[0] - a.step[0] * mi + 1) * 9 + (q[1] - a.step[1] * mj + 1) * 3 +
                                                    q[2] - a.step[2] * mk + 1;
                                    if (!result[m] || !p[l] || !there[plane]) continue;
                                    const T *landing = weights[plane * 27 + l].data() + mk, *product = products.data();
                                    T *__restrict sum = sums.data() + m * width;
#pragma omp simd
                                    for (Index c = 0; c < width; ++c) sum[c] += product[c] * landing[c];
                                }
                    }
                }
            }
            for (int m = 0; m < 27; ++m)
                if (result[m]) std::copy_n(sums.data() + m * width, nc, result[m] + at);
        }
    });
}
