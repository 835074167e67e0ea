// Sweeps of successive over-relaxation row by row of a sparse matrix, or of as many side by side as a vector holds.
#pragma once

#include "sparse.hpp"

// A number or a vector of them, one a system.
template <class V>
struct Side {
    using Number = V;
    static constexpr int COUNT = 1;
    static V &at(V &value, int) { return value; }
};

template <class T>
using Many = typename Lane<T, 64>::Type;

template <class T>
struct SideBySide {
    using Number = T;
    static constexpr int COUNT = int(Lane<T, 64>::WIDTH);
    static T &at(Many<T> &value, int side) { return reinterpret_cast<T *>(&value)[side]; }
};
template <>
struct Side<Many<float>> : SideBySide<float> {};
template <>
struct Side<Many<double>> : SideBySide<double> {};

// Sparse matrices whose rows hold first the entries relaxed before the row's unknown, then its own, at `middles`, then
// those relaxed after it. `systems` matrices share one pattern, `entries` apart, or (`apart`) have each their own.
template <class T>
struct Split {
    Index size, systems, entries, apart;
    const std::int32_t *starts, *middles, *columns;
    const std::int32_t *order;   // in which the unknowns are relaxed; null as they stand
    Index colours;               // those of one are relaxed at once
    const Index *bounds;
    const T *values, *inverse;
};

// One of them, or with M a vector as many as it holds.
template <class M, class V>
class SplitRows {
    using T = typename Side<V>::Number;
    const std::int32_t *starts, *middles, *columns, *order;
    Index colours;
    const Index *bounds;
    const M *values, *inverse;
    T omega;

public:
    using Vector = V;
    const Index size;

    SplitRows(const Split<T> &a, Index system, const M *values, const M *inverse, double omega)
        : starts(a.starts + a.apart * system * a.size), middles(a.middles + a.apart * system * a.size),
          columns(a.columns),
          order(a.order ? a.order + a.apart * system * a.size : nullptr), colours(a.colours),
          bounds(a.bounds + a.apart * system * (a.colours + 1)), values(values), inverse(inverse), omega(T(omega)),
          size(a.size) {}

    template <bool BACK>
    void sweep(T factor, const V *right, V *y, const Team &team) {
        for (Index step = 0; step < colours; ++step) {
            const Index colour = BACK ? colours - 1 - step : step;
            const Index from = bounds[colour], count = bounds[colour + 1] - from;
            over_rows(count, count * (starts[size] - starts[0]) / size, team, [&](Index begin, Index end) {
                for (Index k = begin; k < end; ++k) {
                    const Index place = BACK ? from + begin + end - 1 - k : from + k;
                    relax<BACK>(order ? order[place] : place, factor, right, y);
                }
            });
        }
    }

    void multiply(const V *x, V *y, const Team &team) {
        over(team, [=](Index i) { y[i] = product(i, x); });
    }
    void residual(const V *b, const V *x, V *r, const Team &team) {
        over(team, [=](Index i) { r[i] = b[i] - product(i, x); });
    }

private:
    template <bool BACK>
    void relax(Index i, T factor, const V *right, V *y) const {
        const M scale = omega * inverse[i];
        V value = factor ? factor * right[i] : scale * right[i];
        const std::int32_t last = BACK ? middles[i] : middles[i] - 1;
        if (BACK)
            for (std::int32_t k = starts[i + 1] - 1; k > last; --k) value -= (scale * values[k]) * y[columns[k]];
        else
            for (std::int32_t k = starts[i]; k <= last; ++k) value -= (scale * values[k]) * y[columns[k]];
        y[i] = value;
    }

    V product(Index i, const V *x) const {
        V even = {}, odd = {};
        std::int32_t k = starts[i];
        for (; k + 2 <= starts[i + 1]; k += 2) {
            even += values[k] * x[columns[k]];
            odd += values[k + 1] * x[columns[k + 1]];
        }
        if (k < starts[i + 1]) even += values[k] * x[columns[k]];
        return even + odd;
    }

    template <class F>
    void over(const Team &team, F body) const {
        over_rows(size, starts[size] - starts[0], team, [=](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) body(i);
        });
    }
};
