// The persistent thread pool of this process, and the scratch memory of the call that holds it.
//
// Each thread has an equal share of neighbouring items, so that it reads memory from one place onwards; it takes
// `grain` of them at a time, and when it is done half of what another has left. Where the grain is even no pair of
// items is cut. No result may depend on who takes what.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/float_env.h"

namespace foretoken {

constexpr int kMaxThreads = 256;

class Pool {
  public:
    static Pool& instance();

    int threads() const { return threads_.load(std::memory_order_relaxed); }
    void set_threads(int n);  // 1 ... kMaxThreads; waits for the call in progress

  private:
    friend class Session;
    friend class PoolHold;
    using Work = void (*)(const void* context, int64_t first, int64_t last);

    void run(int64_t items, int64_t grain, Work work, const void* context);
    void take_runs(int own);
    bool next_run(int own, uint64_t& run);
    uint64_t front_of(uint64_t left) const;
    void worker(int own, uint32_t seen);
    void stop_workers();
    unsigned char* scratch(size_t bytes);

    std::mutex mutex_;  // held by one Session at a time
    std::vector<std::thread> workers_;
    std::atomic<int> threads_{1};
    std::unique_ptr<unsigned char[]> memory_;
    size_t memory_len_ = 0;

    // The units that a thread has left: the first in the upper half, one past the last in the lower.
    struct alignas(64) Share {
        std::atomic<uint64_t> units{0};
    };

    // The job; written only while no worker is inside.
    Work work_ = nullptr;
    const void* context_ = nullptr;
    int64_t items_ = 0, unit_ = 1, grain_ = 1;  // items of a unit, units of a run
    bool is_stopping_ = false;

    alignas(64) std::atomic<uint32_t> generation_{0};  // raised for every job; idle workers sleep on it
    alignas(64) std::atomic<uint32_t> inside_{0};      // kOpen while the job may be joined, plus workers inside it
    Share shares_[kMaxThreads];                        // by thread, the caller's first
};

// Keeps the pool for this thread over many ops, so that programs of several threads take turns by whole runs. Inside
// another hold it does nothing. Never hold the GIL around it.
class PoolHold {
  public:
    PoolHold() : pool_(Pool::instance()), is_outer_(!held) {
        if (is_outer_) pool_.mutex_.lock();
        held = true;
    }
    // Takes the pool only where no other thread has it: `is_held` tells.
    explicit PoolHold(std::try_to_lock_t) : pool_(Pool::instance()), is_outer_(!held && pool_.mutex_.try_lock()) {
        held = held || is_outer_;
    }
    static bool is_held() { return held; }  // by this thread

    ~PoolHold() {
        if (!is_outer_) return;
        held = false;
        pool_.mutex_.unlock();
    }
    PoolHold(const PoolHold&) = delete;
    PoolHold& operator=(const PoolHold&) = delete;

  private:
    static inline thread_local bool held = false;

    Pool& pool_;
    const bool is_outer_;
};

// Exclusive use of the pool for one op: float environment, scratch, parallel loops. Never hold the GIL around it.
class Session {
  public:
    Session() : pool_(Pool::instance()) {}

    int threads() const { return pool_.threads(); }

    // 64-byte aligned; valid until the next call of scratch() or the end of the session.
    unsigned char* scratch(size_t bytes) { return pool_.scratch(bytes); }

    // body(first, last) over [0, items), up to `grain` at a time; on this thread alone if that is all there is.
    template <class Body>
    void each(int64_t items, int64_t grain, const Body& body) {
        pool_.run(
            items, grain,
            [](const void* context, int64_t first, int64_t last) { (*static_cast<const Body*>(context))(first, last); },
            &body);
    }

  private:
    Pool& pool_;
    PoolHold hold_;
    FloatEnvironment environment_;
};

}  // namespace foretoken
