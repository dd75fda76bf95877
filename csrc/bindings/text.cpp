// foretoken._core.SuffixAutomaton, for foretoken.ops.native. Places go to Python as (state, length).
#include "bindings/text.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "base/errors.h"
#include "text/suffix_automaton.h"

namespace foretoken {
namespace {

namespace nb = nanobind;
using Automaton = SuffixAutomaton;
using PlacePair = std::tuple<int32_t, int32_t>;

PlacePair pair_of(Automaton::Place place) { return {place.state, place.length}; }

Automaton::Place place_of(const Automaton& automaton, PlacePair pair) {
    const Automaton::Place place{std::get<0>(pair), std::get<1>(pair)};
    require(automaton.has(place),
            [&] { return "place: (" + number(place.state) + ", " + number(place.length) + ") is none of this text"; });
    return place;
}

}  // namespace

void bind_text(nb::module_& m) {
    auto automaton =
        nb::class_<Automaton>(m, "SuffixAutomaton")
            .def("__init__",
                 [](Automaton* self, std::vector<float> rates, float step, int64_t window) {
                     require(rates.size() == 2 * Automaton::kLengthCells, [&] {
                         return "rates: " + number(static_cast<long long>(rates.size())) + " numbers, expected " +
                                number(2 * Automaton::kLengthCells);
                     });
                     require(window >= 1, [&] { return "window: " + number(window) + ", expected at least 1"; });
                     new (self) Automaton(std::move(rates), step, window);
                 })
            .def("observe",  // returns the length of the longest end of the text that occurred before
                 [](Automaton& self, const nb::list& tokens) {
                     self.observe(static_cast<int64_t>(tokens.size()),
                                  [&](int64_t i) { return nb::cast<int32_t>(tokens[static_cast<size_t>(i)]); });
                     return self.place().length;
                 })
            .def("guess",
                 [](const Automaton& self, PlacePair place) -> std::optional<std::tuple<int32_t, int32_t, PlacePair>> {
                     const auto found = self.guess(place_of(self, place));
                     if (!found) return std::nullopt;
                     return std::tuple{found->token, found->cell, pair_of(found->place)};
                 })
            .def("follow",
                 [](const Automaton& self, PlacePair place, int64_t limit, float survival, float least) {
                     nb::list tokens, chances;
                     for (const Automaton::Guess& next : self.follow(place_of(self, place), limit, survival, least)) {
                         tokens.append(next.token);
                         chances.append(self.rates()[static_cast<size_t>(next.cell)]);
                     }
                     return nb::make_tuple(tokens, chances);
                 })
            .def("moved", [](const Automaton& self, PlacePair place,
                             int32_t token) { return pair_of(self.moved(place_of(self, place), token)); })
            .def_prop_ro("size", &Automaton::size)
            .def_prop_ro("place", [](const Automaton& self) { return pair_of(self.place()); })
            .def_prop_ro("chance",  // of the token that the text itself says is next; 0 where it says none
                         [](const Automaton& self) {
                             const auto found = self.guess(self.place());
                             return found ? self.rates()[static_cast<size_t>(found->cell)] : 0.0f;
                         })
            .def_prop_ro("rates", &Automaton::rates);
    automaton.attr("COUNTED") = Automaton::kCounted;
}

}  // namespace foretoken
