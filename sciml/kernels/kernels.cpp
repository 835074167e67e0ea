// The compiled kernels as the library exports them, once for each floating type.

#include "buckets.hpp"
#include "conductances.hpp"
#include "correlation.hpp"
#include "cycle.hpp"
#include "dense.hpp"
#include "descent.hpp"
#include "factorization.hpp"
#include "fourier.hpp"
#include "galerkin.hpp"
#include "network_cycle.hpp"
#include "relaxation.hpp"
#include "simplices.hpp"
#include "sparse.hpp"
#include "sparse_cycle.hpp"
#include "steps.hpp"
#include "survey.hpp"
#include "tape.hpp"
#include "stencil.hpp"
#include "transfer.hpp"
#include "vectors.hpp"
#include "voxels.hpp"

#define EXPORT(T, suffix)                                                                                              \
    extern "C" void stencil_##suffix(const Stencil<T> *a, int mode, const T *x, Index x_batch, const T *b,             \
                                     Index b_batch, double omega, T *out, Index batch, double *products, int threads) { \
        stencil(*a, Mode(mode), x, x_batch, b, b_batch, omega, out, batch, products, Team{threads});                         \
    }                                                                                                                  \
    extern "C" void restrict_##suffix(const Transfer<T> *transfer, const T *fine, T *coarse, Index batch,              \
                                      int threads) {                                                                   \
        restrict_rows(*transfer, fine, coarse, batch, Team{threads});                                                        \
    }                                                                                                                  \
    extern "C" void prolong_##suffix(const Transfer<T> *transfer, const T *coarse, T *fine, Index batch,               \
                                     int threads) {                                                                    \
        prolong_rows(*transfer, coarse, fine, batch, Team{threads});                                                         \
    }                                                                                                                  \
    extern "C" void galerkin_##suffix(Index batch, const Axes *axes, const Index *ring, int terms,                     \
                                      const Index *offsets, const T *const *coefficient, const Index *strides,         \
                                      const T *const *r, const T *const *p, T *const *result, int threads) {           \
        galerkin(batch, *axes, ring, terms, offsets, coefficient, strides, r, p, result, Team{threads});                     \
    }                                                                                                                  \
    extern "C" void interpolate_##suffix(Index batch, const Axes *axes, const Index *kind, int terms,                  \
                                         const Index *offsets, const T *coefficient, T *const *w, int threads) {       \
        interpolate(batch, *axes, kind, terms, offsets, coefficient, w, Team{threads});                                \
    }                                                                                                                  \
    extern "C" void survey_##suffix(Index batch, Index size, Index terms, Index centre, const T *coefficient,          \
                                    double *found, int threads) {                                                      \
        survey(batch, size, terms, centre, coefficient, found, Team{threads});                                         \
    }                                                                                                                  \
    extern "C" void gather_##suffix(const Convolution *a, const T *f, const T *w, const T *add, double factor,           \
                                    const T *bias, T *c, int threads) {                                                \
        gather(*a, f, w, add, factor, bias, c, Team{threads});                                                         \
    }                                                                                                                  \
    extern "C" void spread_##suffix(const Convolution *a, const T *c, const T *w, const T *add, double factor, T *f,     \
                                    int threads) {                                                                     \
        spread(*a, c, w, add, factor, f, Team{threads});                                                               \
    }                                                                                                                  \
    extern "C" void correlate_##suffix(const Convolution *a, const T *f, const T *c, T *w, int threads) {                \
        correlate(*a, f, c, w, Team{threads});                                                                         \
    }                                                                                                                  \
    extern "C" void dot_##suffix(const T *x, const T *y, Index batch, Index size, double *total, int threads) {        \
        dot(x, y, batch, size, total, Team{threads});                                                                        \
    }                                                                                                                  \
    extern "C" void descend_##suffix(T *x, T *r, const T *p, const T *q, const double *alpha, Index batch,             \
                                     Index size, double *total, int threads) {                                         \
        descend(x, r, p, q, alpha, batch, size, total, Team{threads});                                                       \
    }                                                                                                                  \
    extern "C" void step_error_##suffix(const T *error, const T *before, const T *after, Index rows, Index size,       \
                                        int columns, double rtol, const double *atol, Index stride, T *ratio,          \
                                        int threads) {                                                                 \
        (columns ? error_of_columns<T> : error_of_rows<T>)(error, before, after, rows, size, rtol, atol, stride,       \
                                                           ratio, Team{threads});                                      \
    }                                                                                                                  \
    extern "C" void step_error_gradient_##suffix(const T *error, const T *before, const T *after, Index rows,          \
                                                 Index size, double rtol, const double *atol, Index stride,            \
                                                 const T *ratio, const T *slope, T *of_error, T *of_before,            \
                                                 T *of_after, int threads) {                                           \
        error_gradient(error, before, after, rows, size, rtol, atol, stride, ratio, slope, of_error, of_before,        \
                       of_after, Team{threads});                                                                       \
    }                                                                                                                  \
    extern "C" void estimate_step_##suffix(Index rows, Index size, int count, const T *const *stage,                   \
                                           const double *weight, const T *before, const T *after, double rtol,         \
                                           const double *atol, Index stride, T *error, T *ratio,                       \
                                           const T *const *pair, double *squares, T *stiffness, int threads) {         \
        estimate_step(rows, size, count, stage, weight, before, after, rtol, atol, stride, error, ratio, pair,         \
                      squares, stiffness, Team{threads});                                                              \
    }                                                                                                                  \
    extern "C" void stiffness_gradient_##suffix(const T *const *pair, Index rows, Index size,                          \
                                                const double *squares, const T *slope, T *const *of_pair,              \
                                                int threads) {                                                         \
        stiffness_gradient(pair, rows, size, squares, slope, of_pair, Team{threads});                                  \
    }                                                                                                                  \
    extern "C" void weighted_sum_##suffix(Index size, int count, const T *const *x, const double *weight, T *out,      \
                                          int threads) {                                                               \
        weighted_sum(size, count, x, weight, out, Team{threads});                                                      \
    }                                                                                                                  \
    extern "C" void tape_rate_##suffix(const Tape *tape, const TapeInputs<T> *inputs, Index unknowns, Index rows,      \
                                       const T *y, double t, T *rate, int threads) {                                   \
        tape_rate(*tape, *inputs, unknowns, rows, y, t, rate, Team{threads});                                          \
    }                                                                                                                  \
    extern "C" void tape_step_##suffix(const Tape *tape, const TapeInputs<T> *inputs, Index unknowns, Index rows,      \
                                       const T *y, double t, double h, Index s, const T *weights, const double *c,     \
                                       int whole, int last_is_end, T *stages, T *value, T *error, int threads) {       \
        tape_step(*tape, *inputs, unknowns, rows, y, t, h, s, weights, c, whole, last_is_end, stages, value, error,    \
                  Team{threads});                                                                                      \
    }                                                                                                                  \
    extern "C" void redirect_##suffix(T *p, const T *z, const double *beta, Index batch, Index size, int threads) {    \
        redirect(p, z, beta, batch, size, Team{threads});                                                                    \
    }                                                                                                                  \
    extern "C" void gradients_of_simplices_##suffix(int dimension, Index m, const T *points, const Index *cells,       \
                                                    Index *corners, T *gradients, T *volumes, int threads) {           \
        gradients_of_simplices(dimension, m, points, cells, corners, gradients, volumes, Team{threads});               \
    }                                                                                                                  \
    extern "C" void products_of_gradients_##suffix(int dimension, Index m, const T *gradients, const T *volumes,       \
                                                   T *products, int threads) {                                         \
        products_of_gradients(dimension, m, gradients, volumes, products, Team{threads});                              \
    }                                                                                                                  \
    extern "C" void sum_segments_##suffix(Index count, const std::int32_t *starts, const std::int32_t *places,         \
                                          const T *values, Index size, T *sums, Index batch, int threads) {            \
        sum_segments(count, starts, places, values, size, sums, batch, Team{threads});                                 \
    }                                                                                                                  \
    extern "C" void multiply_csr_##suffix(const Csr<T> *a, const T *x, T *y, Index batch, int threads) {                 \
        multiply(*a, x, y, batch, Team{threads});                                                                      \
    }                                                                                                                  \
    extern "C" void chebyshev_##suffix(const Csr<T> *a, const double *factors, Index steps, const T *b, T *x,          \
                                       T *before, Index batch, int threads) {                                          \
        chebyshev(*a, factors, steps, b, x, before, batch, Team{threads});                                             \
    }                                                                                                                  \
    extern "C" Index stencil_rows_##suffix(const Stencil<T> *a, int lower, std::int32_t *starts, std::int32_t *columns,   \
                                           T *values) {                                                                \
        return stencil_rows(*a, lower, starts, columns, values);                                                       \
    }                                                                                                                  \
    extern "C" void incomplete_cholesky_##suffix(const Csr<T> *a, Index systems, const double *shifts, double least,     \
                                                 double *l, int *failed, int threads) {                                \
        incomplete_cholesky(*a, systems, shifts, least, l, failed, Team{threads});                                     \
    }                                                                                                                  \
    extern "C" void incomplete_lu_##suffix(const Csr<T> *a, Index systems, const std::int32_t *diagonal, double *f,      \
                                           Index *bad, int threads) {                                                  \
        incomplete_lu(*a, systems, diagonal, f, bad, Team{threads});                                                   \
    }                                                                                                                  \
    extern "C" void split_factors_##suffix(Index rows, const std::int32_t *starts, const std::int32_t *columns,          \
                                           const std::int32_t *diagonal, const double *f, const CsrParts<T> *lower,      \
                                           const CsrParts<T> *upper) {                                                 \
        split_factors(rows, starts, columns, diagonal, f, *lower, *upper);                                             \
    }                                                                                                                  \
    extern "C" void solve_triangle_##suffix(const Triangle<T> *a, int transposed, const T *b, T *x, Index columns,      \
                                            int threads) {                                                             \
        solve_triangle(*a, transposed, b, x, columns, Team{threads});                                                  \
    }                                                                                                                  \
    extern "C" void relax_lines_##suffix(const Relaxed<T> *a, int way, double omega, const T *r, T *z, Index batch,      \
                                         int threads) {                                                                \
        relax_lines(*a, way, omega, r, z, batch, threads);                                                             \
    }                                                                                                                  \
    extern "C" void course_lines_##suffix(const Relaxed<T> *a, int way, double omega, const Course<T> *course,         \
                                          int descend, Index batch, Index steps, double *norms, int threads) {         \
        advance_lines(*a, way, omega, *course, descend, batch, steps, norms, threads);                                 \
    }                                                                                                                  \
    extern "C" void relax_rows_##suffix(const Split<T> *a, int way, double omega, const T *r, T *z, Index batch,         \
                                        int threads) {                                                                 \
        relax_rows(*a, way, omega, r, z, batch, threads);                                                              \
    }                                                                                                                  \
    extern "C" void course_rows_##suffix(const Split<T> *a, int way, double omega, const Course<T> *course,            \
                                         int descend, Index batch, Index steps, double *norms, int threads) {          \
        advance_rows_of(*a, way, omega, *course, descend, batch, steps, norms, threads);                               \
    }

