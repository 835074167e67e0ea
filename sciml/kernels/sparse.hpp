// Sparse matrices by rows: products with what follows them in one pass, and triangular solves.
#pragma once

#include "rows.hpp"

template <class T>
struct Csr {
    Index rows;
    const std::int32_t *starts, *columns;
    const T *values;
};

// A row times x, in four sums side by side that do not wait for one another. Unrolled by hand, since compilers would
// gather into registers here, which is slower than reading number by number.
template <class T>
inline T row_times(const Csr<T> &a, Index row, const T *x) {
    std::int32_t k = a.starts[row];
    const std::int32_t end = a.starts[row + 1];
    T sum[4] = {};
    for (; k + 4 <= end; k += 4) {
#pragma GCC unroll 4
        for (int l = 0; l < 4; ++l) sum[l] += a.values[k + l] * x[a.columns[k + l]];
    }
#pragma GCC unroll 3
    for (int l = 0; l < 3; ++l)
        if (k + l < end) sum[l] += a.values[k + l] * x[a.columns[k + l]];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// The first row before which lie at least `amount` rows and entries together.
template <class T>
Index row_after(const Csr<T> &a, Index amount) {
    Index low = 0, high = a.rows;
    while (low < high) {
        const Index middle = (low + high) / 2;
        if (a.starts[middle] + middle < amount) low = middle + 1;
        else high = middle;
    }
    return low;
}

// finish(row, row times x) for all rows, shared by their entries.
template <class T, class F>
void over_products(const Csr<T> &a, const T *x, const Team &team, F finish) {
    const Index entries = a.starts[a.rows];
    over_rows(entries + a.rows, entries, team, [&](Index begin, Index end) {
        const Index last = row_after(a, end);
        for (Index row = row_after(a, begin); row < last; ++row) finish(row, row_times(a, row, x));
    });
}

// The sums of the values that stand in each of `count` segments of a list of places, for fields `size` apart.
template <class T>
void sum_segments(Index count, const std::int32_t *starts, const std::int32_t *places, const T *values, Index size, T *sums,
                  Index batch, const Team &team) {
    for (Index field = 0; field < batch; ++field, values += size, sums += count)
        over_rows(count, starts[count], team, [=](Index begin, Index end) {
            std::int32_t k = starts[begin];
            for (Index segment = begin; segment < end; ++segment) {
                T sum = 0;
                for (const std::int32_t last = starts[segment + 1]; k < last; ++k) sum += values[places[k]];
                sums[segment] = sum;
            }
        });
}

// y = A x for fields one after the other.
template <class T>
void multiply(const Csr<T> &a, const T *x, T *y, Index batch, const Team &team) {
    for (Index field = 0; field < batch; ++field, x += a.rows, y += a.rows)
        over_products(a, x, team, [=](Index row, T product) { y[row] = product; });
}

// Steps of Chebyshev's iteration for A x = b: from x and the x before it the next one, x + first (x - before) +
// second (b - A x), in the place of the one before, with two factors a step. Products wait in blocks: a field written
// among the rows that are read, and that begins at the same place of a page of memory, would delay every load.
template <class T>
void chebyshev(const Csr<T> &a, const double *factors, Index steps, const T *b, T *x, T *before, Index batch,
               const Team &team) {
    constexpr Index WAITING = 256;
    const Index entries = a.starts[a.rows];
    for (Index field = 0; field < batch; ++field, b += a.rows, x += a.rows, before += a.rows) {
        for (Index step = 0; step < steps; ++step) {
            const T first = T(factors[2 * step]), second = T(factors[2 * step + 1]);
            const T *now = step % 2 ? before : x;
            T *next = step % 2 ? x : before;
            over_rows(entries + a.rows, entries, team, [&](Index begin, Index end) {
                const Index last = row_after(a, end);
                for (Index row = row_after(a, begin); row < last; row += WAITING) {
                    const Index count = std::min(WAITING, last - row);
                    T product[WAITING];
                    for (Index k = 0; k < count; ++k) product[k] = row_times(a, row + k, now);
                    for (Index k = row; k < row + count; ++k)
                        next[k] = now[k] + first * (now[k] - next[k]) + second * (b[k] - product[k - row]);
                }
            });
        }
    }
}

// A triangular matrix with the reciprocals of its diagonal in the diagonal's place, and the bounds of pieces that do not
// depend on one another.
template <class T>
struct Triangle {
    Csr<T> matrix;
    Index pieces;
    const Index *bounds;
    int upper;   // the diagonal is then the first entry of a row, the last one otherwise
};

// x = A^-1 b for rows of `columns` right sides.
template <bool SINGLE, class T>
void substitute(const Triangle<T> &a, const T *b, T *x, Index columns, Index piece) {
    const Csr<T> &m = a.matrix;
    const Index width = SINGLE ? 1 : columns, from = a.bounds[piece], count = a.bounds[piece + 1] - from;
    for (Index step = 0; step < count; ++step) {
        const Index row = a.upper ? from + count - 1 - step : from + step;
        const Index first = m.starts[row] + a.upper, last = m.starts[row + 1] - !a.upper;
        const T inverse = m.values[a.upper ? first - 1 : last];
        T *__restrict to = x + row * width;
        if constexpr (SINGLE) {
            T sum = b[row];
            for (Index k = first; k < last; ++k) sum -= m.values[k] * x[m.columns[k]];
            *to = inverse * sum;
        } else {
            for (Index c = 0; c < width; ++c) to[c] = b[row * width + c];
            for (Index k = first; k < last; ++k) {
                const T *__restrict known = x + m.columns[k] * width;
                for (Index c = 0; c < width; ++c) to[c] -= m.values[k] * known[c];
            }
            for (Index c = 0; c < width; ++c) to[c] *= inverse;
        }
    }
}

// x = A^-T b, each unknown taken out of the rows after it as soon as it is known.
template <bool SINGLE, class T>
void substitute_transposed(const Triangle<T> &a, const T *b, T *x, Index columns, Index piece) {
    const Csr<T> &m = a.matrix;
    const Index width = SINGLE ? 1 : columns, from = a.bounds[piece], count = a.bounds[piece + 1] - from;
    std::copy(b + from * width, b + (from + count) * width, x + from * width);
    for (Index step = 0; step < count; ++step) {
        const Index row = a.upper ? from + step : from + count - 1 - step;
        const Index first = m.starts[row] + a.upper, last = m.starts[row + 1] - !a.upper;
        const T inverse = m.values[a.upper ? first - 1 : last];
        T *__restrict known = x + row * width;
        for (Index c = 0; c < width; ++c) known[c] *= inverse;
        for (Index k = first; k < last; ++k) {
            T *__restrict to = x + m.columns[k] * width;
            for (Index c = 0; c < width; ++c) to[c] -= m.values[k] * known[c];
        }
    }
}

template <class T>
void solve_triangle(const Triangle<T> &a, int transposed, const T *b, T *x, Index columns, const Team &team) {
    over_rows(a.pieces, a.matrix.starts[a.matrix.rows] * columns, team, [&](Index begin, Index end) {
        for (Index piece = begin; piece < end; ++piece)
            if (transposed)
                columns == 1 ? substitute_transposed<true>(a, b, x, columns, piece)
                             : substitute_transposed<false>(a, b, x, columns, piece);
            else
                columns == 1 ? substitute<true>(a, b, x, columns, piece) : substitute<false>(a, b, x, columns, piece);
    });
}
