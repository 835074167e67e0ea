// Sums of products of complex coefficients, and products of real fields, as pseudo-spectral methods need them.
#pragma once

#include "rows.hpp"

// Complex numbers as pairs, in lines: of row r and line l at 2 (offset + r row + l line) after the operand's address,
// lines from `low` on further by `jump`. An operand -1 stands for 1.
struct Lines {
    Index operand, offset, row, line, jump;

    template <class T>
    T *at(T *const *operands, Index r, Index l, Index low) const {
        return operands[operand] + 2 * (offset + r * row + l * line + (l >= low ? jump : 0));
    }
};

struct FourierTerm {
    Lines factor, part;
};

struct FourierSum {
    Lines out;
    Index begin, end;   // of its terms
};

template <bool First, class T>
void multiply_line(T *__restrict out, const T *__restrict f, const T *__restrict x, Index length) {
    for (Index k = 0; k < length; ++k) {
        const T real = f[2 * k] * x[2 * k] - f[2 * k + 1] * x[2 * k + 1];
        const T imaginary = f[2 * k] * x[2 * k + 1] + f[2 * k + 1] * x[2 * k];
        out[2 * k] = First ? real : out[2 * k] + real;
        out[2 * k + 1] = First ? imaginary : out[2 * k + 1] + imaginary;
    }
}

template <bool First, class T>
void multiply_line(T *__restrict out, const T *__restrict f, const T *__restrict x, const T *__restrict g,
                   const T *__restrict y, Index length) {
    for (Index k = 0; k < length; ++k) {
        const T real = f[2 * k] * x[2 * k] - f[2 * k + 1] * x[2 * k + 1] + g[2 * k] * y[2 * k] - g[2 * k + 1] * y[2 * k + 1];
        const T imaginary =
            f[2 * k] * x[2 * k + 1] + f[2 * k + 1] * x[2 * k] + g[2 * k] * y[2 * k + 1] + g[2 * k + 1] * y[2 * k];
        out[2 * k] = First ? real : out[2 * k] + real;
        out[2 * k + 1] = First ? imaginary : out[2 * k + 1] + imaginary;
    }
}

template <bool First, class T>
void add_line(T *__restrict out, const T *__restrict x, Index length) {
    for (Index k = 0; k < 2 * length; ++k) out[k] = First ? x[k] : out[k] + x[k];
}

// Every sum: out = sum of factor * part. No operand but `out` itself overlaps out.
template <class T>
void combine(Index sums, const FourierSum *sum, const FourierTerm *term, T *const *operands, Index rows, Index lines,
             Index low, Index length, const Team &team) {
    over_rows(rows * lines, sums * rows * lines * length, team, [&](Index begin, Index end) {
        for (Index at = begin; at < end; ++at) {
            const Index r = at / lines, l = at % lines;
            for (Index s = 0; s < sums; ++s) {
                T *to = sum[s].out.at(operands, r, l, low);
                if (sum[s].begin == sum[s].end) std::fill(to, to + 2 * length, T(0));
                for (Index j = sum[s].begin; j < sum[s].end; ++j) {
                    const bool first = j == sum[s].begin;
                    const T *x = term[j].part.at(operands, r, l, low);
                    if (term[j].factor.operand < 0) {
                        first ? add_line<true>(to, x, length) : add_line<false>(to, x, length);
                        continue;
                    }
                    const T *f = term[j].factor.at(operands, r, l, low);
                    if (j + 1 < sum[s].end && term[j + 1].factor.operand >= 0) {
                        ++j;
                        const T *g = term[j].factor.at(operands, r, l, low), *y = term[j].part.at(operands, r, l, low);
                        first ? multiply_line<true>(to, f, x, g, y, length)
                              : multiply_line<false>(to, f, x, g, y, length);
                    } else {
                        first ? multiply_line<true>(to, f, x, length) : multiply_line<false>(to, f, x, length);
                    }
                }
            }
        }
    });
}

constexpr Index MAX_DEGREE = 4;

// A term number * product of `degree` fields, added to a result unless it is the first there.
struct Monomial {
    double number;
    Index result, first, degree, fields[MAX_DEGREE];
};

template <bool First, class T>
void multiply_line(T *__restrict to, const T *__restrict a, const T *__restrict b, T number, Index length) {
    for (Index k = 0; k < length; ++k) to[k] = (First ? T(0) : to[k]) + number * (a[k] * b[k]);
}

// Every result: sum of monomials in the values. Of each line the fields stand one after another.
template <class T>
void multiply_fields(const T *values, Index inputs, T *results, Index outputs, Index lines, Index length, Index count,
                     const Monomial *monomials, const Team &team) {
    over_rows(lines, lines * length * count, team, [&](Index begin, Index end) {
        std::vector<T> scratch(length);
        for (Index l = begin; l < end; ++l) {
            const T *from = values + l * inputs * length;
            for (Index j = 0; j < count; ++j) {
                const Monomial &m = monomials[j];
                const T *left = from + m.fields[0] * length;
                for (Index d = 1; d + 1 < m.degree; ++d) {
                    const T *next = from + m.fields[d] * length;
                    for (Index k = 0; k < length; ++k) scratch[k] = left[k] * next[k];
                    left = scratch.data();
                }
                T *to = results + (l * outputs + m.result) * length;
                const T *right = from + m.fields[m.degree - 1] * length;
                m.first ? multiply_line<true>(to, left, right, T(m.number), length)
                        : multiply_line<false>(to, left, right, T(m.number), length);
            }
        }
    });
}
