// Sweeps of successive over-relaxation line by line of a stencil, in natural order or colour after colour.
#pragma once

#include "stencil.hpp"

// A stencil to relax, `inverse_diagonal` a field; the colour of the unknown at i is weights . i modulo the period,
// which is 0 for natural order.
template <class T>
struct Relaxed {
    Stencil<T> a;
    Index period, weights[3];
};

// What both orders share; `a.first` is the system.
template <class T>
class LinesOfStencil {
protected:
    Stencil<T> a;
    Index lines, width, row;
    T omega;
    Edges edges;

    // The terms of a line that count, as rows that begin where the line reads them.
    struct Part {
        Terms<T> terms;
        const T *x[MAX_TERMS], *c[MAX_TERMS];
        Index step[MAX_TERMS];
        int term[MAX_TERMS], count = 0;

        void add(const T *from, const T *coefficient, Index along, int t) {
            if (along)
                terms.vector_x[terms.vectors] = from, terms.vector_c[terms.vectors++] = coefficient;
            else
                terms.x[terms.scalars] = from, terms.c[terms.scalars++] = *coefficient;
            x[count] = from, c[count] = coefficient, step[count] = along, term[count++] = t;
        }
    };

    LinesOfStencil(const Stencil<T> &a, double omega)
        : a(a), lines(a.n[0] * a.n[1]), width(a.n[2]), row(a.first % a.batch), omega(T(omega)),
          edges(edges_of(a.n[2], a.periodic[2], int(a.terms), a.offsets)), size(lines * width) {}

    const T *inverse(Index number) const { return a.inverse_diagonal + row * a.diagonal_batch + number * width; }

    // visit(term, the line that it leads to, its coefficients) for the terms of a line.
    template <class F>
    void over_terms(Index number, F visit) const {
        const Index i = number / a.n[1], j = number % a.n[1];
        for (int t = 0; t < a.terms; ++t) {
            const Index *offset = a.offsets + 3 * t, *s = a.strides + 4 * t;
            const Index ii = neighbour(i + offset[0], a.n[0], a.periodic[0]);
            const Index jj = neighbour(j + offset[1], a.n[1], a.periodic[1]);
            if (ii >= 0 && jj >= 0) visit(t, ii * a.n[1] + jj, a.c[t] + row * s[0] + i * s[1] + j * s[2]);
        }
    }

    void add(Part &part, int t, Index other, const T *c, const T *y) const {
        part.add(y + other * width + a.offsets[3 * t + 2], c, a.strides[4 * t + 3], t);
    }

    void sum(const Part &part, T *sums) const {
        accumulate(sums, part.terms, edges.low, edges.high);
        for (std::size_t edge = 0; edge < edges.points.size(); ++edge) {
            const Index k = edges.points[edge];
            T total = 0;
            for (int t = 0; t < part.count; ++t) {
                const Index from = edges.source[edge * a.terms + part.term[t]];
                if (from != ABSENT) total += part.c[t][part.step[t] ? k : 0] * part.x[t][from];
            }
            sums[k] = total;
        }
    }

public:
    using Vector = T;
    const Index size;

    void multiply(const T *x, T *y, const Team &team) {
        stencil(a, APPLY, x, size, x, size, 0.0, y, 1, nullptr, team);
    }
    void residual(const T *b, const T *x, T *r, const Team &team) {
        stencil(a, RESIDUAL, x, size, b, size, 0.0, r, 1, nullptr, team);
    }
};

// Natural order, one line after the other.
template <class T>
class NaturalLines : public LinesOfStencil<T> {
    using Base = LinesOfStencil<T>;
    using typename Base::Part;
    using Base::a, Base::lines, Base::width, Base::omega, Base::edges;
    std::vector<T> before, weight, spare;

    // An entry within the line.
    struct Link {
        const T *c;
        Index step, offset;
    };

public:
    NaturalLines(const Stencil<T> &a, double omega)
        : Base(a, omega), before(a.n[2]), weight(a.n[2]), spare(a.n[2]) {}

    // Solves with D / omega and the half of the entries that a sweep knows; with a factor, what is solved for is
    // factor D / omega y instead.
    template <bool BACK>
    void sweep(T factor, const T *right, T *y, const Team &) {
        for (Index step = 0; step < lines; ++step) line<BACK>(BACK ? lines - 1 - step : step, factor, right, y);
    }

private:
    template <bool BACK>
    void line(Index number, T factor, const T *right, T *y) {
        Part known;
        Link links[MAX_TERMS];
        int within = 0;
        this->over_terms(number, [&](int t, Index other, const T *c) {
            const Index along = a.offsets[3 * t + 2];
            if (other != number) {
                if ((other > number) == BACK) this->add(known, t, other, c, y);
            } else if (along) {
                links[within++] = {c, a.strides[4 * t + 3], along};
            }
        });
        const T *inverse = this->inverse(number), *source = right + number * width;
        T *gained = before.data(), *scale = weight.data(), *sums = spare.data();
        for (Index k = 0; k < width; ++k) scale[k] = omega * inverse[k];
        if (factor)
            for (Index k = 0; k < width; ++k) gained[k] = factor * source[k];
        else
            for (Index k = 0; k < width; ++k) gained[k] = scale[k] * source[k];
        if (known.count) {
            this->sum(known, sums);
            for (Index k = 0; k < width; ++k) gained[k] -= scale[k] * sums[k];
        }
        couple<BACK>(links, within, y + number * width);
    }

