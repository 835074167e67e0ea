// The multigrid cycle on networks of conductances.
#pragma once

#include <cmath>
#include <cstring>

#include "vectors.hpp"

// A number kept in the upper half of a float: conductances rounded so are conductances still.
struct Short {
    std::uint16_t bits;
};

constexpr Index WIDE = 16;
typedef float Floats __attribute__((vector_size(64)));

inline Floats wide(const float *from) {
    Floats value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline Floats wide(const Short *from) {
    typedef std::uint16_t Halves __attribute__((vector_size(32)));
    typedef std::uint32_t Bits __attribute__((vector_size(64)));
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    const Bits bits = __builtin_convertvector(halves, Bits) << 16;
    Floats value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void put(float *to, Floats value) { std::memcpy(to, &value, sizeof value); }

inline float widen(Short x) {
    const std::uint32_t bits = std::uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Towards zero: an inverse of a diagonal must not be too large.
inline void narrow(float x, Short &to) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to.bits = std::uint16_t(bits >> 16);
}

// To the nearest: as good for conductances.
inline void nearest(float x, Short &to) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to.bits = std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A level: edges[a][k] leads from cell k to the next along a, 0 where there is none; `ground` is all that leads to zero.
// All fields have zeros before and behind them as far as neighbours are read, and begin at multiples of WIDE numbers.
struct Pairs {
    Index axis;
    const Short *own_first, *own_second, *outward_first, *outward_second;
};

struct NetworkLevel {
    Index n[3], transfers, sweeps;
    const double *weights;
    Short *edges[3], *ground, *inverse;
    Pairs transfer[3];
    float *b, *x, *spare, *half, *quarter;
};

struct NetworkCycle {
    const NetworkLevel *levels;
    Index depth;
    double correction, unit;
    const float *inverse;
    Index coarse_size;
    float *b, *x;
};

// The coefficients of a level from its faces, in their own rounding; `diagonal`, where not null, is that of cells that
// are cut off.
inline void lay_out(const NetworkLevel &level, const float *const *faces, const float *ground, const float *diagonal,
             const Team &team) {
    const Index *n = level.n, size = n[0] * n[1] * n[2];
    const Index strides[3] = {n[1] * n[2], n[2], 1};
    over_rows(n[0] * n[1], size * 8, team, [&](Index begin, Index end) {
        std::vector<float> zero(n[2]);
        for (Index row = begin; row < end; ++row) {
            const Index i = row / n[1], j = row % n[1], from = row * n[2];
            const Index place[2] = {i, j};
            std::copy(ground + from, ground + from + n[2], zero.begin());
            for (int a = 0; a < 3; ++a) {
                if (!faces[a]) continue;
                const float *face = faces[a] + (a == 0 ? from : a == 1 ? (i * (n[1] + 1) + j) * n[2] : row * (n[2] + 1));
                Short *const edge = level.edges[a] + from;
                for (Index k = 0; k < n[2]; ++k) nearest(face[strides[a] + k], edge[k]);
                if (a == 2) {
                    zero[0] += face[0], zero[n[2] - 1] += face[n[2]];
                    nearest(0.0f, edge[n[2] - 1]);
                    continue;
                }
                if (place[a] == 0)
                    for (Index k = 0; k < n[2]; ++k) zero[k] += face[k];
                if (place[a] == n[a] - 1)
                    for (Index k = 0; k < n[2]; ++k) {
                        zero[k] += face[strides[a] + k];
                        nearest(0.0f, edge[k]);
                    }
            }
            for (Index k = 0; k < n[2]; ++k) nearest(zero[k], level.ground[from + k]);
        }
    });
    over_rows(n[0] * n[1], size * 4, team, [&](Index begin, Index end) {
        for (Index at = begin * n[2]; at < end * n[2]; ++at) {
            float total = 0;
            for (int a = 0; a < 3; ++a)
                if (level.edges[a]) total += widen(level.edges[a][at]) + widen(level.edges[a][at - strides[a]]);
            const bool cut_off = !(total > 0);
            total += widen(level.ground[at]);
            if (diagonal && cut_off) total = diagonal[at];
            narrow(total > 1e-30f ? 1.0f / total : 0.0f, level.inverse[at]);
        }
    });
}

// finish(k, what flows into the cells k .. k + WIDE - 1, x there) for all of a level.
template <class F>
void over_flows(const NetworkLevel &level, const float *x, const Team &team, F finish) {
    const Index *n = level.n, size = n[0] * n[1] * n[2], blocks = (size + WIDE - 1) / WIDE;
    const Index strides[3] = {n[1] * n[2], n[2], 1};
    const Short *edges[3];
    Index stride[3];
    int axes = 0;
    for (int a = 0; a < 3; ++a)
        if (level.edges[a]) edges[axes] = level.edges[a], stride[axes++] = strides[a];
    const auto run = [&](auto count) {
        over_rows(blocks, size * 3, team, [&](Index begin, Index end) {
            for (Index k = begin * WIDE; k < end * WIDE; k += WIDE) {
                const Floats here = wide(x + k);
                Floats flow = -(wide(level.ground + k) * here);
#pragma GCC unroll 3
                for (int a = 0; a < decltype(count)::value; ++a) {
                    const Index s = stride[a];
                    flow += wide(edges[a] + k) * (wide(x + k + s) - here);
                    flow += wide(edges[a] + k - s) * (wide(x + k - s) - here);
                }
                finish(k, flow, here);
            }
        });
    };
    if (axes == 3) run(std::integral_constant<int, 3>{});
    else if (axes == 2) run(std::integral_constant<int, 2>{});
    else run(std::integral_constant<int, 1>{});
}

// coarse = P^T fine along the axis of a transfer, for fine fields of shape n.
inline void restrict_pairs(const Pairs &p, const Index *n, const float *fine, float *coarse, const Team &team) {
    const Index outer = p.axis == 0 ? 1 : p.axis == 1 ? n[0] : n[0] * n[1], cells = n[p.axis], pairs = (cells + 1) / 2;
    const Index inner = p.axis == 0 ? n[1] * n[2] : p.axis == 1 ? n[2] : 1;
    if (inner > 1) {
        over_rows(outer * pairs, outer * pairs * inner * 2, team, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) {
                const Index o = row / pairs, j = row % pairs, at = row * inner;
                const float *f = fine + (o * cells + 2 * j) * inner;
                const Short *a = p.own_first + at, *b = p.own_second + at, *l = p.outward_second + at - inner,
                        *h = p.outward_first + at + inner;
                const bool mate = 2 * j + 1 < cells, low = j > 0, high = j + 1 < pairs;
                float *to = coarse + at;
                for (Index k = 0; k < inner; ++k) to[k] = widen(a[k]) * f[k];
                if (mate)
                    for (Index k = 0; k < inner; ++k) to[k] += widen(b[k]) * f[k + inner];
                if (low)
                    for (Index k = 0; k < inner; ++k) to[k] += widen(l[k]) * f[k - inner];
                if (high)
                    for (Index k = 0; k < inner; ++k) to[k] += widen(h[k]) * f[k + 2 * inner];
            }
        });
        return;
    }
    over_rows(outer, outer * cells, team, [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
            const Index at = row * pairs, whole = cells / 2;
            const float *f = fine + row * cells;
            float *to = coarse + at;
            for (Index j = 0; j < whole; ++j)
                to[j] = widen(p.own_first[at + j]) * f[2 * j] + widen(p.own_second[at + j]) * f[2 * j + 1];
            if (whole < pairs) to[whole] = widen(p.own_first[at + whole]) * f[2 * whole];
            for (Index j = 1; j < pairs; ++j) to[j] += widen(p.outward_second[at + j - 1]) * f[2 * j - 1];
            for (Index j = 0; j + 1 < pairs; ++j) to[j] += widen(p.outward_first[at + j + 1]) * f[2 * j + 2];
        }
    });
}

