// What the loop over time steps asks of every step.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "rows.hpp"

template <class T>
inline T scaled_error(T error, T before, T after, T rtol, T atol) {
    // A comparison that is false for NaN would hide one in `after`.
    const T u = std::abs(before), v = std::abs(after);
    const T q = error / (atol + rtol * (u > v ? u : v));
    return q * q;
}

// The absolute tolerance of a row; `stride` is 0 where all have the same. Never 0, so that 0 / 0 does not arise.
template <class T>
inline T tolerance_of_row(const double *atol, Index stride, Index row) {
    return std::max(T(atol[stride * row]), std::numeric_limits<T>::min());
}

// ratio[row] = root mean square of error / (atol + rtol max(|before|, |after|)), rows contiguous
template <class T>
void error_of_rows(const T *error, const T *before, const T *after, Index rows, Index size, double rtol,
                   const double *atol, Index stride, T *ratio, const Team &team) {
    std::vector<double> total(rows);
    sum_blocks(rows, size, team, total.data(), nullptr, [=](Index row, Index begin, Index end) {
        const T absolute = tolerance_of_row<T>(atol, stride, row);
        T lane[LANES] = {};
        Index k = begin;
        for (; k + LANES <= end; k += LANES)
            for (Index l = 0; l < LANES; ++l)
                lane[l] += scaled_error(error[k + l], before[k + l], after[k + l], T(rtol), absolute);
        for (Index l = 0; k < end; ++k, ++l) lane[l] += scaled_error(error[k], before[k], after[k], T(rtol), absolute);
        double s = 0;
        for (Index l = 0; l < LANES; ++l) s += lane[l];
        return s;
    });
    for (Index row = 0; row < rows; ++row) ratio[row] = T(std::sqrt(total[row] / size));
}

// The same with channels contiguous: entry (row, channel) stands at channel * rows + row
template <class T>
void error_of_columns(const T *error, const T *before, const T *after, Index rows, Index size, double rtol,
                      const double *atol, Index stride, T *ratio, const Team &team) {
    over_rows(rows, rows * size, team, [=](Index begin, Index end) {
        std::vector<double> total(end - begin);
        for (Index channel = 0; channel < size; ++channel) {
            const Index shift = channel * rows;
            for (Index row = begin; row < end; ++row)
                total[row - begin] += scaled_error(error[shift + row], before[shift + row], after[shift + row],
                                                   T(rtol), tolerance_of_row<T>(atol, stride, row));
        }
        for (Index row = begin; row < end; ++row) ratio[row] = T(std::sqrt(total[row - begin] / size));
    });
}

// How steps follow from errors, in logarithms.
struct StepControl {
    double target, latest, middle, oldest, rejected, smallest, largest, least, forgotten, longest;
};

// Where rows stand, one number a row: the time, the step wanted, that taken, and whether it is the last.
struct RowSteps {
    double *t, *wanted, *taken, *memory, *before, *limit;
    bool *last;
    double *times;  // of the stages, stage by stage
};

// Accepts or rejects the steps of all rows, and finds the next ones.
inline void advance_rows(Index rows, const StepControl &control, const double *ratio, const double *end, Index stages,
                         const double *c, const RowSteps &now, const RowSteps &next, bool *accepted,
                         const Team &team) {
    constexpr double HUGE_ERROR = 40;  // the logarithm of one that is infinite or NaN
    over_rows(rows, rows * 8, team, [&](Index begin, Index end_of_block) {
        for (Index row = begin; row < end_of_block; ++row) {
            const bool good = ratio[row] <= 1;
            double error = std::log(ratio[row]) - control.target;
            if (!(error < HUGE_ERROR)) error = HUGE_ERROR;
            error = std::max(error, control.least);
            double growth = good ? std::min(now.memory[row] + control.latest * error, now.limit[row])
                                 : control.rejected * error;
            growth = std::max(growth, control.smallest);
            const double t = good ? (now.last[row] ? end[row] : now.t[row] + now.taken[row]) : now.t[row];
            const double wanted = std::min(now.taken[row] * std::exp(growth), control.longest);
            const double remaining = end[row] - t, remembered = std::max(error, control.forgotten);
            const bool last = wanted >= remaining;
            accepted[row] = good;
            next.t[row] = t;
            next.wanted[row] = wanted;
            next.last[row] = last;
            next.taken[row] = last ? remaining : wanted;
            next.memory[row] = good ? control.middle * remembered + control.oldest * now.before[row] : now.memory[row];
            next.before[row] = good ? remembered : now.before[row];
            next.limit[row] = good ? control.largest : 0;
            for (Index i = 0; i < stages; ++i) next.times[i * rows + row] = t + c[i] * next.taken[row];
        }
    });
}
