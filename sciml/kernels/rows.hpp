// What all kernels share: rows of fields split over threads, sums of weighted rows in registers, sums over fields.
//
// Every field is a contiguous row-major array over three space axes n[0] x n[1] x n[2] (leading axes of length 1 in
// fewer dimensions) with a batch stride, in elements. Work is split over rows along the last axis.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>
#include <omp.h>

using Index = std::int64_t;

constexpr Index MAX_TERMS = 64;   // 5-point to 27-point stencils, and fourth order in 3D

// Index of a neighbour, wrapped on a periodic axis; -1 where there is none.
inline Index neighbour(Index i, Index n, bool periodic) {
    if (i >= 0 && i < n) return i;
    if (!periodic) return -1;
    while (i < 0) i += n;
    while (i >= n) i -= n;
    return i;
}

// Goes through the rows (batch, i, j) of fields without a division for each.
struct Place {
    Index batch, i, j, n0, n1;

    Place(Index row, Index n0, Index n1) : batch(row / (n0 * n1)), i(row / n1 % n0), j(row % n1), n0(n0), n1(n1) {}

    void next() {
        if (++j < n1) return;
        j = 0;
        if (++i < n0) return;
        i = 0, ++batch;
    }
};

constexpr Index SHARED = 30000;   // operations from which on a second thread pays

// Lets threads wait for each other. Whoever has waited for some microseconds yields: on a busy machine the threads may
// share one core, and those of OpenMP's own barrier then spin away whole slices of time.
class Barrier {
    std::atomic<int> arrived{0}, round{0};

public:
    void wait(int count) {
        const int now = round.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) == count - 1) {
            arrived.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round.load(std::memory_order_acquire) == now; ++spins)
            if (spins > 5000) std::this_thread::yield();
    }
};

// The threads that work on a kernel: as many as may be started, or, with a barrier, one of those at work on it now.
struct Team {
    int count = 1, me = 0;
    Barrier *barrier = nullptr;

    void wait() const {
        if (barrier) barrier->wait(count);
    }
};

// body(begin, end) on shares of the rows, one a thread; returns when all are done.
template <class F>
void over_rows(Index rows, Index cost, const Team &team, F body) {
    if (team.barrier) {
        body(rows * team.me / team.count, rows * (team.me + 1) / team.count);
        team.wait();
    } else if (team.count == 1 || cost <= SHARED) {
        body(0, rows);
    } else {
#pragma omp parallel num_threads(team.count)
        {
            const Index count = omp_get_num_threads(), me = omp_get_thread_num();
            body(rows * me / count, rows * (me + 1) / count);
        }
    }
}

// A vector register's worth of numbers, or two or four where the processor's are shorter.
template <class T, int BYTES>
struct Lane {
    static constexpr Index WIDTH = BYTES / sizeof(T);
    typedef T Type __attribute__((vector_size(BYTES)));
    static Type load(const T *from) {
        Type value;
        __builtin_memcpy(&value, from, BYTES);
        return value;
    }
    static void store(T *to, Type value) { __builtin_memcpy(to, &value, BYTES); }
};

// A row of sums over terms: scalar weights times rows, and weight rows times rows.
template <class T>
struct Terms {
    const T *x[MAX_TERMS], *vector_x[MAX_TERMS], *vector_c[MAX_TERMS];
    T c[MAX_TERMS];
    int scalars = 0, vectors = 0;
};

// The sums at N lanes from k on, held in registers over all terms, handed to finish(k, sum) lane by lane.
template <int BYTES, int N, class T, class F>
inline void strip(const Terms<T> &terms, Index k, F finish) {
    using L = Lane<T, BYTES>;
    typename L::Type sum[N] = {};
    for (int t = 0; t < terms.scalars; ++t) {
        const T *x = terms.x[t] + k;
        const T c = terms.c[t];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum[n] += c * L::load(x + n * L::WIDTH);
    }
    for (int t = 0; t < terms.vectors; ++t) {
        const T *x = terms.vector_x[t] + k, *c = terms.vector_c[t] + k;
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum[n] += L::load(c + n * L::WIDTH) * L::load(x + n * L::WIDTH);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) finish(L{}, k + n * L::WIDTH, sum[n]);
}

