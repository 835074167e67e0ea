// Successive over-relaxation as an approximate inverse, as an iteration, and inside conjugate gradients, for stencils line
// by line and for sparse matrices row by row, one system after the other or as many side by side as a vector holds.
//
// Of A = L + D + U, L the entries whose unknown is relaxed before the row's, a sweep forward solves with D / omega + L, one
// backward with D / omega + U. Both together apply M^-1, M = omega / (2 - omega) (D / omega + L) D^-1 (D / omega + U).
#pragma once

#include <cmath>

#include "descent.hpp"
#include "sparse.hpp"

enum Way { FORWARD = 1, BACKWARD = 2, SYMMETRIC = 3 };

// A number or a vector of them, one a system.
template <class V>
struct Side {
    using Number = V;
    static constexpr int COUNT = 1;
    static V &at(V &value, int) { return value; }
};

template <class T>
using Many = typename Lane<T, 64>::Type;

template <class T>
struct SideBySide {
    using Number = T;
    static constexpr int COUNT = int(Lane<T, 64>::WIDTH);
    static T &at(Many<T> &value, int side) { return reinterpret_cast<T *>(&value)[side]; }
};
template <>
struct Side<Many<float>> : SideBySide<float> {};
template <>
struct Side<Many<double>> : SideBySide<double> {};

// StencilLines of a stencil in natural order. `a.inverse_diagonal` is a field; `a.first` the system.
template <class T>
class StencilLines {
    Stencil<T> a;
    Index lines, width, row;
    T omega;
    Edges edges;
    std::vector<T> before, weight, link;

    // An entry within the line.
    struct Link {
        const T *c;
        Index step, offset;
    };

public:
    using Vector = T;
    const Index size;

    StencilLines(const Stencil<T> &a, double omega)
        : a(a), lines(a.n[0] * a.n[1]), width(a.n[2]), row(a.first % a.batch), omega(T(omega)),
          edges(edges_of(a.n[2], a.periodic[2], int(a.terms), a.offsets)), before(a.n[2]), weight(a.n[2]), link(a.n[2]),
          size(lines * width) {}

    // Solves with D / omega and the half of the entries that a sweep knows; with a factor, what is solved for is
    // factor D / omega y instead.
    template <bool BACK>
    void sweep(T factor, const T *right, T *y, const Team &) {
        for (Index step = 0; step < lines; ++step) line<BACK>(BACK ? lines - 1 - step : step, factor, right, y);
    }

    void multiply(const T *x, T *y, const Team &team) { run(APPLY, x, nullptr, y, team); }
    void residual(const T *b, const T *x, T *r, const Team &team) { run(RESIDUAL, x, b, r, team); }

private:
    void run(Mode mode, const T *x, const T *b, T *y, const Team &team) {
        stencil(a, mode, x, size, b, size, 0.0, y, 1, nullptr, team);
    }

    template <bool BACK>
    void line(Index number, T factor, const T *right, T *y) {
        const Index i = number / a.n[1], j = number % a.n[1], at = number * width;
        Terms<T> terms;
        Link links[MAX_TERMS];
        const T *edge_x[MAX_TERMS], *edge_c[MAX_TERMS];
        Index edge_step[MAX_TERMS];
        int edge_term[MAX_TERMS], others = 0, within = 0;
        for (int t = 0; t < a.terms; ++t) {
            const Index *offset = a.offsets + 3 * t, *s = a.strides + 4 * t;
            const Index ii = neighbour(i + offset[0], a.n[0], a.periodic[0]);
            const Index jj = neighbour(j + offset[1], a.n[1], a.periodic[1]);
            if (ii < 0 || jj < 0) continue;
            const Index other = ii * a.n[1] + jj;
            const T *c = a.c[t] + row * s[0] + i * s[1] + j * s[2];
            if (other == number) {
                if (offset[2]) links[within++] = {c, s[3], offset[2]};
            } else if ((other > number) == BACK) {
                const T *x = y + other * width + offset[2];
                if (s[3])
                    terms.vector_x[terms.vectors] = x, terms.vector_c[terms.vectors++] = c;
                else
                    terms.x[terms.scalars] = x, terms.c[terms.scalars++] = *c;
                edge_x[others] = x, edge_c[others] = c, edge_step[others] = s[3], edge_term[others++] = t;
            }
        }
        const T *inverse = a.inverse_diagonal + row * a.diagonal_batch + at, *source = right + at;
        T *gained = before.data(), *scale = weight.data();
        for (Index k = 0; k < width; ++k) scale[k] = omega * inverse[k];
        if (factor)
            for (Index k = 0; k < width; ++k) gained[k] = factor * source[k];
        else
            for (Index k = 0; k < width; ++k) gained[k] = scale[k] * source[k];
        if (others) {
            T *sums = link.data();
            accumulate(sums, terms, edges.low, edges.high);
            for (Index k = edges.low; k < edges.high; ++k) gained[k] -= scale[k] * sums[k];
            for (std::size_t edge = 0; edge < edges.points.size(); ++edge) {
                const Index k = edges.points[edge];
                T sum = 0;
                for (int t = 0; t < others; ++t) {
                    const Index from = edges.source[edge * a.terms + edge_term[t]];
                    if (from != ABSENT) sum += edge_c[t][edge_step[t] ? k : 0] * edge_x[t][from];
                }
                gained[k] -= scale[k] * sum;
            }
        }
        couple<BACK>(links, within, y + at);
    }

