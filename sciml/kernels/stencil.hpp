// Stencils: apply, residual, and damped Jacobi sweeps.
#pragma once

#include "rows.hpp"

enum Mode { APPLY = 0, RESIDUAL = 1, RELAX = 2, SCALE = 3 };

// A coefficient of term t at (batch, i, j, k) is c[t][batch s0 + i s1 + j s2 + k s3], its strides s in `strides`.
// `inverse_diagonal` is a field, or null: then the terms of offset zero, none of which varies along more than the row
// or the last axis, give the diagonal.
//
// A flat stencil has coefficients of strides (s0, n1 n2, n2, 1) that are zero where there is no neighbour, and fields with
// as many zeros before and behind them as its farthest offset reaches: the whole grid is one line without edges.
template <class T>
struct Stencil {
    Index batch;   // rows of coefficients, repeated over those of the fields
    Index first;   // the one that belongs to the first row of the fields
    Index flat;
    Index n[3], periodic[3];
    Index terms;
    const Index *offsets;
    const T *const *c;
    const Index *strides;
    const T *inverse_diagonal;
    Index diagonal_batch;   // its stride from row to row
};

// The points of the last axis that have a neighbour outside it: for each such k and term the index, relative to the
// row shifted by the term's offset, that it reads, or ABSENT.
constexpr Index ABSENT = INT64_MIN;

struct Edges {
    std::vector<Index> points, source;
    Index low = 0, high = 0;   // every neighbour exists for low <= k < high
};

inline Edges edges_of(Index n, bool periodic, int terms, const Index *offsets) {
    Edges edges;
    edges.high = n;
    for (int t = 0; t < terms; ++t) {
        edges.low = std::min(n, std::max(edges.low, -offsets[3 * t + 2]));
        edges.high = std::min(edges.high, n - offsets[3 * t + 2]);
    }
    edges.high = std::max(edges.high, edges.low);
    for (Index k = 0; k < n; ++k) {
        if (k == edges.low) k = edges.high;
        if (k >= n) break;
        edges.points.push_back(k);
        for (int t = 0; t < terms; ++t) {
            const Index at = neighbour(k + offsets[3 * t + 2], n, periodic);
            edges.source.push_back(at < 0 ? ABSENT : at - offsets[3 * t + 2]);
        }
    }
    return edges;
}

// What `stencil` does, for one row of fields and a flat stencil.
template <class T>
void flat_stencil(const Stencil<T> &a, Mode mode, const T *x, const T *b, double omega, T *out, const Team &team) {
    const Index *n = a.n, size = n[0] * n[1] * n[2], row = a.first % a.batch;
    Terms<T> terms;
    for (Index t = 0; t < a.terms; ++t) {
        const Index *offset = a.offsets + 3 * t;
        terms.vector_x[t] = x + (offset[0] * n[1] + offset[1]) * n[2] + offset[2];
        terms.vector_c[t] = a.c[t] + row * a.strides[4 * t];
    }
    terms.vectors = int(a.terms);
    const T *inverse = a.inverse_diagonal + row * a.diagonal_batch;
    const T factor = T(omega);
    over_rows(size, size * a.terms / 4, team, [&](Index begin, Index end) {
        if (mode == SCALE)
#pragma omp simd
            for (Index k = begin; k < end; ++k) out[k] = factor * inverse[k] * b[k];
        else if (mode == APPLY)
            over_lanes(terms, begin, end, [=](auto lane, Index k, auto sum) { lane.store(out + k, sum); });
        else if (mode == RESIDUAL)
            over_lanes(terms, begin, end,
                       [=](auto lane, Index k, auto sum) { lane.store(out + k, lane.load(b + k) - sum); });
        else
            over_lanes(terms, begin, end, [=](auto lane, Index k, auto sum) {
                lane.store(out + k,
                           lane.load(x + k) + factor * lane.load(inverse + k) * (lane.load(b + k) - sum));
            });
    });
}

