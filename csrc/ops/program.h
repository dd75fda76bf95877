// Ops recorded once and run again, without Python between them.
//
// While a program records, every op that is called on its thread runs and leaves a closure over views of raw memory.
// That memory is one of three: the program's own (its arena and the buffers of its inputs), what stands in its slots
// (arrays that may be others at each run), or arrays that nobody writes. Anything else is refused at recording, so a
// run never reads what a wiring made by other means.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <vector>

#include "ops/ops.h"

namespace foretoken {

// An array that may be another at each run; only its first axis, or both of two, may then differ in length.
struct Slot {
    void* data = nullptr;
    int64_t item_bytes = 0;
    std::vector<int64_t> shape;
};

class Program {
  public:
    Program() = default;
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program();

    static Program* recording();  // the program that this thread records, or null
    void begin();
    void end();
    void add(std::function<void()> op) { ops_.push_back(std::move(op)); }
    size_t len() const { return ops_.size(); }

    void allow(const void* data, size_t bytes) { own_[data] = bytes; }
    bool knows(const void* data) const;

    // Closures keep the address of a slot, so slots are all made before recording.
    void set_slots(size_t count) { slots_.resize(count); }
    void bind(size_t index, Slot slot);
    const Slot* slot_of(const void* data) const;  // null if it stands in none

    void add_input(void* data, size_t bytes) { inputs_.push_back({data, bytes}); }
    size_t num_inputs() const { return inputs_.size(); }
    void set_input(size_t index, const void* data, size_t bytes);

    void add_draw(const Draw* draw) { draws_.push_back(draw); }

    // All ops in order, so many times over, or until all draws are over; where it does not go on from another run, at
    // least once. Holds the thread pool throughout. What an op throws ends it.
    void run(int64_t times, bool goes_on) const;

  private:
    struct Input {
        void* data;
        size_t bytes;
    };

    std::vector<std::function<void()>> ops_;
    std::map<const void*, size_t> own_;  // start of memory that it may use, and bytes
    std::vector<Slot> slots_;
    std::vector<Input> inputs_;
    std::vector<const Draw*> draws_;
};

// One layer's cache whose arrays stand in slots of the program that records, if one does.
class SlottedCache {
  public:
    explicit SlottedCache(const Cache& cache);
    Cache view() const;  // with what stands in the slots now

  private:
    Cache cache_;
    const Slot *keys_ = nullptr, *values_ = nullptr, *tables_ = nullptr;
};

}  // namespace foretoken
