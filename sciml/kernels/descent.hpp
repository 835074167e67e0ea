// Conjugate gradients preconditioned by a multigrid cycle, row by row of a batch.
#pragma once

#include "cycle.hpp"

enum Outcome : Index { RUNNING = -1, CONVERGED = 0, INDEFINITE = 3, NON_FINITE = 5 };   // values of sciml.status.Status

// The state of every row: x and r = b - A x, the direction p, rz = r . B r (negative before the first step), and the
// outcome, by which rows no longer running are left alone.
template <class S>
struct Descent {
    Stencil<S> a;
    S *x, *r, *p;
    double *rz;
    const double *tolerance;
    Index *iterations, *outcome;
};

// Up to `steps` further steps of one row; norms[step * stride] is |r| after each, the last one repeated.
template <class S, class T>
void descend_row(const Hierarchy<T> &h, const Descent<S> &d, Index row, Index size, Index steps, double *norms,
                 Index stride) {
    Stencil<S> a = d.a;
    a.first = row;
    const Index lines = a.n[0] * a.n[1];
    S *x = d.x + row * size, *r = d.r + row * size, *p = d.p + row * size;
    double &rz = d.rz[row], norm = 0;
    Index &outcome = d.outcome[row], step = 0;
    const Team alone;
    std::vector<S> z(size), &q = z;   // never needed at once
    std::vector<double> products(lines);
    const auto square = [&] {
        double total = 0;
        for (Index at = 0; at < size; at += BLOCK) {
            const Index length = std::min(BLOCK, size - at);
            total += dot_block(r + at, r + at, length);
        }
        return total;
    };
    if (outcome == RUNNING && rz < 0) {
        rz = precondition(h, r, p, size, nullptr, alone);
        if (rz < 0) outcome = INDEFINITE;
    }
    norm = std::sqrt(square());
    for (; step < steps && outcome == RUNNING; ++step) {
        stencil(a, APPLY, p, size, static_cast<const S *>(nullptr), Index(0), 0.0, q.data(), 1, products.data(), alone);
        double curvature = 0, total;
        for (const double product : products) curvature += product;
        if (curvature <= 0) {
            outcome = INDEFINITE;
            break;   // without a step
        }
        const double alpha = rz / curvature;
        descend(x, r, p, q.data(), &alpha, 1, size, &total, alone);
        norm = std::sqrt(total);
        norms[step * stride] = norm;
        ++d.iterations[row];
        if (norm <= d.tolerance[row])
            outcome = CONVERGED;
        else if (!std::isfinite(norm))
            outcome = NON_FINITE;
        else {
            const double previous = rz;
            rz = precondition(h, r, z.data(), size, nullptr, alone);
            if (rz < 0) outcome = INDEFINITE;
            const double beta = rz / previous;
            redirect(p, z.data(), &beta, 1, size, alone);
        }
    }
    for (; step < steps; ++step) norms[step * stride] = norm;
}

// The same for all rows, shared out among threads.
template <class S, class T>
void descend_rows(const Hierarchy<T> &h, const Descent<S> &d, Index batch, Index steps, double *norms, int threads) {
    const Index size = d.a.n[0] * d.a.n[1] * d.a.n[2];
    over_systems(h, batch, size, threads, [&](const Hierarchy<T> &own, Index row, const Team &) {
        descend_row(own, d, row, size, steps, norms + row, batch);
    });
}