    // What is left to solve for within a line, unknown after unknown.
    template <bool BACK>
    void couple(const Link *links, int within, T *y) {
        const T *gained = before.data(), *scale = weight.data();
        if (!within) {
            std::copy(gained, gained + width, y);
            return;
        }
        Link known[MAX_TERMS];
        int count = 0;
        for (int t = 0; t < within; ++t)
            if ((links[t].offset > 0) == BACK) known[count++] = links[t];
        const auto edge = [&](Index k) {
            T value = gained[k];
            for (int t = 0; t < within; ++t) {
                const Index from = neighbour(k + links[t].offset, width, a.periodic[2]);
                if (from >= 0 && from != k && (from > k) == BACK) value -= scale[k] * links[t].c[links[t].step * k] * y[from];
            }
            y[k] = value;
        };
        constexpr Index NEXT = BACK ? 1 : -1;
        const Index low = edges.low, high = edges.high;
        if (BACK)
            for (Index k = width - 1; k >= high; --k) edge(k);
        else
            for (Index k = 0; k < low; ++k) edge(k);
        if (count == 1 && known[0].offset == NEXT && low < high) {
            const T *c = known[0].c;
            T *factor = link.data();
            if (known[0].step)
                for (Index k = low; k < high; ++k) factor[k] = scale[k] * c[k];
            else
                for (Index k = low; k < high; ++k) factor[k] = scale[k] * *c;
            T last = y[BACK ? high : low - 1];
            if (BACK)
                for (Index k = high - 1; k >= low; --k) y[k] = last = gained[k] - factor[k] * last;
            else
                for (Index k = low; k < high; ++k) y[k] = last = gained[k] - factor[k] * last;
        } else {
            for (Index step = low; step < high; ++step) {
                const Index k = BACK ? low + high - 1 - step : step;
                T value = gained[k];
                for (int t = 0; t < count; ++t) value -= scale[k] * known[t].c[known[t].step * k] * y[k + known[t].offset];
                y[k] = value;
            }
        }
        if (BACK)
            for (Index k = low - 1; k >= 0; --k) edge(k);
        else
            for (Index k = high; k < width; ++k) edge(k);
    }
};

// A stencil to relax, `inverse_diagonal` a field; the colour of the unknown at i is weights . i modulo the period, which is
// 0 for natural order.
template <class T>
struct Relaxed {
    Stencil<T> a;
    Index period, weights[3];
};

// Colour after colour, a whole line of sums at once, of which those of the colour are used. Unknowns that a sweep has not
// come to are 0, so that it need not tell them from others.
template <class T>
class ColouredLines {
    Stencil<T> a;
    Index lines, width, row, period;
    const Index *weights;
    T omega;
    Edges edges;
    std::vector<T> ahead, spare;   // 1 where an unknown is ahead of its line by a number of colours, line after line

public:
    using Vector = T;
    const Index size;