#define EXPORT_CYCLE(S, T, suffix)                                                                                     \
    extern "C" void cycle_##suffix(const Hierarchy<T> *h, const S *r, S *z, Index batch, double *total, int threads) {  \
        cycle(*h, r, z, batch, total, threads);                                                                        \
    }                                                                                                                  \
    extern "C" void descend_rows_##suffix(const Hierarchy<T> *h, const Descent<S> *d, Index batch, Index steps,        \
                                          double *norms, int threads) {                                                \
        descend_rows(*h, *d, batch, steps, norms, threads);                                                            \
    }                                                                                                                  \
    extern "C" void sparse_cycle_##suffix(const SparseHierarchy<T> *h, const S *r, S *z, Index batch, double *total,    \
                                          int threads) {                                                               \
        cycle(*h, r, z, batch, total, threads);                                                                        \
    }

extern "C" void advance_rows_float64(Index rows, const StepControl *control, const double *ratio, const double *end,
                                     Index stages, const double *c, const RowSteps *now, const RowSteps *next,
                                     bool *accepted, int threads) {
    advance_rows(rows, *control, ratio, end, stages, c, *now, *next, accepted, Team{threads});
}

extern "C" void invert_float64(double *matrices, Index count, Index n, int *ok, int threads) {
    invert_all(matrices, count, n, ok, Team{threads});
}

