// Pseudo-spectral methods: sums of products of Fourier coefficients, and the products of real fields between the
// transforms, which are MKL's and are handed in.
#pragma once

#include <cstring>

#include "rows.hpp"

// Complex numbers as pairs, in lines: of row r and line l at offset + r row + l line after the operand's address, lines
// from `low` on further by `jump`. The rows of a buffer count from the first of the group at work.
struct Lines {
    Index operand, offset, row, line, jump, buffer;

    // In entries of `width` numbers.
    template <class T>
    T *at(T *const *operands, Index r, Index start, Index l, Index low, Index width = 2) const {
        return operands[operand] + width * (offset + (buffer ? r - start : r) * row + l * line + (l >= low ? jump : 0));
    }
};

enum Kind : Index { ONE, REAL, IMAGINARY, COMPLEX };   // a factor of kind REAL or IMAGINARY is one number, not a pair

struct FourierTerm {
    Lines factor, part;
    Index kind;
};

struct FourierSum {
    Lines out;
    Index begin, end;   // of its terms
};

template <bool First, class T>
void add_term(T *__restrict out, const T *__restrict f, const T *__restrict x, Index kind, Index length) {
    if (kind == ONE) {
        for (Index k = 0; k < 2 * length; ++k) out[k] = (First ? T(0) : out[k]) + x[k];
    } else if (kind == REAL) {
        for (Index k = 0; k < length; ++k) {
            out[2 * k] = (First ? T(0) : out[2 * k]) + f[k] * x[2 * k];
            out[2 * k + 1] = (First ? T(0) : out[2 * k + 1]) + f[k] * x[2 * k + 1];
        }
    } else if (kind == IMAGINARY) {
        for (Index k = 0; k < length; ++k) {
            const T real = f[k] * x[2 * k + 1], imaginary = f[k] * x[2 * k];
            out[2 * k] = (First ? T(0) : out[2 * k]) - real;
            out[2 * k + 1] = (First ? T(0) : out[2 * k + 1]) + imaginary;
        }
    } else {
        for (Index k = 0; k < length; ++k) {
            const T real = f[2 * k] * x[2 * k] - f[2 * k + 1] * x[2 * k + 1];
            const T imaginary = f[2 * k] * x[2 * k + 1] + f[2 * k + 1] * x[2 * k];
            out[2 * k] = (First ? T(0) : out[2 * k]) + real;
            out[2 * k + 1] = (First ? T(0) : out[2 * k + 1]) + imaginary;
        }
    }
}

// Every sum in rows [start, stop), the first of the group at work: out = sum of factor * part, where no part overlaps out.
template <class T>
void combine(Index sums, const FourierSum *sum, const FourierTerm *term, T *const *operands, Index start, Index stop,
             Index lines, Index low, Index length) {
    for (Index r = start; r < stop; ++r)
        for (Index l = 0; l < lines; ++l)
            for (Index s = 0; s < sums; ++s) {
                T *to = sum[s].out.at(operands, r, start, l, low);
                if (sum[s].begin == sum[s].end) std::fill(to, to + 2 * length, T(0));
                for (Index j = sum[s].begin; j < sum[s].end; ++j) {
                    const FourierTerm &t = term[j];
                    const T *x = t.part.at(operands, r, start, l, low);
                    const T *f = t.kind == ONE ? nullptr
                                               : t.factor.at(operands, r, start, l, low, t.kind == COMPLEX ? 2 : 1);
                    j == sum[s].begin ? add_term<true>(to, f, x, t.kind, length)
                                      : add_term<false>(to, f, x, t.kind, length);
                }
            }
}

constexpr Index MAX_DEGREE = 4;

// A term number * product of `degree` fields, added to a result unless it is the first there.
struct Monomial {
    double number;
    Index result, first, degree, fields[MAX_DEGREE];
};

template <bool First, class T>
void add_product(T *__restrict to, const T *__restrict a, const T *__restrict b, T number, Index length) {
    for (Index k = 0; k < length; ++k) to[k] = (First ? T(0) : to[k]) + number * (a[k] * b[k]);
}

// Every result: sum of monomials in the values. Of each line the fields stand one after another.
template <class T>
void multiply_fields(const T *values, Index inputs, T *results, Index outputs, Index lines, Index length, Index count,
                     const Monomial *monomials, T *scratch) {
    for (Index l = 0; l < lines; ++l) {
        const T *from = values + l * inputs * length;
        for (Index j = 0; j < count; ++j) {
            const Monomial &m = monomials[j];
            const T *left = from + m.fields[0] * length, *right = from + m.fields[m.degree - 1] * length;
            for (Index d = 1; d + 1 < m.degree; ++d) {
                const T *next = from + m.fields[d] * length;
                for (Index k = 0; k < length; ++k) scratch[k] = left[k] * next[k];
                left = scratch;
            }
            T *to = results + (l * outputs + m.result) * length;
            m.first ? add_product<true>(to, left, right, T(m.number), length)
                    : add_product<false>(to, left, right, T(m.number), length);
        }
    }
}

typedef long (*Transform)(void *plan, void *data, ...);

