// Successive over-relaxation as an approximate inverse, as an iteration, and inside conjugate gradients, for stencils
// and for sparse matrices, one system after the other or as many side by side as a vector holds.
//
// Of A = L + D + U, L the entries whose unknown is relaxed before the row's, a sweep forward solves with D / omega + L,
// one backward with D / omega + U. Both together apply the inverse of
// M = omega / (2 - omega) (D / omega + L) D^-1 (D / omega + U).
#pragma once

#include <cmath>

#include "descent.hpp"
#include "line_sweeps.hpp"
#include "row_sweeps.hpp"

enum Way { FORWARD = 1, BACKWARD = 2, SYMMETRIC = 3 };

// z = the approximate inverse of r.
template <class S, class V, class T>
void relax(S &system, int way, T omega, const V *r, V *z, const Team &team) {
    if (way & FORWARD) system.template sweep<false>(T(0), r, z, team);
    if (way == SYMMETRIC) system.template sweep<true>(T(2) - omega, z, z, team);
    if (way == BACKWARD) system.template sweep<true>(T(0), r, z, team);
}

// The inner products of the systems that are side by side.
template <class V>
void inner(const V *x, const V *y, Index size, double *total) {
    using S = Side<V>;
    std::fill(total, total + S::COUNT, 0.0);
    for (Index at = 0; at < size; at += BLOCK) {
        const Index end = std::min(size, at + BLOCK);
        if constexpr (S::COUNT == 1) {
            *total += dot_block(x + at, y + at, end - at);
        } else {
            V sum = {}, other = {};
            Index k = at;
            for (; k + 2 <= end; k += 2) sum += x[k] * y[k], other += x[k + 1] * y[k + 1];
            if (k < end) sum += x[k] * y[k];
            sum += other;
            for (int side = 0; side < S::COUNT; ++side) total[side] += S::at(sum, side);
        }
    }
}

// The state of every field, as in descent.hpp; b for the stationary iteration, p and rz for conjugate gradients.
template <class T>
struct Course {
    const T *b;
    T *x, *r, *p;
    double *rz;
    const double *tolerance;
    Index *iterations, *outcome;
};

// The same of the systems side by side.
template <class V>
struct Courses {
    using S = Side<V>;
    static constexpr int COUNT = S::COUNT;
    V *b, *x, *r, *p, *z;
    double rz[COUNT], tolerance[COUNT], norm[COUNT];
    Index iterations[COUNT], outcome[COUNT];

    bool running() const { return std::find(outcome, outcome + COUNT, Index(RUNNING)) != outcome + COUNT; }

    // A number for every running system, 0 for all others.
    template <class F>
    V where_running(F value) const {
        V numbers = {};
        for (int side = 0; side < COUNT; ++side)
            if (outcome[side] == RUNNING) S::at(numbers, side) = typename S::Number(value(side));
        return numbers;
    }

    void judge(const double *squares) {
        for (int side = 0; side < COUNT; ++side) {
            if (outcome[side] != RUNNING) continue;
            norm[side] = std::sqrt(squares[side]);
            ++iterations[side];
            if (norm[side] <= tolerance[side]) outcome[side] = CONVERGED;
            else if (!std::isfinite(norm[side])) outcome[side] = NON_FINITE;
        }
    }
};

// A step of x <- x + M^-1 (b - A x).
template <class S, class V, class T>
void stationary_step(S &system, int way, T omega, Courses<V> &c, const Team &team) {
    relax(system, way, omega, c.r, c.z, team);
    const auto on = c.where_running([](int) { return 1.0; }) != V{};
    for (Index k = 0; k < system.size; ++k) c.x[k] += on ? c.z[k] : V{};
    system.residual(c.b, c.x, c.r, team);
    double squares[Courses<V>::COUNT];
    inner(c.r, c.r, system.size, squares);
    c.judge(squares);
}

// The preconditioned residual into `z`; rz with it, and the outcome where it is negative.
template <class S, class V, class T>
void precondition(S &system, int way, T omega, Courses<V> &c, V *z, const Team &team) {
    relax(system, way, omega, c.r, z, team);
    inner(c.r, z, system.size, c.rz);
    for (int side = 0; side < c.COUNT; ++side)
        if (c.outcome[side] == RUNNING && c.rz[side] < 0) c.outcome[side] = INDEFINITE;
}

