// A multigrid cycle over sparse matrices from a zero start, whole.
#pragma once

#include <cmath>

#include "sparse.hpp"
#include "vectors.hpp"

template <class T>
struct SparseLevel {
    Csr<T> matrix, prolongation, restriction;
    const T *inverse_diagonal;
    Index sweeps;
    const double *omegas;
    T *b, *x, *spare;   // right side, iterate and scratch of this level
};

// `inverse` is the dense inverse of the coarsest matrix; the cycle visits the next level `visits` times.
template <class T>
struct SparseHierarchy {
    const SparseLevel<T> *levels;
    Index depth, visits;
    const T *inverse;
    Index coarse_size;
    T *b, *x;   // of the coarsest matrix
};

template <class T>
void relax(const SparseLevel<T> &level, T *&x, T *&spare, Index from, const Team &team) {
    for (Index sweep = from; sweep < level.sweeps; ++sweep, std::swap(x, spare)) {
        const T omega = T(level.omegas[sweep]), *before = x;
        T *after = spare;
        over_products(level.matrix, before, team, [&](Index row, T product) {
            after[row] = before[row] + omega * level.inverse_diagonal[row] * (level.b[row] - product);
        });
    }
}

// One cycle on the right side of a level; returns where its result stands. Levels too small to share are left to the
// first thread of a team.
template <class T>
T *visit(const SparseHierarchy<T> &h, Index depth, const Team &team) {
    if (depth == h.depth) {
        const Index m = h.coarse_size;
        over_rows(m, m * m, team, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) h.x[row] = T(dot_block(h.inverse + row * m, h.b, m));
        });
        return h.x;
    }
    const SparseLevel<T> &level = h.levels[depth];
    const Index size = level.matrix.rows, visits = depth + 1 < h.depth ? h.visits : 1;
    if (team.count > 1 && level.matrix.starts[size] <= SHARED) {
        if (team.me == 0) visit(h, depth, Team{});
        team.wait();
        return (level.sweeps - 1 + visits * level.sweeps) % 2 ? level.spare : level.x;
    }
    T *x = level.x, *spare = level.spare;
    over_rows(size, size, team, [&](Index begin, Index end) {
        const T omega = T(level.omegas[0]);
        for (Index k = begin; k < end; ++k) x[k] = omega * level.inverse_diagonal[k] * level.b[k];
    });
    relax(level, x, spare, 1, team);
    for (Index left = visits; left > 0; --left) {
        over_products(level.matrix, x, team, [&](Index row, T product) { spare[row] = level.b[row] - product; });
        T *below = depth + 1 < h.depth ? h.levels[depth + 1].b : h.b;
        over_products(level.restriction, spare, team, [&](Index row, T product) { below[row] = product; });
        const T *correction = visit(h, depth + 1, team);
        over_products(level.prolongation, correction, team, [&](Index row, T product) { x[row] += product; });
        relax(level, x, spare, 0, team);
    }
    return x;
}

// z = B r and total[row] = r . z, field after field; the cycle runs on r / |r|.
template <class S, class T>
void cycle(const SparseHierarchy<T> &h, const S *fields, S *results, Index batch, double *total, int threads) {
    const Index size = h.depth ? h.levels[0].matrix.rows : h.coarse_size;
    std::vector<double> partial((size + BLOCK - 1) / BLOCK);
    const auto work = [&](const Team &team) {
        for (Index row = 0; row < batch; ++row) {
            const S *r = fields + row * size;
            S *z = results + row * size;
            double norm, product;
            sum_blocks(1, size, team, &norm, partial.data(),
                       [=](Index, Index begin, Index end) { return dot_block(r + begin, r + begin, end - begin); });
            norm = norm > 0 ? std::sqrt(norm) : 1.0;
            const double reciprocal = 1.0 / norm;
            rescale(r, &reciprocal, h.depth ? h.levels[0].b : h.b, 1, size, team);
            const T *y = visit(h, 0, team);
            sum_blocks(1, size, team, &product, partial.data(), [=](Index, Index begin, Index end) {
                const S factor = S(norm);
                for (Index k = begin; k < end; ++k) z[k] = factor * S(y[k]);
                return dot_block(r + begin, z + begin, end - begin);
            });
            if (team.me == 0) total[row] = product;
            team.wait();
        }
    };
    if (threads == 1 || (h.depth ? h.levels[0].matrix.starts[size] : size * size) <= SHARED) return work(Team{});
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    work(Team{omp_get_num_threads(), omp_get_thread_num(), &barrier});
}
