#include "base/pool.h"

#include <algorithm>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace foretoken {
namespace {

constexpr uint32_t kOpen = 1u << 31;
constexpr int kSpins = 6000;   // about 150 µs on Zen 4: longer than from one plain pass of a small model to the next
constexpr int kYields = 1000;  // about 550 µs more: longer than a gap in which drafts are planned, made and judged

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    asm volatile("yield");
#endif
}

// Waits until `value` is no longer `old`: spins, then leaves the core to anyone who wants it but looks again at once,
// then sleeps. To be woken from sleep takes about half as long as a plain pass of a small model.
void wait_change(const std::atomic<uint32_t>& value, uint32_t old) {
    for (int i = 0; i < kSpins; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        pause();
    }
    for (int i = 0; i < kYields; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        std::this_thread::yield();
    }
    value.wait(old, std::memory_order_acquire);
}

// Units [first, last), each below 2^32.
uint64_t share(int64_t first, int64_t last) { return static_cast<uint64_t>(first) << 32 | static_cast<uint64_t>(last); }
int64_t first_of(uint64_t share) { return static_cast<int64_t>(share >> 32); }
int64_t last_of(uint64_t share) { return static_cast<uint32_t>(share); }

std::atomic<Pool*> the_pool{nullptr};

}  // namespace

Pool& Pool::instance() {
    // Never destroyed: workers may still be parked when the process exits. A forked child, in which the workers do
    // not exist, leaves the old pool behind and starts with one thread.
    static const bool is_ready = [] {
        the_pool = new Pool;
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool; });
#endif
        return true;
    }();
    (void)is_ready;
    return *the_pool.load(std::memory_order_acquire);
}

void Pool::set_threads(int n) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (n == threads()) return;
    stop_workers();
    const uint32_t seen = generation_.load();
    for (int i = 1; i < n; ++i) {
        workers_.emplace_back([this, i, seen] { worker(i, seen); });
        threads_ = i + 1;
    }
}

void Pool::stop_workers() {
    is_stopping_ = true;
    inside_.store(kOpen, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& t : workers_) t.join();
    workers_.clear();
    inside_ = 0;
    is_stopping_ = false;
    threads_ = 1;
}

unsigned char* Pool::scratch(size_t bytes) {
    if (bytes > memory_len_) {
        memory_.reset();
        memory_len_ = 0;
        memory_.reset(new unsigned char[bytes + bytes / 4 + 64]);
        memory_len_ = bytes + bytes / 4;
    }
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory_.get());
    return memory_.get() + ((64 - start % 64) % 64);
}

void Pool::take_runs(int own) {
    for (uint64_t run; next_run(own, run);) {
        work_(context_, first_of(run) * unit_, std::min(last_of(run) * unit_, items_));
    }
}

// The next run for thread `own`; false if no thread has anything left.
bool Pool::next_run(int own, uint64_t& run) {
    std::atomic<uint64_t>& mine = shares_[own].units;
    uint64_t left = mine.load(std::memory_order_relaxed);
    while (first_of(left) < last_of(left)) {
        run = front_of(left);
        if (mine.compare_exchange_weak(left, share(last_of(run), last_of(left)), std::memory_order_relaxed))
            return true;
    }
    for (int i = 1; i < threads(); ++i) {
        std::atomic<uint64_t>& other = shares_[(own + i) % threads()].units;
        left = other.load(std::memory_order_relaxed);
        while (first_of(left) < last_of(left)) {
            const int64_t middle = (first_of(left) + last_of(left)) / 2;
            if (other.compare_exchange_weak(left, share(first_of(left), middle), std::memory_order_relaxed)) {
                run = front_of(share(middle, last_of(left)));
                mine.store(share(last_of(run), last_of(left)), std::memory_order_relaxed);
                return true;
            }
        }
    }
    return false;
}

// The first run of what a thread has left.
uint64_t Pool::front_of(uint64_t left) const {
    return share(first_of(left), std::min(first_of(left) + grain_, last_of(left)));
}

// A worker that wakes up late finds the job closed and goes back to sleep; nobody waits for it.
void Pool::worker(int own, uint32_t seen) {
    const FloatEnvironment environment;
    for (;;) {
        wait_change(generation_, seen);
        seen = generation_.load(std::memory_order_acquire);
        uint32_t inside = inside_.load(std::memory_order_acquire);
        while ((inside & kOpen) && !inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) {
        }
        if (!(inside & kOpen)) continue;
        const bool is_stopping = is_stopping_;
        if (!is_stopping) take_runs(own);
        if (inside_.fetch_sub(1, std::memory_order_acq_rel) == 1) inside_.notify_one();  // last one out, job closed
        if (is_stopping) return;
    }
}

void Pool::run(int64_t items, int64_t grain, Work work, const void* context) {
    if (items <= 0) return;
    if (workers_.empty() || items <= grain) {
        work(context, 0, items);
        return;
    }
    work_ = work;
    context_ = context;
    items_ = items;
    unit_ = (items >> 31) + 1;  // units are counted in 32 bits
    unit_ *= grain % 2 ? 1 : 2;
    grain_ = std::max<int64_t>(grain / unit_, 1);
    const int64_t units = (items - 1) / unit_ + 1, n = threads();
    for (int64_t t = 0; t < n; ++t) {
        shares_[t].units.store(share(units * t / n, units * (t + 1) / n), std::memory_order_relaxed);
    }
    inside_.store(kOpen, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    take_runs(0);
    uint32_t left = inside_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    while (left) {
        wait_change(inside_, left);
        left = inside_.load(std::memory_order_acquire);
    }
}

}  // namespace foretoken
