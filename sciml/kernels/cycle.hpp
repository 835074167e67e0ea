// A multigrid cycle from a zero start, whole.
#pragma once

#include <cmath>

#include "stencil.hpp"
#include "transfer.hpp"
#include "vectors.hpp"

template <class T>
struct Level {
    Stencil<T> stencil;
    Transfer<T> transfer;
    Index sweeps;
    const double *omegas;
    T *b, *x, *spare;   // right side, iterate and scratch of this level
};

// `inverse` is the dense inverse of the coarsest operator, of `inverse_batch` rows; the cycle visits the next grid
// `visits` times on the first `branching` levels, once on the others.
template <class T>
struct Hierarchy {
    const Level<T> *levels;
    Index depth, visits, branching;
    const T *inverse;
    Index inverse_batch, coarse_size;
    T *b, *x;   // of the coarsest grid
};

template <class T>
Index visits(const Hierarchy<T> &h, Index depth) {
    return depth < h.branching && depth + 1 < h.depth ? h.visits : 1;
}

// The sweeps of a level from number `from` on; leaves the iterate in x.
template <class T>
void relax(const Level<T> &level, T *&x, T *&spare, Index from, Index batch, const Team &team) {
    const Stencil<T> &a = level.stencil;
    const Index size = a.n[0] * a.n[1] * a.n[2];
    for (Index sweep = from; sweep < level.sweeps; ++sweep, std::swap(x, spare))
        stencil(a, RELAX, x, size, level.b, size, level.omegas[sweep], spare, batch, nullptr, team);
}

// Where `visit` leaves the result for the right side of a level.
template <class T>
T *result(const Hierarchy<T> &h, Index depth) {
    if (depth == h.depth) return h.x;
    const Level<T> &level = h.levels[depth];
    return (level.sweeps - 1 + visits(h, depth) * level.sweeps) % 2 ? level.spare : level.x;
}

// One cycle on the right side of a level, by a team at work, which leaves grids too small to share to its first thread.
template <class T>
void visit(const Hierarchy<T> &h, Index depth, Index batch, const Team &team) {
    if (depth == h.depth) {
        const Index m = h.coarse_size;
        over_rows(batch * m, batch * m * m, team, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row)
                h.x[row] = T(dot_block(h.inverse + (row / m % h.inverse_batch * m + row % m) * m, h.b + row / m * m, m));
        });
        return;
    }
    const Level<T> &level = h.levels[depth];
    const Stencil<T> &a = level.stencil;
    const Index size = a.n[0] * a.n[1] * a.n[2];
    if (team.count > 1 && batch * size * a.terms / 4 <= SHARED) {
        if (team.me == 0) visit(h, depth, batch, Team{});
        return team.wait();
    }
    T *x = level.x, *spare = level.spare;
    stencil(a, SCALE, level.b, size, level.b, size, level.omegas[0], x, batch, nullptr, team);
    relax(level, x, spare, 1, batch, team);
    for (Index left = visits(h, depth); left > 0; --left) {
        stencil(a, RESIDUAL, x, size, level.b, size, 0.0, spare, batch, nullptr, team);
        restrict_rows(level.transfer, spare, depth + 1 < h.depth ? h.levels[depth + 1].b : h.b, batch, team);
        visit(h, depth + 1, batch, team);
        prolong_rows(level.transfer, result(h, depth + 1), x, batch, team);
        relax(level, x, spare, 0, batch, team);
    }
}

// z = B r and total[row] = r . z. The cycle runs on r / |r|, which keeps short floats clear of overflow and underflow
// whatever the scale of the residual.
template <class S, class T>
void cycle(const Hierarchy<T> &h, const S *r, S *z, Index batch, double *total, int threads) {
    Index size = h.coarse_size;
    if (h.depth) size = h.levels[0].stencil.n[0] * h.levels[0].stencil.n[1] * h.levels[0].stencil.n[2];
    std::vector<double> partial(batch * ((size + BLOCK - 1) / BLOCK));
    const auto work = [&](const Team &team) {
        std::vector<double> norm(batch), reciprocal(batch), product(batch);
        sum_blocks(batch, size, team, norm.data(), partial.data(),
                   [=](Index, Index begin, Index end) { return dot_block(r + begin, r + begin, end - begin); });
        for (Index row = 0; row < batch; ++row) {
            norm[row] = norm[row] > 0 ? std::sqrt(norm[row]) : 1.0;
            reciprocal[row] = 1.0 / norm[row];
        }
        rescale(r, reciprocal.data(), h.depth ? h.levels[0].b : h.b, batch, size, team);
        visit(h, 0, batch, team);
        const T *y = result(h, 0);
        sum_blocks(batch, size, team, product.data(), partial.data(), [&](Index row, Index begin, Index end) {
            const S factor = S(norm[row]);
            for (Index k = begin; k < end; ++k) z[k] = factor * S(y[k]);
            return dot_block(r + begin, z + begin, end - begin);
        });
        if (team.me == 0) std::copy(product.begin(), product.end(), total);
    };
    if (threads == 1 || batch * size <= SHARED) return work(Team{});
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    work(Team{omp_get_num_threads(), omp_get_thread_num(), &barrier});
}