    ColouredLines(const Relaxed<T> &relaxed, double omega)
        : a(relaxed.a), lines(a.n[0] * a.n[1]), width(a.n[2]), row(a.first % a.batch), period(relaxed.period),
          weights(relaxed.weights), omega(T(omega)), edges(edges_of(a.n[2], a.periodic[2], int(a.terms), a.offsets)),
          ahead(relaxed.period * width), size(lines * width) {
        for (Index k = 0; k < width; ++k) ahead[weights[2] * k % period * width + k] = 1;
    }

    template <bool BACK>
    void sweep(T factor, const T *right, T *y, const Team &team) {
        if (right == y) {
            spare.assign(y, y + size);
            right = spare.data();
        }
        std::fill(y, y + size, T(0));
        for (Index step = 0; step < period; ++step) {
            const Index colour = BACK ? period - 1 - step : step;
            over_rows(lines, size * a.terms, team, [&](Index begin, Index end) {
                std::vector<T> sums_of(width);
                T *sums = sums_of.data();
                for (Index number = begin; number < end; ++number) {
                    const Index own = (weights[0] * (number / a.n[1]) + weights[1] * (number % a.n[1])) % period;
                    const Index shift = (colour - own + period) % period;
                    if (weights[2] == 0 && shift) continue;
                    const T *mask = ahead.data() + shift * width;
                    if (step) sum_of_others(number, y, sums);
                    const T *source = right + number * width, *scale = inverse(number);
                    T *to = y + number * width;
#pragma omp simd
                    for (Index k = 0; k < width; ++k) {
                        const T weight = omega * scale[k];
                        const T value = (factor ? factor : weight) * source[k] - weight * sums[k];
                        to[k] = mask[k] != 0 ? value : to[k];
                    }
                }
            });
        }
    }

    void multiply(const T *x, T *y, const Team &team) { run(APPLY, x, nullptr, y, team); }
    void residual(const T *b, const T *x, T *r, const Team &team) { run(RESIDUAL, x, b, r, team); }

private:
    void run(Mode mode, const T *x, const T *b, T *y, const Team &team) {
        stencil(a, mode, x, size, b, size, 0.0, y, 1, nullptr, team);
    }

    const T *inverse(Index number) const { return a.inverse_diagonal + row * a.diagonal_batch + number * width; }

    // Of a line the entries beside the diagonal times y.
    void sum_of_others(Index number, const T *y, T *sums) const {
        const Index i = number / a.n[1], j = number % a.n[1];
        Terms<T> terms;
        const T *edge_x[MAX_TERMS], *edge_c[MAX_TERMS];
        Index edge_step[MAX_TERMS];
        int edge_term[MAX_TERMS], count = 0;
        for (int t = 0; t < a.terms; ++t) {
            const Index *offset = a.offsets + 3 * t, *s = a.strides + 4 * t;
            const Index ii = neighbour(i + offset[0], a.n[0], a.periodic[0]);
            const Index jj = neighbour(j + offset[1], a.n[1], a.periodic[1]);
            const bool within = ii == i && jj == j;
            if (ii < 0 || jj < 0 || (within && (offset[2] == 0 || (a.periodic[2] && offset[2] % width == 0)))) continue;
            const T *x = y + (ii * a.n[1] + jj) * width + offset[2], *c = a.c[t] + row * s[0] + i * s[1] + j * s[2];
            if (s[3])
                terms.vector_x[terms.vectors] = x, terms.vector_c[terms.vectors++] = c;
            else
                terms.x[terms.scalars] = x, terms.c[terms.scalars++] = *c;
            edge_x[count] = x, edge_c[count] = c, edge_step[count] = s[3], edge_term[count++] = t;
        }
        accumulate(sums, terms, edges.low, edges.high);
        for (std::size_t edge = 0; edge < edges.points.size(); ++edge) {
            const Index k = edges.points[edge];
            T sum = 0;
            for (int t = 0; t < count; ++t) {
                const Index from = edges.source[edge * a.terms + edge_term[t]];
                if (from != ABSENT) sum += edge_c[t][edge_step[t] ? k : 0] * edge_x[t][from];
            }
            sums[k] = sum;
        }
    }
};