    // What is left to solve for within a line, unknown after unknown.
    template <bool BACK>
    void couple(const Link *links, int within, T *y) {
        const T *gained = before.data(), *scale = weight.data();
        Link known[MAX_TERMS];
        int count = 0;
        for (int t = 0; t < within; ++t)
            if ((links[t].offset > 0) == BACK) known[count++] = links[t];
        const auto edge = [&](Index k) {
            T value = gained[k];
            for (int t = 0; t < within; ++t) {
                const Index from = neighbour(k + links[t].offset, width, a.periodic[2]);
                if (from >= 0 && from != k && (from > k) == BACK)
                    value -= scale[k] * links[t].c[links[t].step * k] * y[from];
            }
            y[k] = value;
        };
        constexpr Index NEXT = BACK ? 1 : -1;
        const Index low = edges.low, high = edges.high;
        if (BACK)
            for (Index k = width - 1; k >= high; --k) edge(k);
        else
            for (Index k = 0; k < low; ++k) edge(k);
        if (count == 1 && known[0].offset == NEXT && low < high) {
            const T *c = known[0].c;
            T *factor = spare.data();
            if (known[0].step)
                for (Index k = low; k < high; ++k) factor[k] = scale[k] * c[k];
            else
                for (Index k = low; k < high; ++k) factor[k] = scale[k] * *c;
            T last = y[BACK ? high : low - 1];
            if (BACK)
                for (Index k = high - 1; k >= low; --k) y[k] = last = gained[k] - factor[k] * last;
            else
                for (Index k = low; k < high; ++k) y[k] = last = gained[k] - factor[k] * last;
        } else {
            for (Index step = low; step < high; ++step) {
                const Index k = BACK ? low + high - 1 - step : step;
                T value = gained[k];
                for (int t = 0; t < count; ++t)
                    value -= scale[k] * known[t].c[known[t].step * k] * y[k + known[t].offset];
                y[k] = value;
            }
        }
        if (BACK)
            for (Index k = low - 1; k >= 0; --k) edge(k);
        else
            for (Index k = high; k < width; ++k) edge(k);
    }
};

// Colour after colour, a whole line of sums at once, of which those of the colour are used. Unknowns that a sweep has
// not come to are 0, so that it need not tell them from others.
template <class T>
class ColouredLines : public LinesOfStencil<T> {
    using Base = LinesOfStencil<T>;
    using typename Base::Part;
    using Base::a, Base::lines, Base::width, Base::omega;
    Index period, weights[3];
    std::vector<T> ahead, spare;   // 1 where an unknown is ahead of its line by a number of colours, line after line

public:
    using Base::size;

    ColouredLines(const Relaxed<T> &relaxed, double omega)
        : Base(relaxed.a, omega), period(relaxed.period),
          weights{relaxed.weights[0], relaxed.weights[1], relaxed.weights[2]}, ahead(relaxed.period * relaxed.a.n[2]) {
        for (Index k = 0; k < width; ++k) ahead[weights[2] * k % period * width + k] = 1;
    }

    template <bool BACK>
    void sweep(T factor, const T *right, T *y, const Team &team) {
        if (right == y) {
            spare.assign(y, y + size);
            right = spare.data();
        }
        std::fill(y, y + size, T(0));
        for (Index step = 0; step < period; ++step) {
            const Index colour = BACK ? period - 1 - step : step;
            over_rows(lines, size * a.terms, team, [&](Index begin, Index end) {
                std::vector<T> sums(width);
                for (Index number = begin; number < end; ++number) {
                    const Index own = (weights[0] * (number / a.n[1]) + weights[1] * (number % a.n[1])) % period;
                    const Index shift = (colour - own + period) % period;
                    if (weights[2] || !shift)
                        line(number, step > 0, ahead.data() + shift * width, factor, right, y, sums.data());
                }
            });
        }
    }

private:
    void line(Index number, bool coupled, const T *mask, T factor, const T *right, T *y, T *__restrict sums) const {
        if (coupled) {
            Part others;
            this->over_terms(number, [&](int t, Index other, const T *c) {
                const Index along = a.offsets[3 * t + 2];
                const bool itself = other == number && (along == 0 || (a.periodic[2] && along % width == 0));
                if (!itself) this->add(others, t, other, c, y);
            });
            this->sum(others, sums);
        }
        const T *source = right + number * width, *inverse = this->inverse(number);
        T *to = y + number * width;
#pragma omp simd
        for (Index k = 0; k < width; ++k) {
            const T weight = omega * inverse[k];
            const T value = (factor ? factor : weight) * source[k] - weight * sums[k];
            to[k] = mask[k] != 0 ? value : to[k];
        }
    }
};
