// Solid angles of strips from the open edges of a surface up to infinity, for winding numbers.
#pragma once

#include <cmath>

#include "rows.hpp"

constexpr Index HEIGHTS = 32;  // points of a column worked on at once
constexpr Index SCALED = 8;    // products of so many numbers stay within range

// turns[k] = sum over the edges of atan2(across, lift_a lift_b + along) / (2 pi) at the points z[k] of one column, with
// lift = |p| + p_z for an end p seen from the point. The angles are added by multiplying complex numbers, counting how
// often the product goes round, so that there is one atan2 a point and not one an edge.
inline void strip_turns_column(Index edges, const double *across, const double *along, const double *square_a,
                               const double *square_b, const double *height_a, const double *height_b, Index count,
                               const double *z, double *turns) {
    double re[HEIGHTS], im[HEIGHTS], rounds[HEIGHTS];
    for (Index k = 0; k < count; ++k) re[k] = 1, im[k] = 0, rounds[k] = 0;
    for (Index e = 0; e < edges; ++e) {
        const double y = across[e], flat = along[e], aa = square_a[e], bb = square_b[e];
        const double za = height_a[e], zb = height_b[e];
        const bool left = y >= 0;
        const double way = left ? 1 : -1;
        for (Index k = 0; k < count; ++k) {
            const double a = za - z[k], b = zb - z[k];
            const double x = (std::sqrt(aa + a * a) + a) * (std::sqrt(bb + b * b) + b) + flat;
            const double real = re[k] * x - im[k] * y, imaginary = re[k] * y + im[k] * x;
            const bool before = im[k] >= 0, after = imaginary >= 0;
            rounds[k] += ((before == left) & (after != left)) ? way : 0.0;
            re[k] = real, im[k] = imaginary;
        }
        if (e % SCALED == SCALED - 1)
            for (Index k = 0; k < count; ++k) {
                const double scale = 1 / (std::abs(re[k]) + std::abs(im[k]) + 1e-300);
                re[k] *= scale, im[k] *= scale;
            }
    }
    // Adding 0 makes -0, which counts as 0 above, into 0.
    for (Index k = 0; k < count; ++k) turns[k] = rounds[k] + std::atan2(im[k] + 0.0, re[k]) / (2 * M_PI);
}

// The same for all columns: tables are columns x edges, turns is columns x heights.
inline void strip_turns(Index columns, Index edges, Index heights, const double *across, const double *along,
                        const double *square_a, const double *square_b, const double *height_a, const double *height_b,
                        const double *z, double *turns, const Team &team) {
    over_rows(columns, columns * edges * heights, team, [&](Index begin, Index end) {
        for (Index c = begin; c < end; ++c)
            for (Index k = 0; k < heights; k += HEIGHTS)
                strip_turns_column(edges, across + c * edges, along + c * edges, square_a + c * edges,
                                   square_b + c * edges, height_a, height_b, std::min(HEIGHTS, heights - k), z + k,
                                   turns + c * heights + k);
    });
}
