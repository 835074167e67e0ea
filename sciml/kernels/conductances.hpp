// Networks of conductances: how they are read from stencils, and how pairs of cells become those of a coarser grid.
#pragma once

#include <cmath>
#include <cstring>

#include "rows.hpp"

// A symmetric stencil by the terms on the diagonal, axis -1, and those that lead to the next cell along an axis; the
// coefficient of term t at (i, j, k) is c[t][i s0 + j s1 + k s2], its strides s in `strides`.
template <class S>
struct Couplings {
    Index n[3], terms;
    const Index *axis, *strides;
    const S *const *c;
};

// Shares of the diagonal below which a row sum is taken for rounding; what counts as nothing beside the mean diagonal.
template <class S>
constexpr double ROUNDING = sizeof(S) == 4 ? 16 * 1.1920929e-7 : 1e-12;
constexpr float LEAST = 1e-30f;

inline float or_nothing(double x) { return x < LEAST ? 0.0f : float(x); }

// `conductances_of` in multigrid_conductances.py, over `unit`: faces, which are null for axes that there are none of,
// ground and diagonal. least[0] and least[1] are the least conductance and diagonal entry.
template <class S>
void read_couplings(const Couplings<S> &a, double unit, float *const *faces, float *ground, float *diagonal,
                    double *least, const Team &team) {
    const Index *n = a.n, rows = n[0] * n[1];
    std::vector<double> found(2 * rows);
    over_rows(rows, rows * n[2] * 8, team, [&](Index begin, Index end) {
        std::vector<double> room(8 * n[2]);
        double *const middle = room.data(), *const shares = middle + 7 * n[2], *up[3], *low[3];
        for (int axis = 0; axis < 3; ++axis) up[axis] = middle + (1 + 2 * axis) * n[2], low[axis] = up[axis] + n[2];
        for (Index row = begin; row < end; ++row) {
            const Index place[3] = {row / n[1], row % n[1], 0};
            std::fill(room.begin(), room.end(), 0.0);
            const double wall[4] = {2.0 * (place[0] == 0), 2.0 * (place[0] == n[0] - 1), 2.0 * (place[1] == 0),
                                    2.0 * (place[1] == n[1] - 1)};
            for (Index t = 0; t < a.terms; ++t) {
                const Index axis = a.axis[t], *s = a.strides + 3 * t;
                const S *c = a.c[t] + place[0] * s[0] + place[1] * s[1];
                const double factor = (axis < 0 ? 1.0 : -1.0) / unit;
                const auto add = [&](double *to, const S *from, Index count) {
                    if (s[2]) for (Index k = 0; k < count; ++k) to[k] += factor * double(from[k * s[2]]);
                    else for (Index k = 0; k < count; ++k) to[k] += factor * double(*from);
                };
                if (axis < 0) add(middle, c, n[2]);
                else if (axis == 2) add(up[2], c, n[2] - 1), add(low[2] + 1, c, n[2] - 1);
                else {
                    if (place[axis] < n[axis] - 1) add(up[axis], c, n[2]);
                    if (place[axis] > 0) add(low[axis], c - s[axis], n[2]);
                }
            }
            double smallest[2] = {INFINITY, INFINITY};
            // Cells at a wall give it a part of their row sum; those at the ends of a row are seen to apart.
            const auto cell = [&](Index k, bool begins, bool ends) {
                const Index at = row * n[2] + k;
                const double incident = (up[0][k] + low[0][k]) + (up[1][k] + low[1][k]) + (up[2][k] + low[2][k]);
                double walls = wall[0] * up[0][k] + wall[1] * low[0][k] + wall[2] * up[1][k] + wall[3] * low[1][k];
                if (begins) walls += 2 * up[2][k];
                if (ends) walls += 2 * low[2][k];
                const double sum = incident > 0 ? middle[k] - incident : 0.0;
                const double surplus = sum > ROUNDING<S> * middle[k] ? sum : 0.0;
                const double part = walls > 0 ? surplus / walls : 0.0, share = part < 1.0 ? part : 1.0;
                const double left = surplus - walls * share;
                ground[at] = left > ROUNDING<S> * (walls + surplus) ? or_nothing(left) : 0.0f;
                diagonal[at] = float(middle[k]);
                shares[k] = share;
            };
            cell(0, true, n[2] == 1);
#pragma GCC ivdep
            for (Index k = 1; k < n[2] - 1; ++k) cell(k, false, false);
            if (n[2] > 1) cell(n[2] - 1, false, true);
            for (Index k = 0; k < n[2]; ++k) {
                smallest[0] = std::min({smallest[0], up[0][k], up[1][k], up[2][k]});
                smallest[1] = std::min(smallest[1], middle[k]);
            }
            for (int axis = 0; axis < 3; ++axis) {
                if (!faces[axis]) continue;
                const Index next = axis == 0 ? n[1] * n[2] : axis == 1 ? n[2] : 1;
                float *const face = faces[axis] + (axis == 0   ? row * n[2]
                                                   : axis == 1 ? (place[0] * (n[1] + 1) + place[1]) * n[2]
                                                               : row * (n[2] + 1));
                for (Index k = 0; k < n[2]; ++k) face[next + k] = or_nothing(up[axis][k]);
                if (axis == 2) {
                    face[0] = or_nothing(2 * up[2][0] * shares[0]);
                    face[n[2]] = or_nothing(2 * low[2][n[2] - 1] * shares[n[2] - 1]);
                } else {
                    if (place[axis] == 0)
                        for (Index k = 0; k < n[2]; ++k) face[k] = or_nothing(2 * up[axis][k] * shares[k]);
                    if (place[axis] == n[axis] - 1)
                        for (Index k = 0; k < n[2]; ++k) face[next + k] = or_nothing(2 * low[axis][k] * shares[k]);
                }
            }
            found[2 * row] = smallest[0], found[2 * row + 1] = smallest[1];
        }
    });
    least[0] = least[1] = INFINITY;
    for (Index row = 0; row < rows; ++row)
        for (int which = 0; which < 2; ++which) least[which] = std::min(least[which], found[2 * row + which]);
}

