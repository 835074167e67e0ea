// Interpolation taken from a compact stencil, and its Galerkin product: see solvers/linear/coarse_stencils.py.
#pragma once

#include "transfer.hpp"

// value(line[2 c], c) of count points in turn, whole lanes of them at once.
template <class T, class F>
inline void over_every_second(const T *line, Index count, F value) {
    Index c = 0;
#ifdef HAVE_SHUFFLE
    using L = Lane<T, 64>;
    for (; c + L::WIDTH < count; c += L::WIDTH)
        value(L{}, c, every_second<0, L>(L::load(line + 2 * c), L::load(line + 2 * c + L::WIDTH),
                                         std::make_index_sequence<L::WIDTH>{}));
#endif
    using One = Lane<T, sizeof(T)>;
    for (; c < count; ++c) value(One{}, c, One::load(line + 2 * c));
}

// sum[c] += line[fine(c)] for coarse points c, where fine(c) goes up by `step` but at the ends, where it may wrap or be
// missing (-1). Of couplings, what is positive is added to `diagonal` instead.
template <class T, class F>
inline void add_fine_line(T *sum, T *diagonal, const T *line, Index count, Index step, F fine) {
    for (Index c = 0; c < count; c += std::max(Index(1), count - 1))
        if (const Index f = fine(c); f >= 0) (line[f] > 0 ? diagonal : sum)[c] += line[f];
    if (count < 3) return;
    const T *from = line + fine(1);
    const auto add = [=](auto lane, Index c, auto value) {
        const decltype(value) zero = {};
        lane.store(sum + c + 1, lane.load(sum + c + 1) + (value > zero ? zero : value));
        lane.store(diagonal + c + 1, lane.load(diagonal + c + 1) + (value > zero ? value : zero));
    };
    if (step == 2) return over_every_second(from, count - 2, add);
    for (Index c = 0; c + 2 < count; ++c) add(Lane<T, sizeof(T)>{}, c, Lane<T, sizeof(T)>::load(from + c));
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
    over_rows(batch * rows, batch * size * terms * 8, team, [&](Index begin, Index end) {
        std::vector<T> planes(27 * nc), sum(nc);   // the summed stencil at the fine points of a row
        Place place(begin, a.coarse[0], a.coarse[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            for (Index k0 = -kind[0]; k0 <= kind[0]; k0 += 2)
                for (Index k1 = -kind[1]; k1 <= kind[1]; k1 += 2) {
                    const Index fi = neighbour(a.step[0] * place.i + a.start[0] + k0, a.fine[0], a.periodic[0]);
                    const Index fj = neighbour(a.step[1] * place.j + a.start[1] + k1, a.fine[1], a.periodic[1]);
                    for (Index k2 = -kind[2]; k2 <= kind[2]; k2 += 2) {
                        T *__restrict weight = w[index(k0, k1, k2)] + row * nc;
                        std::fill(weight, weight + nc, T(0));
                        if (fi < 0 || fj < 0) continue;
                        const Index line = place.batch * fine_size + (fi * a.fine[1] + fj) * a.fine[2];
                        const auto fine = [&](Index c) {
                            return neighbour(a.step[2] * c + a.start[2] + k2, a.fine[2], a.periodic[2]);
                        };
                        for (const Index at : used) std::fill_n(planes.begin() + at * nc, nc, T(0));
                        for (int t = 0; t < terms; ++t)
                            add_fine_line(planes.data() + target[t] * nc, planes.data() + 13 * nc,
                                          coefficient + t * batch * fine_size + line, nc, a.step[2], fine);
                        std::fill(sum.begin(), sum.end(), T(0));
                        // Each coupling times the weights that its neighbour was given, over T in S.
                        for (Index t0 = 0; t0 <= kind[0]; ++t0)
                            for (Index t1 = 0; t1 <= kind[1]; ++t1)
                                for (Index t2 = 0; t2 <= kind[2]; ++t2) {
                                    const Index coupling = index(-k0 * t0, -k1 * t1, -k2 * t2);
                                    if (coupling == 13 || !std::binary_search(used.begin(), used.end(), coupling))
                                        continue;
                                    const T *given = w[index(k0 - k0 * t0, k1 - k1 * t1, k2 - k2 * t2)] + row * nc;
                                    add_product(sum.data(), planes.data() + coupling * nc, given, nc);
                                }
                        const T *diagonal = planes.data() + 13 * nc;
                        const T *centre = coefficient + centre_term * batch * fine_size + line;
                        for (Index c = 0; c < nc; ++c) {
                            const Index at = fine(c);
                            if (at >= 0 && diagonal[c] > T(1e-10) * centre[at]) weight[c] = -sum[c] / diagonal[c];
                        }
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
    over_rows(batch * rows, batch * size * 100, team, [&](Index begin, Index end) {
        std::vector<T> buffer(nc);
        T *const product = buffer.data();
        Place place(begin, a.coarse[0], a.coarse[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            const Index batch_row = place.batch, ci = place.i, cj = place.j;
            const Index at = batch_row * size + row % rows * nc;
            for (int k = 0; k < 27; ++k) {
                if (!r[k]) continue;
                const Index k3[3] = {k / 9 - 1, k / 3 % 3 - 1, k % 3 - 1};
                const Index fi = neighbour(a.step[0] * ci + a.start[0] + k3[0], a.fine[0], a.periodic[0]);
                const Index fj = neighbour(a.step[1] * cj + a.start[1] + k3[1], a.fine[1], a.periodic[1]);
                if (fi < 0 || fj < 0) continue;
                for (int t = 0; t < terms; ++t) {
                    const Index *s = strides + 4 * t;
                    const T *line = coefficient[t] + batch_row * s[0] + fi * s[1] + fj * s[2];
                    const T *weight = r[k] + at;
                    const Index shift = a.start[2] + k3[2], step = a.step[2];
                    const Index first = std::min(nc, std::max(Index(0), (step - 1 - shift) / step));
                    const Index last = nf > shift ? std::max(first, std::min(nc, (nf - 1 - shift) / step + 1)) : first;
                    if (step == 2 && s[3] == 1)
                        over_every_second(line + step * first + shift, last - first, [=](auto lane, Index c, auto x) {
                            lane.store(product + first + c, lane.load(weight + first + c) * x);
                        });
                    else
                        for (Index c = first; c < last; ++c) product[c] = weight[c] * line[(step * c + shift) * s[3]];
                    const auto wrap = [&](Index c) {
                        const Index f = neighbour(step * c + shift, nf, a.periodic[2]);
                        product[c] = f < 0 ? T(0) : weight[c] * line[f * s[3]];
                    };
                    for (Index c = 0; c < first; ++c) wrap(c);
                    for (Index c = last; c < nc; ++c) wrap(c);
                    // Along each axis q = k + o = step m + l.
                    Index low[3], high[3], q[3];
                    for (int x = 0; x < 3; ++x) {
                        q[x] = k3[x] + offsets[3 * t + x];
                        low[x] = a.step[x] == 1 ? q[x] : q[x] > 0 ? q[x] / 2 : -((1 - q[x]) / 2);
                        high[x] = a.step[x] == 1 ? q[x] : q[x] < 0 ? -(-q[x] / 2) : (1 + q[x]) / 2;
                        low[x] = std::max(low[x], Index(-1)), high[x] = std::min(high[x], Index(1));
                    }
                    for (Index mi = low[0]; mi <= high[0]; ++mi) {
                        const Index ti = neighbour(ci + mi, a.coarse[0], ring[0]);
                        if (ti < 0) continue;
                        for (Index mj = low[1]; mj <= high[1]; ++mj) {
                            const Index tj = neighbour(cj + mj, a.coarse[1], ring[1]);
                            if (tj < 0) continue;
                            for (Index mk = low[2]; mk <= high[2]; ++mk) {
                                const Index m = (mi + 1) * 9 + (mj + 1) * 3 + mk + 1;
                                const Index l = (q[0] - a.step[0] * mi + 1) * 9 + (q[1] - a.step[1] * mj + 1) * 3 +
                                                q[2] - a.step[2] * mk + 1;
                                if (!result[m] || !p[l]) continue;
                                T *target = result[m] + at;
                                const T *landing = p[l] + batch_row * size + (ti * a.coarse[1] + tj) * nc;
                                const Index from = std::max(Index(0), -mk), to = std::min(nc, nc - mk);
#pragma omp simd
                                for (Index c = from; c < to; ++c) target[c] += product[c] * landing[c + mk];
                                if (!ring[2]) continue;
                                for (Index c = 0; c < std::min(from, nc); ++c)
                                    target[c] += product[c] * landing[neighbour(c + mk, nc, true)];
                                for (Index c = std::max(to, Index(0)); c < nc; ++c)
                                    if (c >= from) target[c] += product[c] * landing[neighbour(c + mk, nc, true)];
                            }
                        }
                    }
                }
            }
        }
    });
}