// Sparse matrices whose rows hold first the entries relaxed before the row's unknown, then its own, at `middles`, then
// those relaxed after it. `systems` matrices share one pattern, `entries` apart, or (`apart`) have each their own.
template <class T>
struct Split {
    Index size, systems, entries, apart;
    const std::int32_t *starts, *middles, *columns;
    const std::int32_t *order;   // in which the unknowns are relaxed; null as they stand
    Index colours;               // those of one are relaxed at once
    const Index *bounds;
    const T *values, *inverse;
};

// One of them, or with M a vector as many as it holds.
template <class M, class V>
class SplitRows {
    using T = typename Side<V>::Number;
    const std::int32_t *starts, *middles, *columns, *order;
    Index colours;
    const Index *bounds;
    const M *values, *inverse;
    T omega;

public:
    using Vector = V;
    const Index size;

    SplitRows(const Split<T> &a, Index system, const M *values, const M *inverse, double omega)
        : starts(a.starts + a.apart * system * a.size), middles(a.middles + a.apart * system * a.size), columns(a.columns),
          order(a.order ? a.order + a.apart * system * a.size : nullptr), colours(a.colours),
          bounds(a.bounds + a.apart * system * (a.colours + 1)), values(values), inverse(inverse), omega(T(omega)),
          size(a.size) {}

    template <bool BACK>
    void sweep(T factor, const V *right, V *y, const Team &team) {
        for (Index step = 0; step < colours; ++step) {
            const Index colour = BACK ? colours - 1 - step : step, from = bounds[colour], count = bounds[colour + 1] - from;
            over_rows(count, count * (starts[size] - starts[0]) / size, team, [&](Index begin, Index end) {
                for (Index k = begin; k < end; ++k) {
                    const Index place = BACK ? from + begin + end - 1 - k : from + k;
                    relax<BACK>(order ? order[place] : place, factor, right, y);
                }
            });
        }
    }

    void multiply(const V *x, V *y, const Team &team) {
        over(team, [=](Index i) { y[i] = product(i, x); });
    }
    void residual(const V *b, const V *x, V *r, const Team &team) {
        over(team, [=](Index i) { r[i] = b[i] - product(i, x); });
    }

private:
    template <bool BACK>
    void relax(Index i, T factor, const V *right, V *y) const {
        const M scale = omega * inverse[i];
        V value = factor ? factor * right[i] : scale * right[i];
        const std::int32_t last = BACK ? middles[i] : middles[i] - 1;
        if (BACK)
            for (std::int32_t k = starts[i + 1] - 1; k > last; --k) value -= (scale * values[k]) * y[columns[k]];
        else
            for (std::int32_t k = starts[i]; k <= last; ++k) value -= (scale * values[k]) * y[columns[k]];
        y[i] = value;
    }

    V product(Index i, const V *x) const {
        V even = {}, odd = {};
        std::int32_t k = starts[i];
        for (; k + 2 <= starts[i + 1]; k += 2) even += values[k] * x[columns[k]], odd += values[k + 1] * x[columns[k + 1]];
        if (k < starts[i + 1]) even += values[k] * x[columns[k]];
        return even + odd;
    }

    template <class F>
    void over(const Team &team, F body) const {
        over_rows(size, starts[size] - starts[0], team, [=](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) body(i);
        });
    }
};

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
void advance(S &system, int way, T omega, Courses<V> &c, bool descend, Index steps, double *norms, Index stride, int fields,
             const Team &team) {
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
void advance_field(S &system, int way, double omega, const Course<T> &d, bool descend, Index field, Index batch, Index steps,
                   double *norms, const Team &team) {
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
        StencilLines<T> system(own.a, omega);
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
void advance_lines(const Relaxed<T> &a, int way, double omega, const Course<T> &d, int descend, Index batch, Index steps,
                   double *norms, int threads) {
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
void advance_together(const Split<T> &a, int way, double omega, const Course<T> &d, bool descend, Index first, Index batch,
                      Index steps, double *norms) {
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
void advance_rows_of(const Split<T> &a, int way, double omega, const Course<T> &d, int descend, Index batch, Index steps,
                     double *norms, int threads) {
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
