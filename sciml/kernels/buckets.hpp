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

// Sorts pairs by low, which is below count, then by high, then as they stand, which makes runs of equal pairs. order: the
// places of the pairs; begins[r]: where in it run r starts, and where the last ends; its numbers. Returns how many there are.
inline Index runs_of_pairs(Index size, const std::int32_t *low, const std::int32_t *high, Index count,
                           std::int32_t *order, std::int32_t *begins, std::int32_t *run_low, std::int32_t *run_high,
                           const Team &team) {
    std::vector<std::int32_t> starts(count + 1), runs(count + 1);
    buckets(size, low, count, starts.data(), order, team);
    over_rows(count, 8 * size, team, [&](Index first, Index last) {
        std::vector<std::uint64_t> keys;
        for (Index i = first; i < last; ++i) {
            keys.clear();
            for (Index at = starts[i]; at < starts[i + 1]; ++at)
                keys.push_back(std::uint64_t(high[order[at]]) << 32 | std::uint64_t(order[at]));
            std::sort(keys.begin(), keys.end());
            std::uint64_t last_high = ~std::uint64_t(0);
            for (std::size_t k = 0; k < keys.size(); ++k) {
                order[starts[i] + k] = std::int32_t(keys[k]);
                runs[i + 1] += keys[k] >> 32 != last_high;
                last_high = keys[k] >> 32;
            }
        }
    });
    for (Index i = 0; i < count; ++i) runs[i + 1] += runs[i];
    over_rows(count, 8 * size, team, [&](Index first, Index last) {
        for (Index i = first; i < last; ++i) {
            std::int32_t run = runs[i];
            for (std::int32_t at = starts[i]; at < starts[i + 1]; ++at)
                if (at == starts[i] || high[order[at]] != high[order[at - 1]]) {
                    begins[run] = at, run_low[run] = std::int32_t(i), run_high[run] = high[order[at]];
                    ++run;
                }
        }
    });
    begins[runs[count]] = std::int32_t(size);
    return runs[count];
}
