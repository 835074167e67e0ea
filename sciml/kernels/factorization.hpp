// Incomplete factorizations without fill, and the matrices of stencils by rows that they begin from. Columns ascend in
// every row. All is computed in float64, and in the order of the rows.
#pragma once

#include <cfloat>
#include <cmath>

#include "sparse.hpp"
#include "stencil.hpp"

// The block-diagonal matrix of a stencil's batch, entries in one place added up; with `lower` none right of the diagonal.
// Returns the number of entries, at most one a term and unknown.
template <class T>
Index stencil_rows(const Stencil<T> &a, int lower, std::int32_t *starts, std::int32_t *columns, T *values) {
    struct Term {
        Index from, shift, stride;
        const T *c;
    } terms[MAX_TERMS];
    const Index *n = a.n;
    Index row = 0;
    std::int32_t end = 0;
    starts[0] = 0;
    for (Place line(0, n[0], n[1]); line.batch < a.batch; line.next()) {
        int count = 0;
        for (Index t = 0; t < a.terms; ++t) {
            const Index *offset = a.offsets + 3 * t, *stride = a.strides + 4 * t;
            const Index i = neighbour(line.i + offset[0], n[0], a.periodic[0]);
            const Index j = neighbour(line.j + offset[1], n[1], a.periodic[1]);
            if (i < 0 || j < 0) continue;
            const T *c = a.c[t] + line.batch * stride[0] + line.i * stride[1] + line.j * stride[2];
            terms[count++] = {((line.batch * n[0] + i) * n[1] + j) * n[2], offset[2], stride[3], c};
        }
        std::stable_sort(terms, terms + count, [](const Term &x, const Term &y) {
            return x.from < y.from || (x.from == y.from && x.shift < y.shift);
        });
        for (Index k = 0; k < n[2]; ++k, ++row) {
            const std::int32_t begin = end;
            for (int t = 0; t < count; ++t) {
                Index at = k + terms[t].shift;
                if ((at < 0 || at >= n[2]) && (at = neighbour(at, n[2], a.periodic[2])) < 0) continue;
                const std::int32_t column = std::int32_t(terms[t].from + at);
                if (lower && column > row) continue;
                const T value = terms[t].c[k * terms[t].stride];
                std::int32_t place = end;   // of the last entry left of it or there; axes that wrap are out of order
                while (place > begin && columns[place - 1] > column) --place;
                if (place > begin && columns[place - 1] == column) {
                    values[place - 1] += value;
                    continue;
                }
                for (std::int32_t e = end; e > place; --e) columns[e] = columns[e - 1], values[e] = values[e - 1];
                columns[place] = column, values[place] = value;
                ++end;
            }
            starts[row + 1] = end;
        }
    }
    return end;
}

// Where the diagonal entries stand, -1 where there is none.
inline void diagonal_places(Index rows, const std::int32_t *starts, const std::int32_t *columns, std::int32_t *places) {
    for (Index row = 0; row < rows; ++row) {
        const std::int32_t *end = columns + starts[row + 1];
        const std::int32_t *at = std::lower_bound(columns + starts[row], end, std::int32_t(row));
        places[row] = at < end && *at == row ? std::int32_t(at - columns) : -1;
    }
}

// L in the pattern of the lower triangle of A, whose rows end with the diagonal, L L^T ~ A + shift D, for rows that do
// not depend on others. False at the first pivot that is not above `least` times its diagonal entry, or not finite.
// `row` and `inverse` are scratch, a number a row, and `row` is 0 before and after.
template <class T>
bool cholesky_rows(const Csr<T> &a, Index begin, Index end, double shift, double least, double *l, double *row,
                   double *inverse) {
    for (Index i = begin; i < end; ++i) {
        const std::int32_t first = a.starts[i], last = a.starts[i + 1] - 1;
        const double diagonal = a.values[last];
        double pivot = diagonal * (1 + shift);
        for (std::int32_t e = first; e < last; ++e) {
            const Index k = a.columns[e];
            double sum = a.values[e];
            // Where row i has no entry, `row` is 0.
            for (std::int32_t f = a.starts[k]; f < a.starts[k + 1] - 1; ++f) sum -= l[f] * row[a.columns[f] - begin];
            sum *= inverse[k - begin];
            l[e] = row[k - begin] = sum;
            pivot -= sum * sum;
        }
        for (std::int32_t e = first; e < last; ++e) row[a.columns[e] - begin] = 0;
        if (!(pivot > least * diagonal && pivot <= DBL_MAX)) return false;
        l[last] = std::sqrt(pivot);
        inverse[i - begin] = 1 / l[last];
    }
    return true;
}

