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

template <class T>
inline T sign(T x) {
    return x > 0 ? T(1) : x < 0 ? T(-1) : T(0);
}

template <class T>
void gradient_of_part(const T *__restrict error, const T *__restrict before, const T *__restrict after, Index length,
                      T atol, T rtol, T factor, T *__restrict of_error, T *__restrict of_before,
                      T *__restrict of_after) {
    for (Index k = 0; k < length; ++k) {
        const T u = std::abs(before[k]), v = std::abs(after[k]);
        const T scale = 1 / (atol + rtol * (u > v ? u : v));
        const T relation = error[k] * scale, along = factor * relation * scale;
        const T steeper = -rtol * along * relation;
        const T share = u > v ? T(1) : u < v ? T(0) : T(0.5);  // of the state before in the derivative of max
        of_error[k] = along;
        of_before[k] = steeper * share * sign(before[k]);
        of_after[k] = steeper * (1 - share) * sign(after[k]);
    }
}

// The derivatives of something with respect to the arguments of `error_of_rows`, from those with respect to `ratio`.
// Rows on whose ratio it does not depend may be anything, also NaN. Where nothing but squares that underflow make up the
// ratio it has no derivative that could be told, and 0 is taken.
template <class T>
void error_gradient(const T *error, const T *before, const T *after, Index rows, Index size, double rtol,
                    const double *atol, Index stride, const T *ratio, const T *slope, T *of_error, T *of_before,
                    T *of_after, const Team &team) {
    const T least = std::sqrt(std::numeric_limits<T>::min());
    over_blocks(rows, size, team, [=](Index row, Index begin, Index end) {
        if (slope[row] == 0 || ratio[row] <= least) {
            for (T *of : {of_error, of_before, of_after}) std::fill(of + begin, of + end, T(0));
            return;
        }
        const T absolute = tolerance_of_row<T>(atol, stride, row);
        const T factor = slope[row] / (T(size) * ratio[row]);
        gradient_of_part(error + begin, before + begin, after + begin, end - begin, absolute, T(rtol), factor,
                         of_error + begin, of_before + begin, of_after + begin);
    });
}

// total[row] = sum of (y - x)^2
template <class T>
void distance_of_rows(const T *x, const T *y, Index rows, Index size, double *total, const Team &team) {
    sum_blocks(rows, size, team, total, nullptr, [=](Index, Index begin, Index end) {
        T lane[LANES] = {};
        Index k = begin;
        for (; k + LANES <= end; k += LANES)
            for (Index l = 0; l < LANES; ++l) lane[l] += (y[k + l] - x[k + l]) * (y[k + l] - x[k + l]);
        for (Index l = 0; k < end; ++k, ++l) lane[l] += (y[k] - x[k]) * (y[k] - x[k]);
        double s = 0;
        for (Index l = 0; l < LANES; ++l) s += lane[l];
        return s;
    });
}

// The derivatives of something with respect to states x, y and their slopes u, v, from that with respect to `stiffness` of
// `estimate_step`, whose squares these are. Rows on whose stiffness it does not depend may be anything, also NaN.
template <class T>
void stiffness_gradient(const T *const *pair, Index rows, Index size, const double *squares, const T *slope,
                        T *const *of_pair, const Team &team) {
    over_blocks(rows, size, team, [=](Index row, Index begin, Index end) {
        if (slope[row] == 0) {
            for (int k = 0; k < 4; ++k) std::fill(of_pair[k] + begin, of_pair[k] + end, T(0));
            return;
        }
        const double above = squares[row], below = squares[rows + row];
        const double along = double(slope[row]) * std::sqrt(above / below);
        const T factors[2] = {T(-along / below), T(along / above)};
        for (int k = 0; k < 2; ++k) {
            const T factor = factors[k], *p = pair[2 * k], *q = pair[2 * k + 1];
            T *__restrict of_p = of_pair[2 * k], *__restrict of_q = of_pair[2 * k + 1];
            for (Index i = begin; i < end; ++i) {
                const T d = factor * (q[i] - p[i]);
                of_q[i] = d, of_p[i] = -d;
            }
        }
    });
}

// out = sum of weight[t] x[t]
template <class T>
void weighted_sum(Index size, int count, const T *const *x, const double *weight, T *out, const Team &team) {
    Terms<T> terms;
    for (int t = 0; t < count; ++t) terms.x[t] = x[t], terms.c[t] = T(weight[t]);
    terms.scalars = count;
    over_rows(size, size * count, team, [&](Index begin, Index end) { accumulate(out, terms, begin, end); });
}

// What a recorded step estimates: error = sum of weight[t] stage[t], its ratio, and, of a pair of states x, y and their
// slopes u, v, how fast the fastest motion is: |v - u| / |y - x|, with the squares of both, `(2, rows)`.
template <class T>
void estimate_step(Index rows, Index size, int count, const T *const *stage, const double *weight, const T *before,
                   const T *after, double rtol, const double *atol, Index stride, T *error, T *ratio,
                   const T *const *pair, double *squares, T *stiffness, const Team &team) {
    weighted_sum(rows * size, count, stage, weight, error, team);
    error_of_rows(error, before, after, rows, size, rtol, atol, stride, ratio, team);
    if (!pair) return;
    distance_of_rows(pair[2], pair[3], rows, size, squares, team);
    distance_of_rows(pair[0], pair[1], rows, size, squares + rows, team);
    // 0/0 is nearly 0, and no NaN.
    const double tiny = std::numeric_limits<T>::min(), eps = std::numeric_limits<T>::epsilon();
    for (Index row = 0; row < rows; ++row) {
        squares[row] += tiny, squares[rows + row] += tiny / (eps * eps);
        stiffness[row] = T(std::sqrt(squares[row] / squares[rows + row]));
    }
}

// How steps follow from errors, in logarithms.
struct StepControl {
    double target, latest, middle, oldest, alone, far_below, smallest, largest, least, forgotten, longest;
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
            const bool low = error < control.far_below;
            double growth = good && !low ? now.memory[row] + control.latest * error : control.alone * error;
            if (good) growth = std::min(growth, now.limit[row]);
            growth = std::max(growth, control.smallest);
            const double t = good ? (now.last[row] ? end[row] : now.t[row] + now.taken[row]) : now.t[row];
            const double wanted = std::min(now.taken[row] * std::exp(growth), control.longest);
            const double remaining = end[row] - t, remembered = low ? 0 : std::max(error, control.forgotten);
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