// The coarsening network of multigrid_coarsening.py, its layers row by row with the bias in front of each row's weights.
struct CoarseningNetwork {
    Index width;
    const float *first, *second, *last;
    float mismatch;
};

constexpr int FEATURES = 7, ANSWERS = 6, WIDEST = 64, CHUNK = 64;

// Answers to the features of CHUNK members side by side.
inline void answer(const CoarseningNetwork &net, const float (*features)[CHUNK], float (*answers)[CHUNK]) {
    alignas(64) float hidden[2][WIDEST][CHUNK];
    const auto layer = [](const float *weights, Index inputs, Index outputs, const float(*from)[CHUNK],
                          float(*to)[CHUNK], bool cut) {
        for (Index o = 0; o < outputs; ++o, weights += inputs + 1) {
            typedef float V __attribute__((vector_size(64)));
            V sum[CHUNK / 16];
            for (int c = 0; c < CHUNK / 16; ++c) sum[c] = weights[0] + V{};
            for (Index i = 0; i < inputs; ++i) {
                const float w = weights[1 + i];
#pragma GCC unroll 4
                for (int c = 0; c < CHUNK / 16; ++c) {
                    V x;
                    std::memcpy(&x, from[i] + 16 * c, 64);
                    sum[c] += w * x;
                }
            }
            for (int c = 0; c < CHUNK / 16; ++c) {
                V y = sum[c];
                if (cut) y = y > 0.0f ? y : V{};
                std::memcpy(to[o] + 16 * c, &y, 64);
            }
        }
    };
    layer(net.first, FEATURES, net.width, features, hidden[0], true);
    layer(net.second, net.width, net.width, hidden[0], hidden[1], true);
    layer(net.last, net.width, ANSWERS, hidden[1], answers, false);
}

inline float positive(float x) {
    x = std::min(std::max(x, -8.0f), 8.0f);
    return x + std::sqrt(1.0f + x * x);
}

