#include "ops/program.h"

#include <algorithm>
#include <cstring>

#include "base/pool.h"

namespace foretoken {
namespace {

thread_local Program* the_recording = nullptr;

}  // namespace

Program::~Program() {
    if (the_recording == this) the_recording = nullptr;
}

Program* Program::recording() { return the_recording; }

void Program::begin() {
    require(!the_recording, [] { return std::string("a program is being recorded on this thread already"); });
    require(ops_.empty(), [] { return std::string("the program is recorded already"); });
    the_recording = this;
}

void Program::end() {
    if (the_recording == this) the_recording = nullptr;
}

bool Program::knows(const void* data) const {
    if (slot_of(data)) return true;
    auto after = own_.upper_bound(data);
    if (after == own_.begin()) return false;
    --after;
    return static_cast<const char*>(data) < static_cast<const char*>(after->first) + after->second;
}

void Program::bind(size_t index, Slot slot) {
    require(index < slots_.size(),
            [&] { return "slot " + std::to_string(index) + " of " + std::to_string(slots_.size()); });
    Slot& old = slots_[index];
    bool fits = !old.data || (old.item_bytes == slot.item_bytes && old.shape.size() == slot.shape.size());
    for (size_t axis = slot.shape.size() == 2 ? 2 : 1; old.data && fits && axis < slot.shape.size(); ++axis) {
        fits = old.shape[axis] == slot.shape[axis];
    }
    require(fits, [&] { return "slot " + std::to_string(index) + ": an array of another kind than was recorded"; });
    old = std::move(slot);
}

const Slot* Program::slot_of(const void* data) const {
    for (const Slot& slot : slots_) {
        if (slot.data == data) return &slot;
    }
    return nullptr;
}

void Program::set_input(size_t index, const void* data, size_t bytes) {
    const Input& input = inputs_.at(index);
    require(bytes == input.bytes, [&] {
        return "input " + std::to_string(index) + ": " + std::to_string(bytes) + " bytes, expected " +
               std::to_string(input.bytes);
    });
    std::memcpy(input.data, data, bytes);
}

void Program::run(int64_t times, bool goes_on) const {
    require(!the_recording, [] { return std::string("a program cannot run while another is recorded"); });
    const PoolHold hold;
    const auto are_over = [&] {
        return !draws_.empty() && std::all_of(draws_.begin(), draws_.end(), [](const Draw* d) { return d->is_over(); });
    };
    for (int64_t i = 0; i < times && !((i || goes_on) && are_over()); ++i) {
        for (const std::function<void()>& op : ops_) op();
    }
}

SlottedCache::SlottedCache(const Cache& cache) : cache_(cache) {
    if (const Program* program = Program::recording()) {
        keys_ = program->slot_of(cache.keys);
        values_ = program->slot_of(cache.values);
        tables_ = program->slot_of(cache.tables.data);
        require((keys_ == nullptr) == (values_ == nullptr),
                [] { return std::string("keys and values: both or neither in a slot of the program"); });
    }
}

Cache SlottedCache::view() const {
    Cache cache = cache_;
    if (keys_) {
        require(keys_->shape[0] == values_->shape[0], [] { return std::string("keys and values: pages differ"); });
        cache.keys = static_cast<uint16_t*>(keys_->data);
        cache.values = static_cast<uint16_t*>(values_->data);
        cache.pages = keys_->shape[0];
    }
    if (tables_) {
        cache.tables = {static_cast<const int32_t*>(tables_->data), tables_->shape[0], tables_->shape[1],
                        tables_->shape[1]};
    }
    return cache;
}

}  // namespace foretoken
