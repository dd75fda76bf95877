// foretoken._core.SuffixAutomaton and TextChances, for foretoken.ops.native. Places go to Python as (state, length).
#include "bindings/text.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <tuple>

#include "base/errors.h"
#include "text/chances.h"
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

int32_t token_of(const nb::list& tokens, int64_t i) { return nb::cast<int32_t>(tokens[static_cast<size_t>(i)]); }

void take_in(Automaton& automaton, const nb::list& tokens) {
    automaton.observe(static_cast<int64_t>(tokens.size()), [&](int64_t i) { return token_of(tokens, i); });
}

void bind_chances(nb::module_& m) {
    nb::class_<TextChances>(m, "TextChances")
        .def(nb::init<>())
        .def("of", &TextChances::of)
        .def("learn",  // draft[0] stands at written[at]; returns known, are all right, offset, errors
             [](TextChances& self, nb::sequence draft, size_t known, nb::sequence written, size_t at, double trust) {
                 const size_t written_len = nb::len(written) - std::min(nb::len(written), at);
                 const auto found = self.learn(known, std::min(nb::len(draft), written_len), trust, [&](size_t i) {
                     return nb::object(draft[i]).equal(nb::object(written[at + i]));
                 });
                 return std::tuple{found.count,     found.is_right,  found.offset,
                                   found.errors[0], found.errors[1], found.errors[2]};
             });
}

}  // namespace

void bind_text(nb::module_& m) {
    auto automaton =
        nb::class_<Automaton>(m, "SuffixAutomaton")
            .def(
                "__init__",
                [](Automaton* self, std::vector<float> rates, float step, int64_t window, std::vector<int32_t> stops) {
                    require(rates.size() == 2 * Automaton::kLengthCells, [&] {
                        return "rates: " + number(static_cast<long long>(rates.size())) + " numbers, expected " +
                               number(2 * Automaton::kLengthCells);
                    });
                    require(window >= 1, [&] { return "window: " + number(window) + ", expected at least 1"; });
                    new (self) Automaton(std::move(rates), step, window, std::move(stops));
                },
                nb::arg("rates"), nb::arg("step"), nb::arg("window"), nb::arg("stops") = std::vector<int32_t>{})
            .def("observe",  // returns `next_chance`
                 [](Automaton& self, const nb::list& tokens) {
                     take_in(self, tokens);
                     return self.next_chance();
                 })
            .def("tells",  // takes the tokens in only where the answer may be yes
                 [](Automaton& self, const nb::list& tokens, float chance, int32_t length) {
                     const int32_t least = std::min(length, self.least_length(chance));
                     const auto token_at = [&](int64_t i) { return token_of(tokens, i); };
                     if (!self.may_match(static_cast<int64_t>(tokens.size()), least, token_at)) return false;
                     take_in(self, tokens);
                     return self.place().length >= length || self.next_chance() >= chance;
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
            .def_prop_ro("rates", &Automaton::rates);
    automaton.attr("COUNTED") = Automaton::kCounted;
    bind_chances(m);
}

}  // namespace foretoken