// A step of conjugate gradients.
template <class S, class V, class T>
void descent_step(S &system, int way, T omega, Courses<V> &c, const Team &team) {
    constexpr int COUNT = Courses<V>::COUNT;
    V *q = c.z;   // never needed at once
    double curvature[COUNT], squares[COUNT], previous[COUNT];
    system.multiply(c.p, q, team);
    inner(c.p, q, system.size, curvature);
    for (int side = 0; side < COUNT; ++side)
        if (c.outcome[side] == RUNNING && curvature[side] <= 0) c.outcome[side] = INDEFINITE;
    if (!c.running()) return;   // without a step
    const V alpha = c.where_running([&](int side) { return c.rz[side] / curvature[side]; });
    for (Index k = 0; k < system.size; ++k) c.x[k] += alpha * c.p[k], c.r[k] -= alpha * q[k];
    inner(c.r, c.r, system.size, squares);
    c.judge(squares);
    if (!c.running()) return;
    std::copy(c.rz, c.rz + COUNT, previous);
    precondition(system, way, omega, c, c.z, team);
    const V beta = c.where_running([&](int side) { return c.rz[side] / previous[side]; });
    for (Index k = 0; k < system.size; ++k) c.p[k] = c.z[k] + beta * c.p[k];
}

// Up to `steps` further steps of the systems of fields first, first + 1, ...; norms[step * stride + field] is |r| after
// each, the last one repeated.
template <class S, class V, class T>
void advance(S &system, int way, T omega, Courses<V> &c, bool descend, Index steps, double *norms, Index stride,
             int fields, const Team &team) {
    double squares[Courses<V>::COUNT];
    inner(c.r, c.r, system.size, squares);
    for (int side = 0; side < c.COUNT; ++side) c.norm[side] = std::sqrt(squares[side]);
    bool begun = true;
    for (int side = 0; side < c.COUNT; ++side) begun &= c.outcome[side] != RUNNING || c.rz[side] >= 0;
    if (descend && !begun) precondition(system, way, omega, c, c.p, team);
    for (Index step = 0; step < steps; ++step) {
        if (c.running())
            descend ? descent_step(system, way, omega, c, team) : stationary_step(system, way, omega, c, team);
        for (int side = 0; side < fields; ++side) norms[step * stride + side] = c.norm[side];
    }
}

// One field of its own.
template <class S, class T>
void advance_field(S &system, int way, double omega, const Course<T> &d, bool descend, Index field, Index batch,
                   Index steps, double *norms, const Team &team) {
    const Index at = field * system.size;
    std::vector<T> z(system.size);
    Courses<T> c{const_cast<T *>(d.b) + at, d.x + at, d.r + at, d.p + at, z.data(), {d.rz[field]}, {d.tolerance[field]},
                 {}, {d.iterations[field]}, {d.outcome[field]}};
    advance(system, way, T(omega), c, descend, steps, norms + field, batch, 1, team);
    d.rz[field] = c.rz[0], d.iterations[field] = c.iterations[0], d.outcome[field] = c.outcome[0];
}

// body(field, team) for all fields, one a thread, or with all threads where there is only one.
template <class F>
void over_fields(Index batch, Index size, int threads, F body) {
    if (batch == 1) return body(Index(0), Team{threads});
    over_rows(batch, batch * size, Team{threads}, [=](Index begin, Index end) {
        for (Index field = begin; field < end; ++field) body(field, Team{});
    });
}

// body(system) for a stencil's lines in the order in which they are relaxed.
template <class T, class F>
void with_lines(const Relaxed<T> &relaxed, Index field, double omega, F body) {
    Relaxed<T> own = relaxed;
    own.a.first = field;
    if (relaxed.period) {
        ColouredLines<T> system(own, omega);
        body(system);
    } else {
        NaturalLines<T> system(own.a, omega);
        body(system);
    }
}

template <class T>
void relax_lines(const Relaxed<T> &a, int way, double omega, const T *r, T *z, Index batch, int threads) {
    const Index size = a.a.n[0] * a.a.n[1] * a.a.n[2];
    over_fields(batch, size * a.a.terms, threads, [=](Index field, const Team &team) {
        with_lines(a, field, omega,
                   [&](auto &system) { relax(system, way, T(omega), r + field * size, z + field * size, team); });
    });
}

template <class T>
void advance_lines(const Relaxed<T> &a, int way, double omega, const Course<T> &d, int descend, Index batch,
                   Index steps, double *norms, int threads) {
    const Index size = a.a.n[0] * a.a.n[1] * a.a.n[2];
    over_fields(batch, size * a.a.terms * steps, threads, [=](Index field, const Team &team) {
        with_lines(a, field, omega, [&](auto &system) {
            advance_field(system, way, omega, d, descend, field, batch, steps, norms, team);
        });
    });
}

