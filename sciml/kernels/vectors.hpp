// Vector operations of the iterative methods, with one scalar a row of the batch.
#pragma once

#include "rows.hpp"

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
void rescale(const S *x, const double *scale, T *y, Index batch, Index size, const Team &team) {
    const Index blocks = (size + BLOCK - 1) / BLOCK;
    over_rows(batch * blocks, batch * size, team, [&](Index begin, Index end) {
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
void dot(const T *x, const T *y, Index batch, Index size, double *total, const Team &team) {
    sum_blocks(batch, size, team, total, nullptr,
                  [=](Index, Index begin, Index end) { return dot_block(x + begin, y + begin, end - begin); });
}

// x += alpha p, r -= alpha q, total[row] = r . r
template <class T>
void descend(T *x, T *r, const T *p, const T *q, const double *alpha, Index batch, Index size, double *total,
             const Team &team) {
    sum_blocks(batch, size, team, total, nullptr, [=](Index row, Index begin, Index end) {
        return descend_block(x + begin, r + begin, p + begin, q + begin, T(alpha[row]), end - begin);
    });
}

// p = z + beta p
template <class T>
void redirect(T *p, const T *z, const double *beta, Index batch, Index size, const Team &team) {
    const Index blocks = (size + BLOCK - 1) / BLOCK;
    over_rows(batch * blocks, batch * size, team, [&](Index begin, Index end) {
        for (Index at = begin; at < end; ++at) {
            const Index row = at / blocks, start = row * size + at % blocks * BLOCK;
            const Index stop = std::min(start + BLOCK, (row + 1) * size);
            redirect_block(p + start, z + start, T(beta[row]), stop - start);
        }
    });
}
