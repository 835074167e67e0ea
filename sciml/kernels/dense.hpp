// Dense inverses of many small matrices.
#pragma once

#include <cmath>
#include <utility>

#include "rows.hpp"

// Gauss-Jordan elimination with partial pivoting, in place; returns whether all pivots are finite and not zero.
inline bool invert(double *matrix, Index n) {
    std::vector<Index> swapped(n);
    for (Index k = 0; k < n; ++k) {
        Index pivot = k;
        for (Index i = k + 1; i < n; ++i)
            if (std::abs(matrix[i * n + k]) > std::abs(matrix[pivot * n + k])) pivot = i;
        double *__restrict from = matrix + k * n;
        if (pivot != k) std::swap_ranges(from, from + n, matrix + pivot * n);
        const double value = from[k];
        if (!(std::abs(value) > 0) || std::isinf(value)) return false;
        swapped[k] = pivot;
        from[k] = 1;
        for (Index j = 0; j < n; ++j) from[j] /= value;
        for (Index i = 0; i < n; ++i) {
            double *__restrict row = matrix + i * n;
            const double factor = row[k];
            if (i == k || factor == 0) continue;
            row[k] = 0;
            for (Index j = 0; j < n; ++j) row[j] -= factor * from[j];
        }
    }
    for (Index i = 0; i < n; ++i)
        for (Index k = n - 1; k >= 0; --k) std::swap(matrix[i * n + k], matrix[i * n + swapped[k]]);
    return true;
}

// Inverts `count` matrices of n x n in place; ok[i] says of which that succeeded.
inline void invert_all(double *matrices, Index count, Index n, int *ok, const Team &team) {
    over_rows(count, count * n * n * n, team, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) ok[i] = invert(matrices + i * n * n, n);
    });
}