// fine = P coarse, or fine += factor P coarse.
template <bool ADD>
void prolong_pairs(const Pairs &p, const Index *n, const float *coarse, float *fine, float factor, const Team &team) {
    const Index outer = p.axis == 0 ? 1 : p.axis == 1 ? n[0] : n[0] * n[1], cells = n[p.axis], pairs = (cells + 1) / 2;
    const Index inner = p.axis == 0 ? n[1] * n[2] : p.axis == 1 ? n[2] : 1;
    const auto give = [factor](float &to, float value) {
        if constexpr (ADD) to += factor * value;
        else to = value;
    };
    if (inner > 1) {
        over_rows(outer * cells, outer * cells * inner, team, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) {
                const Index o = row / cells, cell = row % cells, j = cell / 2, at = (o * pairs + j) * inner;
                const bool second = cell % 2, beside = second ? j + 1 < pairs : j > 0;
                const Short *own = (second ? p.own_second : p.own_first) + at,
                        *outward = (second ? p.outward_second : p.outward_first) + at;
                const float *c = coarse + at, *d = c + (second ? inner : -inner);
                float *to = fine + row * inner;
                if (beside)
                    for (Index k = 0; k < inner; ++k) give(to[k], widen(own[k]) * c[k] + widen(outward[k]) * d[k]);
                else
                    for (Index k = 0; k < inner; ++k) give(to[k], widen(own[k]) * c[k]);
            }
        });
        return;
    }
    over_rows(outer, outer * cells, team, [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
            const Index at = row * pairs;
            const float *c = coarse + at;
            float *to = fine + row * cells;
            const auto one = [&](Index cell) {
                const Index j = cell / 2;
                const bool second = cell % 2;
                float value = widen((second ? p.own_second : p.own_first)[at + j]) * c[j];
                if (second ? j + 1 < pairs : j > 0)
                    value += widen((second ? p.outward_second : p.outward_first)[at + j]) * c[second ? j + 1 : j - 1];
                give(to[cell], value);
            };
            one(0);
            if (cells > 1) one(1);
            for (Index j = 1; j + 1 < pairs; ++j) {
                give(to[2 * j], widen(p.own_first[at + j]) * c[j] + widen(p.outward_first[at + j]) * c[j - 1]);
                give(to[2 * j + 1], widen(p.own_second[at + j]) * c[j] + widen(p.outward_second[at + j]) * c[j + 1]);
            }
            for (Index cell = std::max(Index(2), 2 * (pairs - 1)); cell < cells; ++cell) one(cell);
        }
    });
}

