// Triangles and tetrahedra: gradients of the basis functions of P1 elements, and products of them.
#pragma once

#include "rows.hpp"

// For m cells of D + 1 vertices each: corners[a m + c] is vertex a of cell c; gradients[(a D + k) m + c] is component k of
// the gradient of the function that is 1 at it and 0 at the others, and volumes[c] the volume.
template <int D, class T>
void gradients_of_simplices(Index m, const T *points, const Index *cells, Index *corners, T *gradients, T *volumes,
                            const Team &team) {
    over_rows(m, m * 30, team, [=](Index begin, Index end) {
        for (Index c = begin; c < end; ++c) {
            T edge[D][D], normal[D][D];
            const Index *cell = cells + c * (D + 1);
            for (int a = 0; a <= D; ++a) corners[a * m + c] = cell[a];
            for (int a = 0; a < D; ++a)
                for (int k = 0; k < D; ++k) edge[a][k] = points[cell[a + 1] * D + k] - points[cell[0] * D + k];
            if constexpr (D == 2) {
                normal[0][0] = edge[1][1], normal[0][1] = -edge[1][0];
                normal[1][0] = -edge[0][1], normal[1][1] = edge[0][0];
            } else {
                for (int a = 0; a < D; ++a)
                    for (int k = 0; k < D; ++k) {
                        const T *p = edge[(a + 1) % D], *q = edge[(a + 2) % D];
                        normal[a][k] = p[(k + 1) % D] * q[(k + 2) % D] - p[(k + 2) % D] * q[(k + 1) % D];
                    }
            }
            T factor = 0;
            for (int k = 0; k < D; ++k) factor += edge[0][k] * normal[0][k];
            const T inverse = 1 / factor;
            for (int k = 0; k < D; ++k) {
                T sum = 0;
                for (int a = 0; a < D; ++a) {
                    const T slope = normal[a][k] * inverse;
                    gradients[((a + 1) * D + k) * m + c] = slope;
                    sum += slope;
                }
                gradients[k * m + c] = -sum;
            }
            volumes[c] = factor / (D == 2 ? 2 : 6);
        }
    });
}

template <class T>
void gradients_of_simplices(int dimension, Index m, const T *points, const Index *cells, Index *corners, T *gradients,
                            T *volumes, const Team &team) {
    if (dimension == 2)
        gradients_of_simplices<2>(m, points, cells, corners, gradients, volumes, team);
    else
        gradients_of_simplices<3>(m, points, cells, corners, gradients, volumes, team);
}

// products[p m + c] = volume times the product of the gradients of the pair p of vertices 01, 02, .., 12, ..
template <class T>
void products_of_gradients(int dimension, Index m, const T *gradients, const T *volumes, T *products,
                           const Team &team) {
    const Index d = dimension;
    over_rows(m, m * 20, team, [=](Index begin, Index end) {
        for (Index a = 0, p = 0; a <= d; ++a)
            for (Index b = a + 1; b <= d; ++b, ++p) {
                const T *u = gradients + a * d * m, *v = gradients + b * d * m;
                T *out = products + p * m;
                if (d == 2)
                    for (Index c = begin; c < end; ++c) out[c] = volumes[c] * (u[c] * v[c] + u[m + c] * v[m + c]);
                else
                    for (Index c = begin; c < end; ++c)
                        out[c] = volumes[c] * (u[c] * v[c] + u[m + c] * v[m + c] + u[2 * m + c] * v[2 * m + c]);
            }
    });
}