extern "C" void diagonal_places_int32(Index rows, const std::int32_t *starts, const std::int32_t *columns,
                                      std::int32_t *places) {
    diagonal_places(rows, starts, columns, places);
}

extern "C" void buckets_int32(Index size, const std::int32_t *keys, Index count, std::int32_t *starts,
                              std::int32_t *order, int threads) {
    buckets(size, keys, count, starts, order, Team{threads});
}

extern "C" Index runs_of_pairs_int32(Index size, const std::int32_t *low, const std::int32_t *high, Index count,
                                     std::int32_t *order, std::int32_t *begins, std::int32_t *run_low,
                                     std::int32_t *run_high, int threads) {
    return runs_of_pairs(size, low, high, count, order, begins, run_low, run_high, Team{threads});
}

extern "C" void strip_turns_float64(Index columns, Index edges, Index heights, const double *across,
                                    const double *along, const double *square_a, const double *square_b,
                                    const double *height_a, const double *height_b, const double *z, double *turns,
                                    int threads) {
    strip_turns(columns, edges, heights, across, along, square_a, square_b, height_a, height_b, z, turns, Team{threads});
}

extern "C" void pair_up_float32(const CoarseningNetwork *network, const Pairing *pairing, int threads) {
    pair_up(*network, *pairing, Team{threads});
}