// The nonlinear part of a rate: coefficients -> fields on the grid -> products -> coefficients. A group of rows at a time
// goes through all of it, and so does a chunk of lines of the grid between the transforms along the lines.
struct Evaluation {
    Index planes;                                  // whether the grid has two axes
    Index lines, low, kept;                        // of the coefficients, and the length of a line
    Index fine, length;                            // lines of the finer grid, and their length
    Index inputs, outputs, sums, count;            // fields, products, sums in `gather`, monomials
    Index group, chunk;
    const FourierSum *spread, *gather;
    const FourierTerm *spread_terms, *gather_terms;
    const Monomial *monomials;
    Transform ahead, back;
    void *columns_back, *columns_ahead;            // plans: of all columns of a field, in place
    void *lines_back, *lines_ahead, *line_back, *line_ahead;   // of a chunk of lines, of one line
    void *padded, *cut, *spectra, *values, *results, *transformed, *scratch;
};

// Rows [from, to), in the buffers of one thread.
template <class T>
void evaluate_rows(const Evaluation &e, T *const *operands, Index from, Index to, int phases) {
    const Index half = e.length / 2 + 1, image = 2 * e.fine * e.kept, bytes = 2 * e.kept * Index(sizeof(T));
    T *padded = static_cast<T *>(e.padded), *cut = static_cast<T *>(e.cut);
    T *spectra = static_cast<T *>(e.spectra), *transformed = static_cast<T *>(e.transformed);
    T *values = static_cast<T *>(e.values), *results = static_cast<T *>(e.results);
    for (Index start = from; start < to; start += e.group) {
        const Index stop = std::min(start + e.group, to), lines = (stop - start) * e.fine;
        if (phases & 1 && e.inputs) {
            combine(e.inputs, e.spread, e.spread_terms, operands, start, stop, e.lines, e.low, e.kept);
            if (e.planes)
                for (Index i = 0; i < (stop - start) * e.inputs; ++i) {
                    if (e.fine > e.lines)
                        std::fill_n(padded + i * image + 2 * e.low * e.kept, 2 * (e.fine - e.lines) * e.kept, T(0));
                    e.back(e.columns_back, padded + i * image);
                }
        }
        for (Index begin = 0; begin < lines; begin += e.chunk) {
            const Index end = std::min(begin + e.chunk, lines);
            if (phases & 1 && e.inputs) {
                if (e.planes)
                    for (Index l = begin; l < end; ++l)
                        for (Index i = 0; i < e.inputs; ++i)
                            std::memcpy(spectra + 2 * ((l - begin) * e.inputs + i) * half,
                                        padded + (l / e.fine * e.inputs + i) * image + 2 * (l % e.fine) * e.kept, bytes);
                if (end - begin == e.chunk)
                    e.back(e.lines_back, spectra, values);
                else
                    for (Index l = 0; l < end - begin; ++l)
                        e.back(e.line_back, spectra + 2 * l * e.inputs * half, values + l * e.inputs * e.length);
            }
            if (e.count)
                multiply_fields(values, e.inputs, results, e.outputs, end - begin, e.length, e.count, e.monomials,
                                static_cast<T *>(e.scratch));
            if (phases & 2 && e.outputs) {
                if (end - begin == e.chunk)
                    e.ahead(e.lines_ahead, results, transformed);
                else
                    for (Index l = 0; l < end - begin; ++l)
                        e.ahead(e.line_ahead, results + l * e.outputs * e.length,
                                transformed + 2 * l * e.outputs * half);
                if (e.planes)
                    for (Index l = begin; l < end; ++l)
                        for (Index i = 0; i < e.outputs; ++i)
                            std::memcpy(cut + (l / e.fine * e.outputs + i) * image + 2 * (l % e.fine) * e.kept,
                                        transformed + 2 * ((l - begin) * e.outputs + i) * half, bytes);
            }
        }
        if (phases & 2) {
            if (e.planes)
                for (Index i = 0; i < (stop - start) * e.outputs; ++i) e.ahead(e.columns_ahead, cut + i * image);
            combine(e.sums, e.gather, e.gather_terms, operands, start, stop, e.lines, e.low, e.kept);
        }
    }
}

// The operands that are buffers.
constexpr Index PADDED = 2, CUT = 3;

// phases: 1 up to the fields on the grid, 2 from the products on, 3 all. Of `each` there is one for every thread, apart
// from its buffers the same.
template <class T>
void evaluate(const Evaluation *each, Index count, T *const *operands, Index rows, int phases, const Team &team) {
    const Index groups = (rows + each->group - 1) / each->group;
    const Index cost = rows * each->fine * each->length * (each->inputs + each->outputs + 1);
    over_rows(groups, groups > 1 ? cost : 0, team, [&](Index begin, Index end) {
        if (begin == end) return;
        const Evaluation &e = each[omp_get_thread_num()];
        std::vector<T *> own(operands, operands + count);
        own[PADDED] = static_cast<T *>(e.padded);
        own[CUT] = static_cast<T *>(e.cut);
        evaluate_rows(e, own.data(), begin * e.group, std::min(end * e.group, rows), phases);
    });
}

// c(k) = (c(k) + conj(c(-k))) / 2 in one column of fields of `lines` x `length` coefficients, lines being k = 0, 1, ...,
// -1.
template <class T>
void symmetrize(T *c, Index fields, Index lines, Index length, Index column) {
    for (Index f = 0; f < fields; ++f) {
        T *at = c + 2 * (f * lines * length + column);
        for (Index l = 0; 2 * l <= lines; ++l) {
            T *one = at + 2 * l * length, *other = at + 2 * ((lines - l) % lines) * length;
            const T real = (one[0] + other[0]) / 2, imaginary = (one[1] - other[1]) / 2;
            one[0] = other[0] = real;
            other[1] = -imaginary;
            one[1] = imaginary;
        }
    }
}