// One step of `coarsen` in multigrid_coarsening.py, whose names these are. `edges[a]` has n[a] + 1 faces along a. The
// fields of `pairs` have the coarse shape: own and outward weights of the members, and room for eleven more.
struct Pairing {
    Index n[3], axis;
    const float *edges[3], *ground;
    float *coarse_edges[3], *coarse_ground;
    float *own_first, *own_second, *outward_first, *outward_second;
    float *scratch;
};

constexpr float LEAST_INNER = 1e-5f, FLOOR = 1e-16f;

inline float over(float outward, float inner) {
    const float least = inner + LEAST_INNER * outward;
    return outward / (least > 0 ? least : 1.0f);
}

inline float of_both(float w, float v) {
    const float both = w * v, neither = (1 - w) * (1 - v);
    return both / std::max(both + neither, 1e-20f);
}

inline void pair_up(const CoarseningNetwork &net, const Pairing &p, const Team &team) {
    const Index axis = p.axis, *n = p.n;
    Index m[3] = {n[0], n[1], n[2]};
    m[axis] = (n[axis] + 1) / 2;
    const Index size = m[0] * m[1] * m[2], rows = m[0] * m[1];
    const bool odd = n[axis] % 2, last_axis = axis == 2;
    float *const away_first = p.scratch, *const away_second = away_first + size, *const factor_first = away_second + size,
                *const factor_second = factor_first + size, *const scale_first = factor_second + size,
                *const scale_second = scale_first + size, *const across = scale_second + size,
                *const between_low = across + size, *const between_high = between_low + size,
                *const held_first = between_high + size, *const held_second = held_first + size;
    const Index shape[4][3] = {{n[0] + 1, n[1], n[2]}, {n[0], n[1] + 1, n[2]}, {n[0], n[1], n[2] + 1}, {n[0], n[1], n[2]}};
    // The first element of a row of first members (member 0) or second members in a field of shape[which].
    const auto place = [&](int which, Index i, Index j, int member) {
        const Index *s = shape[which];
        if (axis == 0) return ((2 * i + member) * s[1] + j) * s[2];
        if (axis == 1) return (i * s[1] + 2 * j + member) * s[2];
        return (i * s[1] + j) * s[2] + member;
    };
    const Index step = last_axis ? 2 : 1;
    const auto face_step = [&](int which) {   // from a cell's low face to its high face across an axis
        return which == 0 ? shape[0][1] * shape[0][2] : which == 1 ? shape[1][2] : Index(1);
    };
    over_rows(rows, size * (net.width * (net.width + 13)) / 8, team, [&](Index begin, Index end) {
        alignas(64) float features[FEATURES][CHUNK], mirrored[FEATURES][CHUNK], answers[2][ANSWERS][CHUNK];
        alignas(64) float out_first[CHUNK], inner[CHUNK], out_second[CHUNK], over_first[CHUNK], over_second[CHUNK],
            ground_first[CHUNK], ground_second[CHUNK];
        for (Index row = begin; row < end; ++row) {
            const Index i = row / m[1], j = row % m[1];
            // Of an odd number of cells the last has no mate: in this row, or at its end.
            const bool row_single = odd && (axis == 0 ? i == m[0] - 1 : axis == 1 && j == m[1] - 1);
            const float *e = p.edges[axis] + place(axis, i, j, 0), *first_ground = p.ground + place(3, i, j, 0);
            const Index along = face_step(axis), mate = row_single ? 0 : axis == 2 ? 1 : place(3, i, j, 1) - place(3, i, j, 0);
            for (Index k0 = 0; k0 < m[2]; k0 += CHUNK) {
                const Index count = std::min(Index(CHUNK), m[2] - k0);
                // The last pair of an odd row has no mate to be read
                const Index whole = last_axis && odd && k0 + count == m[2] ? count - 1 : count;
                for (Index c = 0; c < whole; ++c) {
                    const Index k = (k0 + c) * step;
                    out_first[c] = e[k];
                    inner[c] = row_single ? 0.0f : e[k + along];
                    out_second[c] = row_single ? e[k + along] : e[k + 2 * along];
                    ground_first[c] = first_ground[k];
                    ground_second[c] = row_single ? 0.0f : first_ground[k + mate];
                    over_first[c] = over_second[c] = 0.0f;
                }
                for (int other = 0; other < 3; ++other) {
                    if (other == axis || !p.edges[other]) continue;
                    const float *f = p.edges[other] + place(other, i, j, 0);
                    const Index up = face_step(other), to_mate = place(other, i, j, 1) - place(other, i, j, 0);
                    for (Index c = 0; c < whole; ++c) {
                        const Index k = (k0 + c) * step;
                        over_first[c] += f[k] + f[k + up];
                        if (!row_single) over_second[c] += f[k + to_mate] + f[k + to_mate + up];
                    }
                }
                if (whole < count) {
                    const Index c = whole, k = (k0 + c) * step;
                    out_first[c] = e[k], inner[c] = 0.0f, out_second[c] = e[k + along];
                    ground_first[c] = first_ground[k], ground_second[c] = over_first[c] = over_second[c] = 0.0f;
                    for (int other = 0; other < 3; ++other) {
                        if (other == axis || !p.edges[other]) continue;
                        const float *f = p.edges[other] + place(other, i, j, 0);
                        over_first[c] += f[k] + f[k + face_step(other)];
                    }
                }
                const float *const shares[FEATURES] = {out_first,   inner,        out_second,   over_first,
                                                       over_second, ground_first, ground_second};
                const int swapped[FEATURES] = {2, 1, 0, 4, 3, 6, 5};
                alignas(64) float total[CHUNK];
                for (Index c = 0; c < CHUNK; ++c) total[c] = 0.0f;
                for (const float *share : shares)
                    for (Index c = 0; c < count; ++c) total[c] += share[c];
                for (Index c = 0; c < CHUNK; ++c) total[c] = total[c] > LEAST ? 1.0f / total[c] : 1.0f;
                for (int f = 0; f < FEATURES; ++f) {
                    for (Index c = 0; c < count; ++c)
                        features[f][c] = std::sqrt(std::sqrt(std::max(shares[f][c] * total[c], FLOOR)));
                    for (Index c = count; c < CHUNK; ++c) features[f][c] = 0.0f;
                    std::memcpy(mirrored[swapped[f]], features[f], sizeof features[f]);
                }
                answer(net, features, answers[0]);
                answer(net, mirrored, answers[1]);
                const Index to = row * m[2] + k0;
#pragma GCC ivdep
                for (Index c = 0; c < count; ++c) {
                    const float all_first = out_first[c] + over_first[c] + inner[c],
                                all_second = out_second[c] + over_second[c] + inner[c];
                    const bool single = row_single || c >= whole;
                    const float live_first = all_first + (single ? out_second[c] : 0.0f), live_second = single ? 0.0f : all_second;
                    const float weight_first = live_first * positive(answers[0][5][c]),
                                weight_second = live_second * positive(answers[1][5][c]);
                    const float sum = weight_first + weight_second, unit = sum > LEAST ? 1.0f / sum : 1.0f;
                    const bool alone = !(live_first > 0 && live_second > 0);
                    away_first[to + c] = alone ? 0.0f
                                               : weight_second * unit * positive(answers[0][0][c]) *
                                                     over(out_first[c], inner[c]);
                    away_second[to + c] = alone ? 0.0f
                                                : weight_first * unit * positive(answers[1][0][c]) *
                                                      over(out_second[c], inner[c]);
                    factor_first[to + c] = positive(answers[0][2][c]);
                    factor_second[to + c] = positive(answers[1][2][c]);
                    scale_first[to + c] = live_first > 0 ? positive(answers[0][1][c]) : 0.0f;
                    scale_second[to + c] = live_second > 0 ? positive(answers[1][1][c]) : 0.0f;
                    across[to + c] = positive(0.5f * (answers[0][3][c] + answers[1][3][c]));
                    held_first[to + c] = live_first > 0 ? ground_first[c] * positive(answers[0][4][c]) : 0.0f;
                    held_second[to + c] = live_second > 0 ? ground_second[c] * positive(answers[1][4][c]) : 0.0f;
                    between_low[to + c] = out_first[c];
                    between_high[to + c] = out_second[c];
                }
            }
        }
    });
    // Faces between pairs: conductances, and the weights of interpolation across them.
    const Index stride = axis == 0 ? m[1] * m[2] : axis == 1 ? m[2] : 1;   // from pair to pair along the axis
    const Index coarse_shape[3] = {m[0] + (axis == 0), m[1] + (axis == 1), m[2] + (axis == 2)};
    float *const faces = p.coarse_edges[axis];
    float *const to_low = between_low, *const to_high = between_high;   // taken over, pair by pair
    float *const outward_first = p.outward_first, *const outward_second = p.outward_second;
    over_rows(rows, size * 8, team, [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
            const Index i = row / m[1], j = row % m[1];
            const bool begins = axis == 0 ? i == 0 : axis == 1 && j == 0;
            const bool ends = axis == 0 ? i == m[0] - 1 : axis == 1 && j == m[1] - 1;
            const Index from = row * m[2];
            float *low_face = faces + (i * coarse_shape[1] + j) * coarse_shape[2];
            float *high_face = low_face + (axis == 0 ? coarse_shape[1] * coarse_shape[2] : axis == 1 ? coarse_shape[2] : 1);
            // A pair at the end of the axis looks at itself, with no weight.
            const auto face = [=](Index k, bool first, bool last) {
                const Index at = from + k, next = last ? 0 : stride;
                const float before = first ? 0.0f : away_second[at - (first ? 0 : stride)];
                const float behind = last ? 0.0f : away_first[at + next];
                const float through_low = between_low[at], through_high = between_high[at];
                const float low_length = 1.0f / (1.0f + before + away_first[at]),
                            high_length = 1.0f / (1.0f + away_second[at] + behind);
                if (first) low_face[k] = through_low * low_length * factor_first[at];
                high_face[k] = through_high * high_length * factor_second[at] * (last ? 1.0f : factor_first[at + next]);
                outward_first[at] = through_low > 0 ? away_first[at] * low_length : 0.0f;
                outward_second[at] = through_high > 0 ? away_second[at] * high_length : 0.0f;
            };
            if (!last_axis && !begins && !ends) {
#pragma GCC ivdep
                for (Index k = 0; k < m[2]; ++k) face(k, false, false);
            } else if (!last_axis) {
                for (Index k = 0; k < m[2]; ++k) face(k, begins, ends);
            } else {
                face(0, true, m[2] == 1);
#pragma GCC ivdep
                for (Index k = 1; k < m[2] - 1; ++k) face(k, false, false);
                if (m[2] > 1) face(m[2] - 1, false, true);
            }
        }
    });
    // The energy of weights that differ across the other axes, and the edges across.
    over_rows(rows, size * 16, team, [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
            const Index i = row / m[1], j = row % m[1], from = row * m[2];
            const bool row_single = odd && (axis == 0 ? i == m[0] - 1 : axis == 1 && j == m[1] - 1);
            for (Index k = 0; k < m[2]; ++k) to_low[from + k] = to_high[from + k] = 0.0f;
            // What the members hold goes to zero from the pairs that they are interpolated from, in these shares.
            const auto hold = [=](Index k, bool first, bool last) {
                const Index at = from + k, previous = first ? at : at - stride, next = last ? at : at + stride;
                const float before = held_second[previous] * outward_second[previous],
                            behind = held_first[next] * outward_first[next];
                p.coarse_ground[at] = held_first[at] * (1 - outward_first[at]) + held_second[at] * (1 - outward_second[at]) +
                                      (first ? 0.0f : before) + (last ? 0.0f : behind);
            };
            const bool first_of_axis = axis == 0 ? i == 0 : axis == 1 && j == 0;
            const bool last_of_axis = axis == 0 ? i == m[0] - 1 : axis == 1 && j == m[1] - 1;
            if (last_axis) {
                hold(0, true, m[2] == 1);
#pragma GCC ivdep
                for (Index k = 1; k < m[2] - 1; ++k) hold(k, false, false);
                if (m[2] > 1) hold(m[2] - 1, false, true);
            } else {
#pragma GCC ivdep
                for (Index k = 0; k < m[2]; ++k) hold(k, first_of_axis, last_of_axis);
            }
            for (int other = 0; other < 3; ++other) {
                if (other == axis || !p.edges[other]) continue;
                const Index up = face_step(other);
                const Index across_stride = other == 0 ? m[1] * m[2] : other == 1 ? m[2] : 1;
                const Index position = other == 0 ? i : j;
                const float *const f = p.edges[other] + place(other, i, j, 0);
                const Index to_mate = place(other, i, j, 1) - place(other, i, j, 0);
                const Index whole = last_axis && odd ? m[2] - 1 : m[2];
                const auto add = [=](Index k, Index below, Index above, Index to_mate, float mate) {
                    const Index at = from + k, fine = k * step;
                    const float w = outward_first[at], v = outward_second[at];
                    const float a = w - outward_first[at - below], b = w - outward_first[at + above];
                    const float c = v - outward_second[at - below], d = v - outward_second[at + above];
                    to_low[at] += f[fine] * a * a + f[fine + up] * b * b;
                    to_high[at] += mate * (f[fine + to_mate] * c * c + f[fine + to_mate + up] * d * d);
                };
                // What the members give across, in shares by the pair from which both sides of a face are interpolated.
                // Where there is no mate, pair before or pair behind, the member itself stands in, with no share.
                float *const low_face = p.coarse_edges[other] + (i * (m[1] + (other == 1)) + j) * (m[2] + (other == 2));
                float *const high_face = low_face + (other == 0 ? m[1] * m[2] : other == 1 ? m[2] : 1);
                const Index to_next = 2 * to_mate;
                const auto give = [=](Index at, const float *e, Index away, bool mate, bool before, bool behind) {
                    const Index low = before ? stride : 0, high = behind ? stride : 0;
                    const float own = e[0] * (1 - of_both(outward_first[at], outward_first[at + away]));
                    const float second = e[mate ? to_mate : 0] * (1 - of_both(outward_second[at], outward_second[at + away]));
                    const float previous = e[before ? to_mate - to_next : 0] *
                                           of_both(outward_second[at - low], outward_second[at - low + away]);
                    const float next = e[behind ? to_next : 0] *
                                       of_both(outward_first[at + high], outward_first[at + high + away]);
                    return own + (mate ? second : 0.0f) + (before ? previous : 0.0f) + (behind ? next : 0.0f);
                };
                const auto edge = [=](Index k, bool ends, bool mate, bool before, bool behind) {
                    const Index at = from + k, away = ends ? 0 : across_stride;
                    high_face[k] = give(at, f + k * step + up, away, mate, before, behind) * across[at] *
                                   (ends ? 1.0f : across[at + away]);
                };
                const auto wall = [=](Index k, bool mate, bool before, bool behind) {
                    low_face[k] = give(from + k, f + k * step, 0, mate, before, behind) * across[from + k];
                };
                const bool first_row = axis == 0 ? i == 0 : j == 0, last_row = axis == 0 ? i == m[0] - 1 : j == m[1] - 1;
                const bool begins = position == 0, ends = position == m[other] - 1;
                const Index below = begins ? 0 : across_stride, above = ends ? 0 : across_stride;
                if (last_axis) {
                    const auto end_of_row = [=](Index k) {
                        const bool mate = k < whole, before = k > 0, behind = k < m[2] - 1;
                        add(k, below, above, mate ? to_mate : 0, mate);
                        edge(k, ends, mate, before, behind);
                    };
                    end_of_row(0);
                    if (m[2] > 1) end_of_row(m[2] - 1);
#pragma GCC ivdep
                    for (Index k = 1; k < m[2] - 1; ++k) add(k, below, above, to_mate, 1.0f);
                    if (ends)
                        for (Index k = 1; k < m[2] - 1; ++k) edge(k, true, true, true, true);
                    else
#pragma GCC ivdep
                        for (Index k = 1; k < m[2] - 1; ++k) edge(k, false, true, true, true);
                    if (begins)
                        for (Index k = 0; k < m[2]; ++k) wall(k, k < whole, k > 0, k < m[2] - 1);
                } else if (other == 2) {
                    const float mate = row_single ? 0.0f : 1.0f;
                    const Index second = row_single ? 0 : to_mate;
                    add(0, 0, m[2] > 1 ? 1 : 0, second, mate);
                    if (m[2] > 1) add(m[2] - 1, 1, 0, second, mate);
                    wall(0, !row_single, !first_row, !last_row);
                    edge(m[2] - 1, true, !row_single, !first_row, !last_row);
#pragma GCC ivdep
                    for (Index k = 1; k < m[2] - 1; ++k) add(k, 1, 1, second, mate);
                    if (row_single || first_row || last_row)
                        for (Index k = 0; k < m[2] - 1; ++k) edge(k, false, !row_single, !first_row, !last_row);
                    else
#pragma GCC ivdep
                        for (Index k = 0; k < m[2] - 1; ++k) edge(k, false, true, true, true);
                } else {
                    const float mate = row_single ? 0.0f : 1.0f;
                    const Index second = row_single ? 0 : to_mate;
#pragma GCC ivdep
                    for (Index k = 0; k < m[2]; ++k) add(k, below, above, second, mate);
                    if (ends || row_single || first_row || last_row)
                        for (Index k = 0; k < m[2]; ++k) edge(k, ends, !row_single, !first_row, !last_row);
                    else
#pragma GCC ivdep
                        for (Index k = 0; k < m[2]; ++k) edge(k, false, true, true, true);
                    if (begins)
                        for (Index k = 0; k < m[2]; ++k) wall(k, !row_single, !first_row, !last_row);
                }
            }
        }
    });
    const float half = 0.5f * net.mismatch;
    over_rows(rows, size * 4, team, [&](Index begin, Index end) {
        for (Index row = begin; row < end; ++row) {
            const Index i = row / m[1], j = row % m[1], from = row * m[2];
            const bool begins = axis == 0 ? i == 0 : axis == 1 && j == 0;
            const bool ends = axis == 0 ? i == m[0] - 1 : axis == 1 && j == m[1] - 1;
            float *low_face = faces + (i * coarse_shape[1] + j) * coarse_shape[2];
            float *high_face = low_face + (axis == 0 ? coarse_shape[1] * coarse_shape[2] : axis == 1 ? coarse_shape[2] : 1);
            float *const own_first = p.own_first, *const own_second = p.own_second;
            const auto finish = [=](Index k, bool first, bool last) {
                const Index at = from + k;
                if (first && low_face[k] > 0) low_face[k] += half * to_low[at];
                const float energy = half * (to_high[at] + (last ? 0.0f : to_low[at + (last ? 0 : stride)]));
                high_face[k] += high_face[k] > 0 ? energy : 0.0f;
                const float low = outward_first[at], high = outward_second[at];
                own_first[at] = scale_first[at] * (1 - low);
                own_second[at] = scale_second[at] * (1 - high);
                outward_first[at] = scale_first[at] * low;
                outward_second[at] = scale_second[at] * high;
            };
            if (last_axis) {
                finish(0, true, m[2] == 1);
#pragma GCC ivdep
                for (Index k = 1; k < m[2] - 1; ++k) finish(k, false, false);
                if (m[2] > 1) finish(m[2] - 1, false, true);
            } else if (begins || ends) {
                for (Index k = 0; k < m[2]; ++k) finish(k, begins, ends);
            } else {
#pragma GCC ivdep
                for (Index k = 0; k < m[2]; ++k) finish(k, false, false);
            }
        }
    });
}