#define EXPORT_NETWORK(S, suffix)                                                                                      \
    extern "C" void read_couplings_##suffix(const Couplings<S> *a, double unit, float *const *faces, float *ground,      \
                                            float *diagonal, double *least, int threads) {                             \
        read_couplings(*a, unit, faces, ground, diagonal, least, Team{threads});                                       \
    }                                                                                                                  \
    extern "C" double cycle_network_##suffix(const NetworkCycle *h, const S *r, S *z, Index size, int threads) {       \
        return cycle_network(*h, r, z, size, threads);                                                                 \
    }

extern "C" void lay_out_network(const NetworkLevel *level, const float *const *faces, const float *ground,
                                const float *diagonal, int threads) {
    lay_out(*level, faces, ground, diagonal, Team{threads});
}

#define EXPORT_FOURIER(T, suffix)                                                                                      \
    extern "C" void combine_##suffix(Index sums, const FourierSum *sum, const FourierTerm *term, T *const *operands,   \
                                     Index rows, Index lines, Index low, Index length, int threads) {                  \
        over_rows(rows, sums * rows * lines * length, Team{threads}, [=](Index begin, Index end) {                     \
            combine(sums, sum, term, operands, begin, end, lines, low, length);                                        \
        });                                                                                                            \
    }                                                                                                                  \
    extern "C" void evaluate_##suffix(const Evaluation *each, Index count, T *const *operands, Index rows, int phases, \
                                      int threads) {                                                                   \
        evaluate(each, count, operands, rows, phases, Team{threads});                                                  \
    }                                                                                                                  \
    extern "C" void symmetrize_##suffix(T *c, Index fields, Index lines, Index length, Index column) {                 \
        symmetrize(c, fields, lines, length, column);                                                                  \
    }

EXPORT(float, float32)
EXPORT(double, float64)
EXPORT_FOURIER(float, float32)
EXPORT_FOURIER(double, float64)
EXPORT_NETWORK(float, float32)
EXPORT_NETWORK(double, float64)
EXPORT_CYCLE(float, float, float32_float32)
EXPORT_CYCLE(float, double, float32_float64)
EXPORT_CYCLE(double, float, float64_float32)
EXPORT_CYCLE(double, double, float64_float64)