template <class T>
SplitRows<T, T> rows_of(const Split<T> &a, Index field, double omega) {
    const Index system = field % a.systems;
    return {a, system, a.values + system * a.entries, a.inverse + system * a.size, omega};
}

template <class T>
void relax_rows(const Split<T> &a, int way, double omega, const T *r, T *z, Index batch, int threads) {
    over_fields(batch, a.starts[a.size], threads, [=](Index field, const Team &team) {
        SplitRows<T, T> system = rows_of(a, field, omega);
        relax(system, way, T(omega), r + field * a.size, z + field * a.size, a.order ? team : Team{});
    });
}

// Numbers of fields or matrices, which stand each by itself, side by side.
template <class T, class F>
void interleave(const T *fields, Index size, Many<T> *mixed, F place) {
    constexpr int COUNT = Side<Many<T>>::COUNT;
    for (int side = 0; side < COUNT; ++side) {
        const T *field = fields + place(side) * size;
        for (Index k = 0; k < size; ++k) Side<Many<T>>::at(mixed[k], side) = field[k];
    }
}

// Fields first, first + 1, ..., side by side.
template <class T>
void advance_together(const Split<T> &a, int way, double omega, const Course<T> &d, bool descend, Index first,
                      Index batch, Index steps, double *norms) {
    using V = Many<T>;
    constexpr int COUNT = Side<V>::COUNT;
    const int fields = int(std::min<Index>(COUNT, batch - first));
    const auto field = [=](int side) { return first + std::min(side, fields - 1); };
    const auto system = [=](int side) { return field(side) % a.systems; };
    std::vector<V> space(5 * a.size);
    V *b = space.data(), *x = b + a.size, *r = x + a.size, *p = r + a.size, *z = p + a.size;
    interleave<T>(d.b, a.size, b, field);
    interleave<T>(d.x, a.size, x, field);
    interleave<T>(d.r, a.size, r, field);
    if (descend) interleave<T>(d.p, a.size, p, field);
    Courses<V> c{b, x, r, p, z, {}, {}, {}, {}, {}};
    for (int side = 0; side < COUNT; ++side) {
        const Index from = field(side);
        c.rz[side] = d.rz[from], c.tolerance[side] = d.tolerance[from], c.iterations[side] = d.iterations[from];
        c.outcome[side] = side < fields ? d.outcome[from] : Index(CONVERGED);
    }
    if (a.systems == 1) {
        SplitRows<T, V> rows(a, 0, a.values, a.inverse, omega);
        advance(rows, way, T(omega), c, descend, steps, norms + first, batch, fields, Team{});
    } else {
        std::vector<V> values(a.entries), inverse(a.size);
        interleave<T>(a.values, a.entries, values.data(), system);
        interleave<T>(a.inverse, a.size, inverse.data(), system);
        SplitRows<V, V> rows(a, 0, values.data(), inverse.data(), omega);
        advance(rows, way, T(omega), c, descend, steps, norms + first, batch, fields, Team{});
    }
    const auto back = [&](T *to, V *from) {
        for (int side = 0; side < fields; ++side)
            for (Index k = 0; k < a.size; ++k) to[(first + side) * a.size + k] = Side<V>::at(from[k], side);
    };
    back(d.x, x), back(d.r, r);
    if (descend) back(d.p, p);
    for (int side = 0; side < fields; ++side) {
        d.rz[first + side] = c.rz[side], d.iterations[first + side] = c.iterations[side];
        d.outcome[first + side] = c.outcome[side];
    }
}

// Side by side systems are quicker only while all that is read of them stays in the cache.
constexpr Index FEW = 5, NEAR = 32768;

template <class T>
void advance_rows_of(const Split<T> &a, int way, double omega, const Course<T> &d, int descend, Index batch,
                     Index steps, double *norms, int threads) {
    const Index cost = a.starts[a.size] * steps;
    if (batch < FEW || a.apart || a.starts[a.size] + 6 * a.size > NEAR) {
        over_fields(batch, cost, threads, [=](Index field, const Team &team) {
            SplitRows<T, T> system = rows_of(a, field, omega);
            advance_field(system, way, omega, d, descend, field, batch, steps, norms, a.order ? team : Team{});
        });
    } else {
        constexpr Index COUNT = Side<Many<T>>::COUNT;
        over_fields((batch + COUNT - 1) / COUNT, cost, threads, [=](Index group, const Team &) {
            advance_together(a, way, omega, d, descend, group * COUNT, batch, steps, norms);
        });
    }
}
