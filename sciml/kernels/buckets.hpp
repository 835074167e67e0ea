// Counting sorts of integers.
#pragma once

#include "rows.hpp"

// Sorts by keys in 0 .. count - 1, equal keys as they stand: order[starts[i]] .. order[starts[i + 1] - 1] are the places
// of the keys i. Each thread counts and then places its share; its share of a bucket follows those of the threads before.
inline void buckets(Index size, const std::int32_t *keys, Index count, std::int32_t *starts, std::int32_t *order,
                    const Team &team) {
    const Index shares = size <= SHARED ? 1 : team.count;
    std::vector<std::int32_t> next(shares * count);
    over_rows(shares, size, team, [&](Index first, Index last) {
        for (Index share = first; share < last; ++share)
            for (Index k = size * share / shares; k < size * (share + 1) / shares; ++k) ++next[share * count + keys[k]];
    });
    std::int32_t total = 0;
    for (Index i = 0; i < count; ++i) {
        starts[i] = total;
        for (Index share = 0; share < shares; ++share) {
            const std::int32_t own = next[share * count + i];
            next[share * count + i] = total;
            total += own;
        }
    }
    starts[count] = total;
    over_rows(shares, size, team, [&](Index first, Index last) {
        for (Index share = first; share < last; ++share)
            for (Index k = size * share / shares; k < size * (share + 1) / shares; ++k)
                order[next[share * count + keys[k]]++] = std::int32_t(k);
    });
}