// out = A x, b - A x, x + omega (b - A x) / diagonal, or omega b / diagonal, for `batch` rows. `products`, where not
// null, receives x . A x of each row along the last axis.
template <class T>
void stencil(const Stencil<T> &a, Mode mode, const T *x, Index x_batch, const T *b, Index b_batch, double omega, T *out,
             Index batch, double *products, const Team &team) {
    const Index *n = a.n, *offsets = a.offsets, *strides = a.strides, size = n[0] * n[1] * n[2];
    const int terms = int(a.terms);
    // Terms whose coefficient is constant along the last axis come first, those that read the same points together.
    int order[MAX_TERMS], scalar_terms = 0;
    for (int t = 0; t < terms; ++t)
        if (strides[4 * t + 3] == 0) order[scalar_terms++] = t;
    std::stable_sort(order, order + scalar_terms, [&](int s, int t) {
        return std::lexicographical_compare(offsets + 3 * s, offsets + 3 * s + 3, offsets + 3 * t, offsets + 3 * t + 3);
    });
    for (int t = 0, v = scalar_terms; t < terms; ++t)
        if (strides[4 * t + 3] != 0) order[v++] = t;
    Index low[2], high[2];   // where every neighbour along an axis exists without wrapping
    for (int a = 0; a < 2; ++a) {
        low[a] = 0, high[a] = n[a];
        for (int t = 0; t < terms; ++t) {
            low[a] = std::max(low[a], -offsets[3 * t + a]);
            high[a] = std::min(high[a], n[a] - offsets[3 * t + a]);
        }
    }
    const Edges edges = edges_of(n[2], a.periodic[2], terms, offsets);
    over_rows(batch * n[0] * n[1], batch * size * terms / 4, team, [&](Index begin, Index end) {
        std::vector<T> inverse(mode >= RELAX && !a.inverse_diagonal ? n[2] : 0);
        T row_diagonal = 0;
        bool have_inverse = false, advance = false;
        // Of each active term: the row it reads (shifted by its offset along the last axis) and its coefficients.
        const T *row_x[MAX_TERMS], *row_c[MAX_TERMS];
        Index step[MAX_TERMS];
        int term[MAX_TERMS];
        bool central[MAX_TERMS];
        int scalars = 0, active = 0;
        Terms<T> row_terms;
        Place place(begin, n[0], n[1]);
        for (Index row = begin; row < end; ++row, place.next()) {
            const Index batch_row = place.batch, i = place.i, j = place.j, own = (a.first + batch_row) % a.batch;
            if (j == 0) advance = false;
            const Index at = (i * n[1] + j) * n[2];
            if (advance && j < high[1]) {
                for (int t = 0; t < active; ++t) row_x[t] += n[2], row_c[t] += step[t];
            } else {
                advance = i >= low[0] && i < high[0] && j >= low[1] && j < high[1];
                active = scalars = 0;
                for (int o = 0; o < terms; ++o) {
                    const int t = order[o];
                    const Index *offset = offsets + 3 * t, *s = strides + 4 * t;
                    const Index ii = neighbour(i + offset[0], n[0], a.periodic[0]);
                    const Index jj = neighbour(j + offset[1], n[1], a.periodic[1]);
                    if (ii < 0 || jj < 0) continue;
                    row_x[active] = x + batch_row * x_batch + (ii * n[1] + jj) * n[2] + offset[2];
                    row_c[active] = a.c[t] + own * s[0] + i * s[1] + j * s[2];
                    step[active] = s[2], term[active] = t;
                    central[active] = ii == i && jj == j && offset[2] == 0;
                    scalars += o < scalar_terms;
                    ++active;
                }
            }
            // Scalar terms that read the same points (diagonal parts of several axes) become one.
            int merged = 0;
            for (int t = 0; t < scalars; ++t) {
                if (merged && row_terms.x[merged - 1] == row_x[t]) {
                    row_terms.c[merged - 1] += *row_c[t];
                } else {
                    row_terms.x[merged] = row_x[t];
                    row_terms.c[merged++] = *row_c[t];
                }
            }
            row_terms.scalars = merged, row_terms.vectors = active - scalars;
            for (int t = scalars; t < active; ++t)
                row_terms.vector_x[t - scalars] = row_x[t], row_terms.vector_c[t - scalars] = row_c[t];
            if (mode >= RELAX && !a.inverse_diagonal) {
                T diagonal = 0;
                for (int t = 0; t < scalars; ++t)
                    if (central[t]) diagonal += *row_c[t];
                if (!have_inverse || diagonal != row_diagonal) {
                    std::fill(inverse.begin(), inverse.end(), diagonal);
                    for (int t = scalars; t < active; ++t)
                        if (central[t])
                            for (Index k = 0; k < n[2]; ++k) inverse[k] += row_c[t][k];
                    for (Index k = 0; k < n[2]; ++k) inverse[k] = T(1) / inverse[k];
                    row_diagonal = diagonal, have_inverse = true;
                }
            }
            T *__restrict result = out + batch_row * size + at;
            const T *inverse_row = a.inverse_diagonal
                                       ? a.inverse_diagonal + own * a.diagonal_batch + at
                                       : inverse.data();
            const T *right = b + batch_row * b_batch + at, *here = x + batch_row * x_batch + at;
            const T factor = T(omega);
            if (mode == SCALE) {
#pragma omp simd
                for (Index k = 0; k < n[2]; ++k) result[k] = factor * inverse_row[k] * right[k];
                continue;
            }
            if (mode == APPLY)
                over_lanes(row_terms, edges.low, edges.high,
                           [=](auto lane, Index k, auto sum) { lane.store(result + k, sum); });
            else if (mode == RESIDUAL)
                over_lanes(row_terms, edges.low, edges.high,
                           [=](auto lane, Index k, auto sum) { lane.store(result + k, lane.load(right + k) - sum); });
            else
                over_lanes(row_terms, edges.low, edges.high, [=](auto lane, Index k, auto sum) {
                    lane.store(result + k, lane.load(here + k) + factor * lane.load(inverse_row + k) *
                                                                     (lane.load(right + k) - sum));
                });
            for (std::size_t edge = 0; edge < edges.points.size(); ++edge) {
                const Index k = edges.points[edge];
                const Index *source = edges.source.data() + edge * terms;
                T sum = 0;
                for (int t = 0; t < active; ++t) {
                    asm volatile("");   // gathers and masks cost far more than these few steps
                    const Index from = source[term[t]];
                    if (from != ABSENT) sum += row_c[t][t < scalars ? 0 : k] * row_x[t][from];
                }
                result[k] = mode == APPLY      ? sum
                            : mode == RESIDUAL ? right[k] - sum
                                               : here[k] + factor * inverse_row[k] * (right[k] - sum);
            }
            if (products) products[row] = dot_block(here, result, n[2]);
        }
    });
}
