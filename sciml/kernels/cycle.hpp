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

// `inverse` is the dense inverse of the coarsest operator, of `inverse_batch` rows, number `first` of them in use; the
// cycle visits the next grid `visits` times on the first `branching` levels, once on the others. All fields are those of
// one row; those of the next of `workers` threads stand `workspace` elements behind.
template <class T>
struct Hierarchy {
    const Level<T> *levels;
    Index depth, visits, branching;
    const T *inverse;
    Index inverse_batch, first, coarse_size;
    T *b, *x;   // of the coarsest grid
    Index workers, workspace;
};

// A hierarchy with the fields of one thread, which takes one row of the batch after the other.
template <class T>
class Worker {
    std::vector<Level<T>> levels;
    Hierarchy<T> whole;

public:
    Worker(const Hierarchy<T> &h, Index thread) : levels(h.levels, h.levels + h.depth), whole(h) {
        const Index shift = thread * h.workspace;
        for (Level<T> &level : levels) level.b += shift, level.x += shift, level.spare += shift;
        whole.levels = levels.data(), whole.b += shift, whole.x += shift;
    }
    Worker(const Worker &) = delete;

    const Hierarchy<T> &of_row(Index row) {
        for (Level<T> &level : levels) level.stencil.first = level.transfer.first = row;
        whole.first = row;
        return whole;
    }
};

// body(hierarchy, row, team) for every row of a batch, one after the other, so that what belongs to a row stays in the
// cache: rows are shared out among the workers, or with a single one each is worked on by all threads together.
template <class T, class F>
void over_systems(const Hierarchy<T> &h, Index batch, Index size, int threads, F body) {
    if (threads == 1 || batch * size <= SHARED) {
        Worker<T> worker(h, 0);
        for (Index row = 0; row < batch; ++row) body(worker.of_row(row), row, Team{});
        return;
    }
    const bool together = h.workers == 1;
    Barrier barrier;
#pragma omp parallel num_threads(together ? threads : int(h.workers))
    {
        const int count = omp_get_num_threads(), me = omp_get_thread_num();
        Worker<T> worker(h, together ? 0 : me);
        const Team team = together ? Team{count, me, &barrier} : Team{};
        for (Index row = together ? 0 : batch * me / count; row < (together ? batch : batch * (me + 1) / count); ++row)
            body(worker.of_row(row), row, team);
    }
}

template <class T>
Index visits(const Hierarchy<T> &h, Index depth) {
    return depth < h.branching && depth + 1 < h.depth ? h.visits : 1;
}

template <class T>
void smooth(const Level<T> &level, Mode mode, const T *x, double omega, T *out, const Team &team) {
    const Stencil<T> &a = level.stencil;
    if (a.flat) return flat_stencil(a, mode, x, level.b, omega, out, team);
    const Index size = a.n[0] * a.n[1] * a.n[2];
    stencil(a, mode, x, size, level.b, size, omega, out, 1, nullptr, team);
}

template <class T>
void restrict_level(const Level<T> &level, const T *fine, T *coarse, const Team &team) {
#ifdef HAVE_SHUFFLE
    if (level.stencil.flat && is_flat(level.transfer)) return restrict_flat(level.transfer, fine, coarse, team);
#endif
    restrict_rows(level.transfer, fine, coarse, 1, team);
}

template <class T>
void prolong_level(const Level<T> &level, const T *coarse, T *fine, const Team &team) {
#ifdef HAVE_SHUFFLE
    if (level.stencil.flat && is_flat(level.transfer)) return prolong_flat(level.transfer, coarse, fine, team);
#endif
    prolong_rows(level.transfer, coarse, fine, 1, team);
}

// The sweeps of a level from number `from` on; leaves the iterate in x.
template <class T>
void relax(const Level<T> &level, T *&x, T *&spare, Index from, const Team &team) {
    for (Index sweep = from; sweep < level.sweeps; ++sweep, std::swap(x, spare))
        smooth(level, RELAX, x, level.omegas[sweep], spare, team);
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
void visit(const Hierarchy<T> &h, Index depth, const Team &team) {
    if (depth == h.depth) {
        const Index m = h.coarse_size;
        const T *inverse = h.inverse + h.first % h.inverse_batch * m * m;
        over_rows(m, m * m, team, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) h.x[row] = T(dot_block(inverse + row * m, h.b, m));
        });
        return;
    }
    const Level<T> &level = h.levels[depth];
    const Stencil<T> &a = level.stencil;
    const Index size = a.n[0] * a.n[1] * a.n[2];
    if (team.count > 1 && size * a.terms / 4 <= SHARED) {
        if (team.me == 0) visit(h, depth, Team{});
        return team.wait();
    }
    T *x = level.x, *spare = level.spare;
    smooth(level, SCALE, level.b, level.omegas[0], x, team);
    relax(level, x, spare, 1, team);
    for (Index left = visits(h, depth); left > 0; --left) {
        smooth(level, RESIDUAL, x, 0.0, spare, team);
        restrict_level(level, spare, depth + 1 < h.depth ? h.levels[depth + 1].b : h.b, team);
        visit(h, depth + 1, team);
        prolong_level(level, result(h, depth + 1), x, team);
        relax(level, x, spare, 0, team);
    }
}

// z = B r for one row, and r . z, which every thread of a team is given; `partial` as in `sum_blocks`. The cycle runs on
// r / |r|, which keeps short floats clear of overflow and underflow whatever the scale of the residual.
template <class S, class T>
double precondition(const Hierarchy<T> &h, const S *r, S *z, Index size, double *partial, const Team &team) {
    double norm, product;
    sum_blocks(1, size, team, &norm, partial,
               [=](Index, Index begin, Index end) { return dot_block(r + begin, r + begin, end - begin); });
    norm = norm > 0 ? std::sqrt(norm) : 1.0;
    const double reciprocal = 1.0 / norm;
    rescale(r, &reciprocal, h.depth ? h.levels[0].b : h.b, 1, size, team);
    visit(h, 0, team);
    const T *y = result(h, 0);
    const S factor = S(norm);
    sum_blocks(1, size, team, &product, partial, [=](Index, Index begin, Index end) {
        for (Index k = begin; k < end; ++k) z[k] = factor * S(y[k]);
        return dot_block(r + begin, z + begin, end - begin);
    });
    return product;
}

// z = B r and total[row] = r . z
template <class S, class T>
void cycle(const Hierarchy<T> &h, const S *r, S *z, Index batch, double *total, int threads) {
    Index size = h.coarse_size;
    if (h.depth) size = h.levels[0].stencil.n[0] * h.levels[0].stencil.n[1] * h.levels[0].stencil.n[2];
    std::vector<double> partial((size + BLOCK - 1) / BLOCK);
    over_systems(h, batch, size, threads, [&](const Hierarchy<T> &own, Index row, const Team &team) {
        double *shared = team.barrier ? partial.data() : nullptr;
        const double product = precondition(own, r + row * size, z + row * size, size, shared, team);
        if (team.me == 0) total[row] = product;
    });
}