// Incomplete Cholesky factorizations of those systems for which `failed` is set, which then tells how they went.
template <class T>
void incomplete_cholesky(const Csr<T> &a, Index systems, const double *shifts, double least, double *l, int *failed,
                         const Team &team) {
    const Index size = a.rows / systems;
    over_rows(systems, 4 * Index(a.starts[a.rows]), team, [&](Index begin, Index end) {
        std::vector<double> row(size), inverse(size);
        for (Index system = begin; system < end; ++system)
            if (failed[system])
                failed[system] = !cholesky_rows(a, system * size, (system + 1) * size, shifts[system], least, l, row.data(),
                                                inverse.data());
    });
}

// L (left of the diagonal, its own being 1) and U in the pattern of A for rows that do not depend on others. Returns the
// first row whose pivot is not above rounding, or not finite; -1 where there is none. `where` is scratch, 0 before.
template <class T>
Index lu_rows(const Csr<T> &a, Index begin, Index end, const std::int32_t *diagonal, double *f, std::int32_t *where,
              std::vector<double> &row) {
    for (Index i = begin; i < end; ++i) {
        const std::int32_t first = a.starts[i], last = a.starts[i + 1];
        row.resize(last - first + 1);
        double largest = 0;
        for (std::int32_t e = first; e < last; ++e) {
            row[e - first + 1] = a.values[e];
            largest = std::max(largest, std::abs(double(a.values[e])));
            where[a.columns[e] - begin] = e - first + 1;
        }
        for (std::int32_t e = first; e < diagonal[i]; ++e) {
            const std::int32_t k = a.columns[e];
            const double factor = row[e - first + 1] /= f[diagonal[k]];
            // What falls outside the pattern is put into row[0].
            for (std::int32_t g = diagonal[k] + 1; g < a.starts[k + 1]; ++g)
                row[where[a.columns[g] - begin]] -= factor * f[g];
        }
        for (std::int32_t e = first; e < last; ++e) {
            f[e] = row[e - first + 1];
            where[a.columns[e] - begin] = 0;
        }
        row[0] = 0;
        const double pivot = std::abs(f[diagonal[i]]);
        if (!(pivot > DBL_EPSILON * largest && pivot <= DBL_MAX)) return i;
    }
    return -1;
}

// Incomplete LU factorizations of all systems; `bad` is the first row of each whose pivot fails, or -1.
template <class T>
void incomplete_lu(const Csr<T> &a, Index systems, const std::int32_t *diagonal, double *f, Index *bad, const Team &team) {
    const Index size = a.rows / systems;
    over_rows(systems, 4 * Index(a.starts[a.rows]), team, [&](Index begin, Index end) {
        std::vector<std::int32_t> where(size);
        std::vector<double> row(1);
        for (Index system = begin; system < end; ++system)
            bad[system] = lu_rows(a, system * size, (system + 1) * size, diagonal, f, where.data(), row);
    });
}

// A matrix in the making.
template <class T>
struct CsrParts {
    std::int32_t *starts, *columns;
    T *values;
};

// The triangles of a matrix with the entries `f`: the upper one with its diagonal, the lower one with ones there.
template <class T>
void split_factors(Index rows, const std::int32_t *starts, const std::int32_t *columns, const std::int32_t *diagonal,
                   const double *f, const CsrParts<T> &lower, const CsrParts<T> &upper) {
    std::int32_t low = 0, high = 0;
    lower.starts[0] = upper.starts[0] = 0;
    for (Index row = 0; row < rows; ++row) {
        std::int32_t e = starts[row];
        for (; e < diagonal[row]; ++e, ++low) lower.columns[low] = columns[e], lower.values[low] = T(f[e]);
        lower.columns[low] = std::int32_t(row), lower.values[low++] = 1;
        for (; e < starts[row + 1]; ++e, ++high) upper.columns[high] = columns[e], upper.values[high] = T(f[e]);
        lower.starts[row + 1] = low, upper.starts[row + 1] = high;
    }
}
