// What the set-up of multigrid asks about a stencil, in one pass: see Survey in solvers/linear/survey.py.
#pragma once

#include <cmath>
#include <limits>

#include "rows.hpp"

// `found` of a row: the sum of |c| of each term, then the numbers of Found.
enum Found { LARGEST_COUPLING = 0, WIDEST_ROW = 1, LOW_DIAGONAL = 2, HIGH_DIAGONAL = 3, DETACHED = 4, FOUND = 5 };

// `coefficient` holds terms x batch x size numbers.
template <class T>
void survey(Index batch, Index size, Index terms, Index centre, const T *coefficient, double *found, const Team &team) {
    constexpr Index LENGTH = 256;
    over_rows(batch, batch * size * terms, team, [&](Index begin, Index end) {
        T widest[LENGTH], sum[LENGTH], negative[LENGTH], positive[LENGTH];
        for (Index row = begin; row < end; ++row) {
            double *own = found + row * (terms + FOUND), *other = own + terms;
            std::fill_n(own, terms + FOUND, 0.0);
            T low = std::numeric_limits<T>::infinity(), high = 0, largest = 0, ratio = 0;
            Index detached = 0;
            for (Index from = 0; from < size; from += LENGTH) {
                const Index length = std::min(LENGTH, size - from);
                const T *diagonal = coefficient + (centre * batch + row) * size + from;
                for (Index k = 0; k < length; ++k) widest[k] = sum[k] = negative[k] = positive[k] = 0;
                for (Index t = 0; t < terms; ++t) {
                    const T *c = coefficient + (t * batch + row) * size + from;
                    T lane[LANES] = {};
                    Index k = 0;
                    for (; k + LANES <= length; k += LANES)
                        for (Index l = 0; l < LANES; ++l) lane[l] += std::abs(c[k + l]);
                    for (; k < length; ++k) lane[0] += std::abs(c[k]);
                    for (Index l = 0; l < LANES; ++l) own[t] += lane[l];
                    for (k = 0; k < length; ++k) widest[k] += std::abs(c[k]);
                    if (t == centre) continue;
#pragma omp simd
                    for (k = 0; k < length; ++k) {
                        sum[k] += c[k];
                        negative[k] += c[k] < 0 ? c[k] : T(0);
                        positive[k] += c[k] > 0 ? c[k] : T(0);
                    }
                    T peak = 0;
#pragma omp simd reduction(max : peak)
                    for (k = 0; k < length; ++k) peak = c[k] > peak ? c[k] : peak;
                    largest = std::max(largest, peak);
                }
                const T tiny = std::numeric_limits<T>::min();
#pragma omp simd reduction(max : ratio, high) reduction(min : low) reduction(+ : detached)
                for (Index k = 0; k < length; ++k) {
                    const T d = diagonal[k], size_of = std::abs(d), share = widest[k] / (size_of > tiny ? size_of : tiny);
                    ratio = share > ratio ? share : ratio;
                    const bool coupled = std::abs(sum[k]) > T(1e-10) * size_of && d > 0;
                    low = coupled && d < low ? d : low;
                    high = coupled && d > high ? d : high;
                    detached += !(-negative[k] > T(1e-10) * std::abs(d + positive[k]));
                }
            }
            other[LARGEST_COUPLING] = largest, other[WIDEST_ROW] = ratio;
            other[LOW_DIAGONAL] = low, other[HIGH_DIAGONAL] = high, other[DETACHED] = double(detached);
        }
    });
}
