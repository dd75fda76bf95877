// What the core throws; the bindings turn these into the classes of foretoken.errors.
#pragma once

#include <stdexcept>
#include <string>

namespace foretoken {

struct ShapeError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct WeightsError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// For checks at an op's door: `message` is only built when the check fails.
template <class Message>
inline void require(bool is_ok, Message message) {
    if (!is_ok) throw ShapeError(message());
}

inline std::string number(long long n) { return std::to_string(n); }

}  // namespace foretoken