// One cycle on the right side `b` of a level, into its `x`.
inline void visit_network(const NetworkCycle &h, Index depth, const Team &team) {
    if (depth == h.depth) {
        const Index m = h.coarse_size;
        over_rows(m, m * m, team, [&](Index begin, Index end) {
            for (Index row = begin; row < end; ++row) h.x[row] = float(dot_block(h.inverse + row * m, h.b, m));
        });
        return;
    }
    const NetworkLevel &level = h.levels[depth];
    const Index size = level.n[0] * level.n[1] * level.n[2];
    if (team.count > 1 && size * 2 <= SHARED) {
        if (team.me == 0) visit_network(h, depth, Team{});
        return team.wait();
    }
    float *x = level.spare, *spare = level.x;   // which exchange places an odd number of times
    const float *b = level.b;
    const Short *inverse = level.inverse;
    const auto relax = [&](double weight) {
        const float w = float(weight);
        float *to = spare;
        over_flows(level, x, team, [=](Index k, Floats flow, Floats here) {
            put(to + k, here + w * wide(inverse + k) * (wide(b + k) + flow));
        });
        std::swap(x, spare);
    };
    const float start = float(level.weights[0]);
    over_rows((size + WIDE - 1) / WIDE, size, team, [=](Index begin, Index end) {
        for (Index k = begin * WIDE; k < end * WIDE; k += WIDE) put(x + k, start * wide(inverse + k) * wide(b + k));
    });
    for (Index s = 1; s < level.sweeps; ++s) relax(level.weights[s]);
    over_flows(level, x, team, [=](Index k, Floats flow, Floats) { put(spare + k, wide(b + k) + flow); });
    Index shapes[4][3];
    std::copy(level.n, level.n + 3, shapes[0]);
    const float *from = spare;
    for (Index t = 0; t < level.transfers; ++t) {
        const Index axis = level.transfer[t].axis;
        std::copy(shapes[t], shapes[t] + 3, shapes[t + 1]);
        shapes[t + 1][axis] = (shapes[t][axis] + 1) / 2;
        const bool last = t + 1 == level.transfers;
        float *to = last ? (depth + 1 < h.depth ? h.levels[depth + 1].b : h.b) : t == 0 ? level.half : level.quarter;
        restrict_pairs(level.transfer[t], shapes[t], from, to, team);
        from = to;
    }
    visit_network(h, depth + 1, team);
    from = depth + 1 < h.depth ? h.levels[depth + 1].x : h.x;
    for (Index t = level.transfers - 1; t >= 0; --t) {
        if (t == 0) {
            prolong_pairs<true>(level.transfer[0], shapes[0], from, x, float(h.correction), team);
            break;
        }
        float *to = t == 1 ? level.half : level.quarter;
        prolong_pairs<false>(level.transfer[t], shapes[t], from, to, 1.0f, team);
        from = to;
    }
    for (Index s = level.sweeps - 1; s >= 0; --s) relax(level.weights[s]);
}

// z = B r for one field, and r . z. The cycle runs on r / |r|, which keeps short floats clear of overflow and underflow.
template <class S>
double cycle_network(const NetworkCycle &h, const S *r, S *z, Index size, int threads) {
    std::vector<double> partial((size + BLOCK - 1) / BLOCK);
    double result = 0;
    const auto work = [&](const Team &team) {
        double *shared = team.barrier ? partial.data() : nullptr, norm, product;
        sum_blocks(1, size, team, &norm, shared,
                   [=](Index, Index begin, Index end) { return dot_block(r + begin, r + begin, end - begin); });
        norm = norm > 0 ? std::sqrt(norm) : 1.0;
        const double reciprocal = 1.0 / norm;
        rescale(r, &reciprocal, h.depth ? h.levels[0].b : h.b, 1, size, team);
        visit_network(h, 0, team);
        const float *y = h.depth ? h.levels[0].x : h.x;
        const S factor = S(norm / h.unit);
        sum_blocks(1, size, team, &product, shared, [=](Index, Index begin, Index end) {
            for (Index k = begin; k < end; ++k) z[k] = factor * S(y[k]);
            return dot_block(r + begin, z + begin, end - begin);
        });
        if (team.me == 0) result = product;
    };
    if (threads == 1 || size <= SHARED) {
        work(Team{});
        return result;
    }
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    work(Team{omp_get_num_threads(), omp_get_thread_num(), &barrier});
    return result;
}
