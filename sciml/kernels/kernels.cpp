// Compiled kernels for stencils and grid transfers on the CPU.
//
// Every field is a contiguous row-major array over three space axes n[0] x n[1] x n[2] (leading axes of length 1 in
// fewer dimensions) with a batch stride, in elements. Work is split over rows along the last axis.

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>
#include <omp.h>

using Index = std::int64_t;

namespace {

constexpr Index CHUNK = 2048;   // elements of one row that are held in the first-level cache
constexpr int MAX_TERMS = 64;   // 5-point to 27-point stencils, and fourth order in 3D

enum Mode { APPLY = 0, RESIDUAL = 1, RELAX = 2, SCALE = 3 };

// sum (+)= scalar weights times rows + weight rows times rows; the counts are compile-time so that the loop over k
// is one vectorised loop with every pointer in a register.
template <class T, bool ADD, std::size_t... S, std::size_t... V>
inline void combine(T *__restrict sum, const T *const *x, const T *c, const T *const *vx, const T *const *vc,
                    Index begin, Index end, std::index_sequence<S...>, std::index_sequence<V...>) {
    const T *const row[sizeof...(S) + 1] = {x[S]..., nullptr};
    const T weight[sizeof...(S) + 1] = {c[S]..., T(0)};
    const T *const vector_row[sizeof...(V) + 1] = {vx[V]..., nullptr};
    const T *const vector_weight[sizeof...(V) + 1] = {vc[V]..., nullptr};
#pragma omp simd
    for (Index k = begin; k < end; ++k) {
        T s = ADD ? sum[k] : T(0);
        ((s += weight[S] * row[S][k]), ...);
        ((s += vector_weight[V][k] * vector_row[V][k]), ...);
        sum[k] = s;
    }
    (void)row, (void)weight, (void)vector_row, (void)vector_weight;
}

template <class T, bool ADD, int S, int V>
void combine_counts(T *sum, const T *const *x, const T *c, const T *const *vx, const T *const *vc, Index begin,
                    Index end) {
    combine<T, ADD>(sum, x, c, vx, vc, begin, end, std::make_index_sequence<S>{}, std::make_index_sequence<V>{});
}

template <class T>
using Combine = void (*)(T *, const T *const *, const T *, const T *const *, const T *const *, Index, Index);

constexpr int MOST_SCALARS = 7, MOST_VECTORS = 8;

// Scalar terms with no or one weighted row, and weighted rows alone, by count.
template <class T, bool ADD, std::size_t... I>
constexpr std::array<Combine<T>, sizeof...(I)> mixed_table(std::index_sequence<I...>) {
    return {combine_counts<T, ADD, I / 2, I % 2>...};
}

template <class T, bool ADD, std::size_t... I>
constexpr std::array<Combine<T>, sizeof...(I)> vector_table(std::index_sequence<I...>) {
    return {combine_counts<T, ADD, 0, I>...};
}

template <class T, bool ADD>
inline void combine_group(T *sum, const T *const *x, const T *c, int scalars, const T *const *vx, const T *const *vc,
                          int vectors, Index begin, Index end) {
    static constexpr auto mixed = mixed_table<T, ADD>(std::make_index_sequence<2 * MOST_SCALARS + 2>{});
    static constexpr auto weighted = vector_table<T, ADD>(std::make_index_sequence<MOST_VECTORS + 1>{});
    const auto run = scalars ? mixed[2 * scalars + vectors] : weighted[vectors];
    run(sum, x, c, vx, vc, begin, end);
}

// sum[k] = all scalar terms + all vector terms at k, begin <= k < end, in groups.
template <class T>
void accumulate(T *sum, const T *const *x, const T *c, int scalars, const T *const *vx, const T *const *vc, int vectors,
                Index begin, Index end) {
    bool first = true;
    do {
        const int s = std::min(scalars, MOST_SCALARS), v = std::min(vectors, s ? 1 : MOST_VECTORS);
        if (first)
            combine_group<T, false>(sum, x, c, s, vx, vc, v, begin, end);
        else
            combine_group<T, true>(sum, x, c, s, vx, vc, v, begin, end);
        x += s, c += s, scalars -= s, vx += v, vc += v, vectors -= v, first = false;
    } while (scalars > 0 || vectors > 0);
}

// Index of a neighbour, wrapped on a periodic axis; -1 where there is none.
inline Index neighbour(Index i, Index n, bool periodic) {
    if (i >= 0 && i < n) return i;
    if (!periodic) return -1;
    while (i < 0) i += n;
    while (i >= n) i -= n;
    return i;
}

template <class F>
void over_rows(Index rows, Index cost, int threads, F body) {
#pragma omp parallel num_threads(threads) if (threads > 1 && cost > 30000)
    {
        const Index count = omp_get_num_threads(), me = omp_get_thread_num();
        body(rows * me / count, rows * (me + 1) / count);
    }
}

constexpr Index LANES = 16;   // partial sums side by side, so that a sum vectorises without reordering by the compiler

template <class T>
double dot_block(const T *__restrict x, const T *__restrict y, Index length) {
    T lane[LANES] = {};
    Index k = 0;
    for (; k + LANES <= length; k += LANES)
        for (Index l = 0; l < LANES; ++l) lane[l] += x[k + l] * y[k + l];
    for (Index l = 0; k < length; ++k, ++l) lane[l] += x[k] * y[k];
    double s = 0;
    for (Index l = 0; l < LANES; ++l) s += lane[l];
    return s;
}

// out = A x, b - A x, x + omega (b - A x) / diagonal, or omega b / diagonal.
// A coefficient of term t at (batch, i, j, k) is c[t][batch s0 + i s1 + j s2 + k s3], its strides in `strides`; the
// operator's own batch of `own_batch` rows repeats over those of the field. `products`, where not null, receives x . A x
// of each row along the last axis.
// `inverse_diagonal` is a field, or null: then the terms of offset zero, none of which varies along more than the row
// or the last axis, give the diagonal.
template <class T>
void stencil(int mode, const T *x, Index x_batch, const T *b, Index b_batch, const T *inverse_diagonal,
             Index diagonal_batch, double omega, T *out, Index out_batch, Index batch, Index own_batch, const Index *n,
             int terms, const Index *offsets, const T *const *c, const Index *strides, const int *periodic,
             double *products, int threads) {
    // Terms whose coefficient is constant along the last axis come first.
    int order[MAX_TERMS], scalar_terms = 0;
    for (int t = 0; t < terms; ++t)
        if (strides[4 * t + 3] == 0) order[scalar_terms++] = t;
    std::stable_sort(order, order + scalar_terms, [&](int s, int t) {
        return std::lexicographical_compare(offsets + 3 * s, offsets + 3 * s + 3, offsets + 3 * t, offsets + 3 * t + 3);
    });
    for (int t = 0, v = scalar_terms; t < terms; ++t)
        if (strides[4 * t + 3] != 0) order[v++] = t;
    Index low[3], high[3];   // where every neighbour along an axis exists without wrapping
    for (int a = 0; a < 3; ++a) {
        low[a] = 0, high[a] = n[a];
        for (int t = 0; t < terms; ++t) {
            low[a] = std::max(low[a], -offsets[3 * t + a]);
            high[a] = std::min(high[a], n[a] - offsets[3 * t + a]);
        }
        low[a] = std::min(low[a], n[a]);
        high[a] = std::max(high[a], low[a]);
    }
    over_rows(batch * n[0] * n[1], batch * n[0] * n[1] * n[2] * terms / 4, threads, [&](Index begin, Index end) {
        T buffer[CHUNK];
        std::vector<T> inverse(mode >= RELAX && !inverse_diagonal ? n[2] : 0);
        T row_diagonal = 0;
        bool have_inverse = false, bump = false;
        // Of each active term: the row it reads (shifted by its offset along the last axis) and its coefficients.
        const T *row_x[MAX_TERMS], *row_c[MAX_TERMS];
        const T *scalar_x[MAX_TERMS];
        T scalar_c[MAX_TERMS];
        Index shift[MAX_TERMS], step[MAX_TERMS];
        bool central[MAX_TERMS];
        int scalars = 0, active = 0;
        Index batch_row = begin / (n[0] * n[1]), i = begin / n[1] % n[0], j = begin % n[1] - 1;
        for (Index row = begin; row < end; ++row) {
            if (++j == n[1]) {
                j = 0, bump = false;
                if (++i == n[0]) i = 0, ++batch_row;
            }
            const Index at = (i * n[1] + j) * n[2];
            if (bump && j < high[1]) {
                for (int t = 0; t < active; ++t) row_x[t] += n[2], row_c[t] += step[t];
            } else {
                bump = i >= low[0] && i < high[0] && j >= low[1] && j < high[1];
                active = scalars = 0;
                for (int o = 0; o < terms; ++o) {
                    const int t = order[o];
                    const Index *offset = offsets + 3 * t, *s = strides + 4 * t;
                    const Index ii = neighbour(i + offset[0], n[0], periodic[0]);
                    const Index jj = neighbour(j + offset[1], n[1], periodic[1]);
                    if (ii < 0 || jj < 0) continue;
                    row_x[active] = x + batch_row * x_batch + (ii * n[1] + jj) * n[2] + offset[2];
                    row_c[active] = c[t] + batch_row % own_batch * s[0] + i * s[1] + j * s[2];
                    shift[active] = offset[2], step[active] = s[2];
                    central[active] = ii == i && jj == j && offset[2] == 0;
                    scalars += o < scalar_terms;
                    ++active;
                }
            }
            // Scalar terms that read the same points (diagonal parts of several axes) become one.
            int merged = 0;
            for (int t = 0; t < scalars; ++t) {
                if (merged && scalar_x[merged - 1] == row_x[t]) {
                    scalar_c[merged - 1] += *row_c[t];
                } else {
                    scalar_x[merged] = row_x[t];
                    scalar_c[merged++] = *row_c[t];
                }
            }
            if (mode >= RELAX && !inverse_diagonal) {
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
            for (Index start = 0; start < n[2]; start += CHUNK) {
                const Index stop = std::min(start + CHUNK, n[2]);
                const Index inner = std::min(std::max(start, low[2]), stop);
                const Index outer = std::max(inner, std::min(stop, high[2]));
                T *result = out + batch_row * out_batch + at;
                const T *inverse_row = inverse_diagonal ? inverse_diagonal + batch_row * diagonal_batch + at
                                                        : inverse.data();
                const T *right = b + batch_row * b_batch + at;
                const T factor = T(omega);
                if (mode == SCALE) {
#pragma omp simd
                    for (Index k = start; k < stop; ++k) result[k] = factor * inverse_row[k] * right[k];
                    continue;
                }
                T *sum = mode == APPLY ? result : buffer - start;
                if (outer > inner)
                    accumulate(sum, scalar_x, scalar_c, merged, row_x + scalars, row_c + scalars, active - scalars,
                               inner, outer);
                const auto edge = [&](Index k) {
                    T s = 0;
                    for (int t = 0; t < active; ++t) {
                        const Index kk = neighbour(k + shift[t], n[2], periodic[2]);
                        if (kk >= 0) s += (t < scalars ? *row_c[t] : row_c[t][k]) * row_x[t][kk - shift[t]];
                    }
                    sum[k] = s;
                };
                for (Index k = start; k < inner; ++k) edge(k);
                for (Index k = outer; k < stop; ++k) edge(k);
                if (mode == APPLY) {
                    if (products)
                        products[row] = (start ? products[row] : 0.0) +
                                        dot_block(x + batch_row * x_batch + at + start, sum + start, stop - start);
                    continue;
                }
                if (mode == RESIDUAL) {
#pragma omp simd
                    for (Index k = start; k < stop; ++k) result[k] = right[k] - sum[k];
                    continue;
                }
                const T *here = x + batch_row * x_batch + at;
#pragma omp simd
                for (Index k = start; k < stop; ++k)
                    result[k] = here[k] + factor * inverse_row[k] * (right[k] - sum[k]);
            }
        }
    });
}

constexpr Index BLOCK = 4096;   // elements summed at once: sums do not depend on the number of threads

template <class T, class F>
void sum_blocks(Index batch, Index size, int threads, double *total, F block) {
    const Index blocks = (size + BLOCK - 1) / BLOCK;
    std::vector<double> partial(batch * blocks);
    over_rows(batch * blocks, batch * size, threads, [&](Index begin, Index end) {
        for (Index at = begin; at < end; ++at) {
            const Index row = at / blocks, start = at % blocks * BLOCK;
            partial[at] = block(row, row * size + start, row * size + std::min(start + BLOCK, size));
        }
    });
    for (Index row = 0; row < batch; ++row) {
        total[row] = 0;
        for (Index at = 0; at < blocks; ++at) total[row] += partial[row * blocks + at];
    }
}

template <class T>
double descend_block(T *__restrict x, T *__restrict r, const T *__restrict p, const T *__restrict q, T alpha,
                     Index length) {
    T lane[LANES] = {};
    Index k = 0;
    for (; k + LANES <= length; k += LANES)
        for (Index l = 0; l < LANES; ++l) {
            x[k + l] += alpha * p[k + l];
            const T rest = r[k + l] - alpha * q[k + l];
            r[k + l] = rest;
            lane[l] += rest * rest;
        }
    for (Index l = 0; k < length; ++k, ++l) {
        x[k] += alpha * p[k];
        r[k] -= alpha * q[k];
        lane[l] += r[k] * r[k];
    }
    double s = 0;
    for (Index l = 0; l < LANES; ++l) s += lane[l];
    return s;
}

template <class T>
void redirect_block(T *__restrict p, const T *__restrict z, T beta, Index length) {
    for (Index k = 0; k < length; ++k) p[k] = z[k] + beta * p[k];
}

// y = scale[row] x, between precisions
template <class S, class T>
void rescale(const S *x, const double *scale, T *y, Index batch, Index size, int threads) {
    const Index blocks = (size + BLOCK - 1) / BLOCK;
    over_rows(batch * blocks, batch * size, threads, [&](Index begin, Index end) {
        for (Index at = begin; at < end; ++at) {
            const Index row = at / blocks, start = row * size + at % blocks * BLOCK;
            const Index length = std::min(start + BLOCK, (row + 1) * size) - start;
            const S *__restrict from = x + start;
            T *__restrict to = y + start;
            using Wide = decltype(S() + T());
            const Wide factor = Wide(scale[row]);
            for (Index k = 0; k < length; ++k) to[k] = T(factor * Wide(from[k]));
        }
    });
}

// total[row] = x . y
template <class T>
void dot(const T *x, const T *y, Index batch, Index size, double *total, int threads) {
    sum_blocks<T>(batch, size, threads, total,
                  [=](Index, Index begin, Index end) { return dot_block(x + begin, y + begin, end - begin); });
}

// x += alpha p, r -= alpha q, total[row] = r . r
template <class T>
void descend(T *x, T *r, const T *p, const T *q, const double *alpha, Index batch, Index size, double *total,
             int threads) {
    sum_blocks<T>(batch, size, threads, total, [=](Index row, Index begin, Index end) {
        return descend_block(x + begin, r + begin, p + begin, q + begin, T(alpha[row]), end - begin);
    });
}

// p = z + beta p
template <class T>
void redirect(T *p, const T *z, const double *beta, Index batch, Index size, int threads) {
    const Index blocks = (size + BLOCK - 1) / BLOCK;
    over_rows(batch * blocks, batch * size, threads, [&](Index begin, Index end) {
        for (Index at = begin; at < end; ++at) {
            const Index row = at / blocks, start = row * size + at % blocks * BLOCK;
            const Index stop = std::min(start + BLOCK, (row + 1) * size);
            redirect_block(p + start, z + start, T(beta[row]), stop - start);
        }
    });
}

// Grid transfer. Fine index of coarse point c along an axis: step c + start + k, k = -1, 0, 1, with weight w[k + 1][c].
struct Axes {
    const Index *fine, *coarse, *step, *start;
    const int *periodic;
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

// result[2 c + start + side - 1] += split[side][c], wrapped or dropped outside.
template <class T>
void add_spread(T *__restrict result, Index nf, Index start, Index nc, bool wraps, T *const *split, T *scratch) {
    // spread[f + 1] holds fine point f, from -1 to at most nf
    T *__restrict spread = scratch;
    const T *__restrict before = split[0], *__restrict at = split[1], *__restrict after = split[2];
    std::fill(spread, spread + start, T(0));
    std::fill(spread + start + 2 * nc, spread + std::max(nf + 2, start + 2 * nc + 1), T(0));
    spread[start] = before[0];
    for (Index c = 0; c + 1 < nc; ++c) {
        spread[start + 2 * c + 1] = at[c];
        spread[start + 2 * c + 2] = after[c] + before[c + 1];
    }
    spread[start + 2 * nc - 1] = at[nc - 1];
    spread[start + 2 * nc] = after[nc - 1];
    if (wraps) spread[nf] += spread[0], spread[1] += spread[nf + 1];
    for (Index f = 0; f < nf; ++f) result[f] += spread[f + 1];
}

// coarse = restriction of fine, weights a product over the axes: w[axis][(k + 1) coarse[axis] + c].
template <class T>
void restrict_product(const T *fine, Index fine_batch, T *coarse, Index coarse_batch, Index batch, Axes a,
                      const T *const *w, int threads) {
    const Index rows = a.coarse[0] * a.coarse[1], nf = a.fine[2], nc = a.coarse[2];
    over_rows(batch * rows, batch * rows * nf * 4, threads, [&](Index begin, Index end) {
        std::vector<T> line(nf + 2, T(0));
        T *middle = line.data() + 1;
        for (Index row = begin; row < end; ++row) {
            const Index batch_row = row / rows, ci = row / a.coarse[1] % a.coarse[0], cj = row % a.coarse[1];
            const T *source[9];
            T weight[9];
            int count = 0;
            for (int ki = 0; ki < 3; ++ki) {
                const Index fi = neighbour(a.step[0] * ci + a.start[0] + ki - 1, a.fine[0], a.periodic[0]);
                const T wi = w[0][ki * a.coarse[0] + ci];
                if (fi < 0 || wi == 0) continue;
                for (int kj = 0; kj < 3; ++kj) {
                    const Index fj = neighbour(a.step[1] * cj + a.start[1] + kj - 1, a.fine[1], a.periodic[1]);
                    const T wj = w[1][kj * a.coarse[1] + cj];
                    if (fj < 0 || wj == 0) continue;
                    source[count] = fine + batch_row * fine_batch + (fi * a.fine[1] + fj) * nf;
                    weight[count++] = wi * wj;
                }
            }
            accumulate<T>(middle, source, weight, count, nullptr, nullptr, 0, 0, nf);
            if (a.periodic[2]) line[0] = line[nf], line[nf + 1] = line[1];
            T *result = coarse + batch_row * coarse_batch + row % rows * nc;
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
    const Index c0 = f - a.start[axis] - k;
    if (c0 < 0 && !a.periodic[axis]) return -1;
    Index c = c0 < 0 ? c0 + a.fine[axis] : c0;
    if (c % a.step[axis]) return -1;
    c /= a.step[axis];
    return c < a.coarse[axis] ? c : -1;
}

// fine += prolongation of coarse, weights a product over the axes.
template <class T>
void prolong_product(const T *coarse, Index coarse_batch, T *fine, Index fine_batch, Index batch, Axes a,
                     const T *const *w, int threads) {
    const Index rows = a.fine[0] * a.fine[1], nf = a.fine[2], nc = a.coarse[2];
    over_rows(batch * rows, batch * rows * nf * 3, threads, [&](Index begin, Index end) {
        std::vector<T> line(nc), spread(2 * nc + 2 + nf), buffer(3 * nc);
        T *const split[3] = {buffer.data(), buffer.data() + nc, buffer.data() + 2 * nc};
        for (Index row = begin; row < end; ++row) {
            const Index batch_row = row / rows, fi = row / a.fine[1] % a.fine[0], fj = row % a.fine[1];
            const T *source[9];
            T weight[9];
            int count = 0;
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
                    source[count] = coarse + batch_row * coarse_batch + (ci * a.coarse[1] + cj) * nc;
                    weight[count++] = wi * wj;
                }
            }
            if (!count) continue;
            accumulate<T>(line.data(), source, weight, count, nullptr, nullptr, 0, 0, nc);
            T *result = fine + batch_row * fine_batch + row % rows * nf;
            const T *left = w[2], *centre = w[2] + nc, *right = w[2] + 2 * nc;
            if (a.step[2] == 2) {
                for (Index c = 0; c < nc; ++c) {
                    split[0][c] = left[c] * line[c];
                    split[1][c] = centre[c] * line[c];
                    split[2][c] = right[c] * line[c];
                }
                add_spread(result, nf, a.start[2], nc, a.periodic[2], split, spread.data());
            } else {
                for (Index c = 0; c < nc; ++c) result[c] += centre[c] * line[c];
            }
        }
    });
}

// The same with a weight field for each of the 27 neighbours k of a coarse point: w[(ki + 1) 9 + (kj + 1) 3 + kk + 1],
// null where it is zero, of `own_batch` rows (repeated over those of the fields) and the coarse shape.
template <class T>
void restrict_fields(const T *fine, Index fine_batch, T *coarse, Index coarse_batch, Index batch, Axes a,
                     const T *const *w, Index own_batch, int threads) {
    const Index rows = a.coarse[0] * a.coarse[1], nc = a.coarse[2], nf = a.fine[2];
    over_rows(batch * rows, batch * rows * nc * 9, threads, [&](Index begin, Index end) {
        // The fine line split into the points before, at and after each coarse one.
        std::vector<T> buffer(3 * nc);
        T *const split[3] = {buffer.data(), buffer.data() + nc, buffer.data() + 2 * nc};
        for (Index row = begin; row < end; ++row) {
            const Index batch_row = row / rows, ci = row / a.coarse[1] % a.coarse[0], cj = row % a.coarse[1];
            T *result = coarse + batch_row * coarse_batch + row % rows * nc;
            std::fill(result, result + nc, T(0));
            for (int k = 0; k < 27; k += 3) {
                if (!w[k + 1]) continue;
                const Index fi = neighbour(a.step[0] * ci + a.start[0] + k / 9 - 1, a.fine[0], a.periodic[0]);
                const Index fj = neighbour(a.step[1] * cj + a.start[1] + k / 3 % 3 - 1, a.fine[1], a.periodic[1]);
                if (fi < 0 || fj < 0) continue;
                const T *line = fine + batch_row * fine_batch + (fi * a.fine[1] + fj) * nf;
                const Index at = (batch_row % own_batch * rows + row % rows) * nc;
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
void prolong_fields(const T *coarse, Index coarse_batch, T *fine, Index fine_batch, Index batch, Axes a,
                    const T *const *w, Index own_batch, int threads) {
    const Index rows = a.fine[0] * a.fine[1], nf = a.fine[2], nc = a.coarse[2];
    over_rows(batch * rows, batch * rows * nf * 4, threads, [&](Index begin, Index end) {
        std::vector<T> buffer(3 * nc), spread(2 * nc + 2 + nf);
        T *const split[3] = {buffer.data(), buffer.data() + nc, buffer.data() + 2 * nc};
        for (Index row = begin; row < end; ++row) {
            const Index batch_row = row / rows, fi = row / a.fine[1] % a.fine[0], fj = row % a.fine[1];
            T *result = fine + batch_row * fine_batch + row % rows * nf;
            std::fill(buffer.begin(), buffer.end(), T(0));
            bool any = false;
            for (int k = 0; k < 27; k += 3) {
                if (!w[k + 1]) continue;
                const Index ci = parent(fi, k / 9 - 1, 0, a), cj = parent(fj, k / 3 % 3 - 1, 1, a);
                if (ci < 0 || cj < 0) continue;
                const Index coarse_row = ci * a.coarse[1] + cj;
                const T *line = coarse + batch_row * coarse_batch + coarse_row * nc;
                const Index at = (batch_row % own_batch * a.coarse[0] * a.coarse[1] + coarse_row) * nc;
                any = true;
                for (int side = 0; side < 3; ++side)
                    if (w[k + side]) add_product(split[side], w[k + side] + at, line, nc);
            }
            if (!any) continue;
            if (a.step[2] == 1) {
                for (Index c = 0; c < nc; ++c) result[c] += split[1][c];
            } else {
                add_spread(result, nf, a.start[2], nc, a.periodic[2], split, spread.data());
            }
        }
    });
}

// Coarse stencil R A P (see galerkin in solvers/linear/coarsening.py). Fine terms t have offsets o and coefficients of
// strides (batch, i, j, k); r[k], p[k] and result[m] are coarse fields, 27 each, null where absent; coarse neighbours wrap
// on `ring` axes, fine points on a.periodic ones. Only the m for which result[m] is given are computed.
template <class T>
void galerkin(Index batch, Axes a, const int *ring, int terms, const Index *offsets, const T *const *coefficient,
              const Index *strides, const T *const *r, const T *const *p, T *const *result, int threads) {
    const Index rows = a.coarse[0] * a.coarse[1], nc = a.coarse[2], nf = a.fine[2], size = rows * nc;
    over_rows(batch * rows, batch * size * 100, threads, [&](Index begin, Index end) {
        std::vector<T> buffer(nc);
        T *const product = buffer.data();
        for (Index row = begin; row < end; ++row) {
            const Index batch_row = row / rows, ci = row / a.coarse[1] % a.coarse[0], cj = row % a.coarse[1];
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

}  // namespace

#define EXPORT(T, suffix)                                                                                              \
    extern "C" void stencil_##suffix(int mode, const T *x, Index x_batch, const T *b, Index b_batch,                   \
                                     const T *inverse_diagonal, Index diagonal_batch, double omega, T *out,            \
                                     Index out_batch, Index batch, Index own_batch, const Index *n, int terms,         \
                                     const Index *offsets, const T *const *c, const Index *strides,                    \
                                     const int *periodic, double *products, int threads) {                             \
        stencil(mode, x, x_batch, b, b_batch, inverse_diagonal, diagonal_batch, omega, out, out_batch, batch,          \
                own_batch, n, terms, offsets, c, strides, periodic, products, threads);                                                      \
    }                                                                                                                  \
    extern "C" void dot_##suffix(const T *x, const T *y, Index batch, Index size, double *total, int threads) {        \
        dot(x, y, batch, size, total, threads);                                                                        \
    }                                                                                                                  \
    extern "C" void descend_##suffix(T *x, T *r, const T *p, const T *q, const double *alpha, Index batch,             \
                                     Index size, double *total, int threads) {                                         \
        descend(x, r, p, q, alpha, batch, size, total, threads);                                                       \
    }                                                                                                                  \
    extern "C" void redirect_##suffix(T *p, const T *z, const double *beta, Index batch, Index size, int threads) {    \
        redirect(p, z, beta, batch, size, threads);                                                                    \
    }                                                                                                                  \
    extern "C" void restrict_product_##suffix(const T *fine, Index fine_batch, T *coarse, Index coarse_batch,          \
                                              Index batch, const Index *shape, const int *periodic,                    \
                                              const T *const *w, int threads) {                                        \
        restrict_product(fine, fine_batch, coarse, coarse_batch, batch,                                                \
                         Axes{shape, shape + 3, shape + 6, shape + 9, periodic}, w, threads);                          \
    }                                                                                                                  \
    extern "C" void prolong_product_##suffix(const T *coarse, Index coarse_batch, T *fine, Index fine_batch,           \
                                             Index batch, const Index *shape, const int *periodic,                     \
                                             const T *const *w, int threads) {                                         \
        prolong_product(coarse, coarse_batch, fine, fine_batch, batch,                                                 \
                        Axes{shape, shape + 3, shape + 6, shape + 9, periodic}, w, threads);                           \
    }                                                                                                                  \
    extern "C" void restrict_fields_##suffix(const T *fine, Index fine_batch, T *coarse, Index coarse_batch,           \
                                             Index batch, const Index *shape, const int *periodic,                     \
                                             const T *const *w, Index own_batch, int threads) {                        \
        restrict_fields(fine, fine_batch, coarse, coarse_batch, batch,                                                 \
                        Axes{shape, shape + 3, shape + 6, shape + 9, periodic}, w, own_batch, threads);                \
    }                                                                                                                  \
    extern "C" void galerkin_##suffix(Index batch, const Index *shape, const int *periodic, const int *ring, int terms,   \
                                      const Index *offsets, const T *const *coefficient, const Index *strides,         \
                                      const T *const *r, const T *const *p, T *const *result, int threads) {           \
        galerkin(batch, Axes{shape, shape + 3, shape + 6, shape + 9, periodic}, ring, terms, offsets, coefficient,     \
                 strides, r, p, result, threads);                                                                      \
    }                                                                                                                  \
    extern "C" void prolong_fields_##suffix(const T *coarse, Index coarse_batch, T *fine, Index fine_batch,            \
                                            Index batch, const Index *shape, const int *periodic,                      \
                                            const T *const *w, Index own_batch, int threads) {                         \
        prolong_fields(coarse, coarse_batch, fine, fine_batch, batch,                                                  \
                       Axes{shape, shape + 3, shape + 6, shape + 9, periodic}, w, own_batch, threads);                 \
    }

#define EXPORT_RESCALE(S, T, suffix)                                                                                   \
    extern "C" void rescale_##suffix(const S *x, const double *scale, T *y, Index batch, Index size, int threads) {    \
        rescale(x, scale, y, batch, size, threads);                                                                    \
    }

EXPORT_RESCALE(float, float, float32_float32)
EXPORT_RESCALE(float, double, float32_float64)
EXPORT_RESCALE(double, float, float64_float32)
EXPORT_RESCALE(double, double, float64_float64)
EXPORT(float, float32)
EXPORT(double, float64)