// Strips of one lane over [begin, end), the last one moved back to end there; false if that is shorter than a lane.
template <int BYTES, class T, class F>
inline bool lanes(const Terms<T> &terms, Index begin, Index end, Index from, F finish) {
    constexpr Index W = Lane<T, BYTES>::WIDTH;
    if (end - begin < W) return false;
    for (; from < end; from += W) strip<BYTES, 1>(terms, std::min(from, end - W), finish);
    return true;
}

// finish(lane, k, sum) for all k in [begin, end), some of them twice.
template <class T, class F>
void over_lanes(const Terms<T> &terms, Index begin, Index end, F finish) {
    constexpr Index W = Lane<T, 64>::WIDTH;
    Index k = begin;
    for (; end - k >= 4 * W; k += 4 * W) strip<64, 4>(terms, k, finish);
    if (k == end) return;
    if (end - k > 2 * W && end - begin >= 4 * W) return strip<64, 4>(terms, end - 4 * W, finish);
    if (end - k > W && end - begin >= 2 * W) {
        strip<64, 2>(terms, k = std::min(k, end - 2 * W), finish);
        if ((k += 2 * W) == end) return;
    }
    if (lanes<64>(terms, begin, end, k, finish) || lanes<32>(terms, begin, end, k, finish) ||
        lanes<16>(terms, begin, end, k, finish))
        return;
    for (; k < end; ++k) strip<sizeof(T), 1>(terms, k, finish);
}

// sum[k] = all terms at k, begin <= k < end.
template <class T>
void accumulate(T *sum, const Terms<T> &terms, Index begin, Index end) {
    over_lanes(terms, begin, end, [=](auto lane, Index k, auto value) { lane.store(sum + k, value); });
}

constexpr Index LANES = 16;   // partial sums side by side, so that a sum vectorises without reordering by the compiler

template <class T>
double dot_block(const T *__restrict x, const T *__restrict y, Index length) {
    T lane[LANES] = {};
    Index k = 0;
    for (; k + LANES <= length; k += LANES)
        for (Index l = 0; l < LANES; ++l) lane[l] += x[k + l] * y[k + l];
    for (Index l = 0; k < length; ++k, ++l) lane[l] += x[k] * y[k];
    double s = 0;
    for (Index l = 0; l < LANES; ++l) s += lane[l];
    return s;
}

constexpr Index BLOCK = 4096;   // elements summed at once: sums do not depend on the number of threads

// total[row] = sum of block(row, begin, end) over the blocks of a row. A team at work gives `partial` in common, and each
// of its threads has all totals.
template <class F>
void sum_blocks(Index batch, Index size, const Team &team, double *total, double *partial, F block) {
    const Index blocks = (size + BLOCK - 1) / BLOCK;
    std::vector<double> own(partial ? 0 : batch * blocks);
    if (!partial) partial = own.data();
    over_rows(batch * blocks, batch * size, team, [&](Index begin, Index end) {
        for (Index at = begin; at < end; ++at) {
            const Index row = at / blocks, start = at % blocks * BLOCK;
            partial[at] = block(row, row * size + start, row * size + std::min(start + BLOCK, size));
        }
    });
    for (Index row = 0; row < batch; ++row) {
        total[row] = 0;
        for (Index at = 0; at < blocks; ++at) total[row] += partial[row * blocks + at];
    }
}

// body(row, begin, end) for the blocks of all rows.
template <class F>
void over_blocks(Index batch, Index size, const Team &team, F body) {
    const Index blocks = (size + BLOCK - 1) / BLOCK;
    over_rows(batch * blocks, batch * size, team, [&](Index begin, Index end) {
        for (Index at = begin; at < end; ++at) {
            const Index row = at / blocks, start = at % blocks * BLOCK;
            body(row, row * size + start, row * size + std::min(start + BLOCK, size));
        }
    });
}
