// Systems of ordinary differential equations: expressions as lists of operations, and whole Runge-Kutta steps of them.
#pragma once

#include <cmath>
#include <vector>

#include "rows.hpp"

enum TapeCode { ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATE, SQRT, ABS, SIN, COS, EXP, LOG, TANH };

// Registers are the inputs, the constants, and one for every operation, in this order.
struct Tape {
    Index inputs, constants, operations, outputs;
    const double *constant;
    const int *code, *first, *second, *output;
};

// How the rows of a batch enter: y and what comes out are `(unknowns, rows)`; an input is the field of an unknown
// (place in `unknown`), the time (`is_time`), a number, or an array with one value a row.
template <class T>
struct TapeInputs {
    const int *unknown, *is_time;
    const double *number;
    const T *const *array;
};

constexpr Index TAPE = 128;  // rows worked on at once, so that all registers stay in the cache

template <class T>
class TapeRunner {
    const Tape &tape;
    const TapeInputs<T> &inputs;
    std::vector<T> memory;
    std::vector<const T *> at;

    T *own(Index place) { return memory.data() + place * TAPE; }

public:
    TapeRunner(const Tape &tape, const TapeInputs<T> &inputs)
        : tape(tape), inputs(inputs), memory((tape.inputs + tape.constants + tape.operations) * TAPE),
          at(tape.inputs + tape.constants + tape.operations) {
        for (std::size_t k = 0; k < at.size(); ++k) at[k] = own(k);
        for (Index k = 0; k < tape.inputs; ++k)
            if (inputs.unknown[k] < 0 && !inputs.is_time[k] && !inputs.array[k])
                std::fill_n(own(k), TAPE, T(inputs.number[k]));
        for (Index k = 0; k < tape.constants; ++k) std::fill_n(own(tape.inputs + k), TAPE, T(tape.constant[k]));
    }

    // out[o] = the value of output o, of `count` rows from `begin` on; state[c] holds unknown c of these rows.
    void run(const T *const *state, double t, Index begin, Index count, T *const *out) {
        for (Index k = 0; k < tape.inputs; ++k) {
            if (inputs.unknown[k] >= 0) at[k] = state[inputs.unknown[k]];
            else if (inputs.is_time[k]) std::fill_n(own(k), count, T(t));
            else if (inputs.array[k]) at[k] = inputs.array[k] + begin;
        }
        for (Index k = 0; k < tape.operations; ++k) {
            T *__restrict r = own(tape.inputs + tape.constants + k);
            const T *a = at[tape.first[k]], *b = at[tape.second[k]];
            switch (tape.code[k]) {
            case ADD: for (Index i = 0; i < count; ++i) r[i] = a[i] + b[i]; break;
            case SUBTRACT: for (Index i = 0; i < count; ++i) r[i] = a[i] - b[i]; break;
            case MULTIPLY: for (Index i = 0; i < count; ++i) r[i] = a[i] * b[i]; break;
            case DIVIDE: for (Index i = 0; i < count; ++i) r[i] = a[i] / b[i]; break;
            case NEGATE: for (Index i = 0; i < count; ++i) r[i] = -a[i]; break;
            case SQRT: for (Index i = 0; i < count; ++i) r[i] = std::sqrt(a[i]); break;
            case ABS: for (Index i = 0; i < count; ++i) r[i] = std::abs(a[i]); break;
            case SIN: for (Index i = 0; i < count; ++i) r[i] = std::sin(a[i]); break;
            case COS: for (Index i = 0; i < count; ++i) r[i] = std::cos(a[i]); break;
            case EXP: for (Index i = 0; i < count; ++i) r[i] = std::exp(a[i]); break;
            case LOG: for (Index i = 0; i < count; ++i) r[i] = std::log(a[i]); break;
            case TANH: for (Index i = 0; i < count; ++i) r[i] = std::tanh(a[i]); break;
            }
        }
        for (Index o = 0; o < tape.outputs; ++o) std::copy_n(at[tape.output[o]], count, out[o]);
    }
};

// rate = f(y, t)
template <class T>
void tape_rate(const Tape &tape, const TapeInputs<T> &inputs, Index unknowns, Index rows, const T *y, double t, T *rate,
               const Team &team) {
    const Index blocks = (rows + TAPE - 1) / TAPE;
    over_rows(blocks, rows * tape.operations, team, [&](Index from, Index to) {
        TapeRunner<T> runner(tape, inputs);
        std::vector<const T *> state(unknowns);
        std::vector<T *> out(unknowns);
        for (Index block = from; block < to; ++block) {
            const Index begin = block * TAPE, count = std::min(TAPE, rows - begin);
            for (Index c = 0; c < unknowns; ++c) state[c] = y + c * rows + begin, out[c] = rate + c * rows + begin;
            runner.run(state.data(), t, begin, count, out.data());
        }
    });
}

// total = y + sum of weight[j] * stage j, of one block; `stages` is `(stages, unknowns, rows)`
template <class T>
inline void tape_combine(const T *y, const T *stages, Index stride, Index count, Index used, const T *weight,
                         T *__restrict total) {
    if (y) std::copy_n(y, count, total);
    else std::fill_n(total, count, T(0));
    for (Index j = 0; j < used; ++j) {
        const T w = weight[j];
        if (w == 0) continue;
        const T *__restrict k = stages + j * stride;
        for (Index i = 0; i < count; ++i) total[i] += w * k[i];
    }
}

// One explicit Runge-Kutta step: fills stages 1 to s - 1 (stage 0 too if `whole`), the value at its end and, if asked
// for, the error. `weights` has s + 2 rows of s: the matrix of the method, its weights and those of the error, times h.
template <class T>
void tape_step(const Tape &tape, const TapeInputs<T> &inputs, Index unknowns, Index rows, const T *y, double t, double h,
               Index s, const T *weights, const double *c, bool whole, bool last_is_end, T *stages, T *value, T *error,
               const Team &team) {
    const Index blocks = (rows + TAPE - 1) / TAPE, stride = unknowns * rows;
    over_rows(blocks, rows * s * (tape.operations + unknowns * s), team, [&](Index from, Index to) {
        TapeRunner<T> runner(tape, inputs);
        std::vector<T> moved(unknowns * TAPE);
        std::vector<const T *> state(unknowns);
        std::vector<T *> out(unknowns);
        for (Index block = from; block < to; ++block) {
            const Index begin = block * TAPE, count = std::min(TAPE, rows - begin);
            for (Index i = whole ? 0 : 1; i < s; ++i) {
                for (Index u = 0; u < unknowns; ++u) {
                    const Index at = u * rows + begin;
                    T *to_state = i == s - 1 && last_is_end ? value + at : moved.data() + u * TAPE;
                    tape_combine(y + at, stages + at, stride, count, i, weights + i * s, to_state);
                    state[u] = to_state, out[u] = stages + i * stride + at;
                }
                runner.run(state.data(), t + c[i] * h, begin, count, out.data());
            }
            for (Index u = 0; u < unknowns; ++u) {
                const Index at = u * rows + begin;
                if (!last_is_end) tape_combine(y + at, stages + at, stride, count, s, weights + s * s, value + at);
                if (error) tape_combine((const T *)nullptr, stages + at, stride, count, s, weights + (s + 1) * s, error + at);
            }
        }
    });
}
