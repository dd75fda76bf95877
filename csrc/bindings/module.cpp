// The extension foretoken._core: arrays in, exceptions out, lock released. No arithmetic.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/angle.h"
#include "base/cpu.h"
#include "base/half.h"
#include "base/pool.h"
#include "bindings/arguments.h"
#include "bindings/program.h"
#include "bindings/text.h"
#include "ops/dispatch.h"

namespace foretoken {

using Handle = nb::handle;

static void bind_linear(nb::module_& m) {
    m.def(
        "linear",
        [](Handle x, Handle weight, Handle out, std::optional<float> cap) {
            const In a("x", x);
            const WeightArgument w(weight);
            const Out o("out", out);
            const auto rows = a.rows();
            const Weight matrix = w.view();
            const auto to = o.rows();
            issue([=] { linear(rows, matrix, cap, to); });
        },
        nb::arg("x"), nb::arg("weight"), nb::arg("out"), nb::arg("cap") = nb::none());
    m.def("cluster_logits", [](Handle z, Handle weight, Handle clusters, int64_t cluster_len, Handle out) {
        const In a("z", z);
        const WeightArgument w(weight);
        const InIds c("clusters", clusters);
        const Out o("out", out);
        const auto input = a.vector();
        const Weight matrix = w.view();
        const auto chosen = c.vector();
        const auto to = o.vector();
        issue([=] { cluster_logits(input, matrix, chosen, cluster_len, to); });
    });
    m.def("packed_bytes", [](const std::string& format, const std::string& layout, int64_t n, int64_t k) {
        return packed_bytes(format_named(format), layout_named(layout), n, k);
    });
    m.def("pack", [](Handle w, const std::string& format, const std::string& layout, Handle out) {
        const In a("w", w);
        const Array<uint8_t> o("out", out);
        const auto rows = a.rows();
        uint8_t* to = o.dims(1);
        const Format f = format_named(format);
        const Layout l = layout_named(layout);
        require(o.dim(0) == packed_bytes(f, l, rows.rows, rows.cols), [] { return std::string("out: wrong length"); });
        const nb::gil_scoped_release unlocked;
        pack(rows, f, l, to);
    });
    m.def("pack_q4_0", [](Handle blocks, const std::string& layout, Handle out) {
        const Array<const uint8_t> a("blocks", blocks);
        const Array<uint8_t> o("out", out);
        const uint8_t* from = a.dims(3);
        require(a.dim(2) == sizeof(BlockQ4Row),
                [&] { return "blocks: " + number(a.dim(2)) + " bytes a block, expected 18, as (N, K / 32, 18)"; });
        const int64_t n = a.dim(0), count = a.dim(1);
        const Layout l = layout_named(layout);
        uint8_t* to = o.dims(1);
        require(o.dim(0) == packed_bytes(Format::q4, l, n, count * kBlock),
                [] { return std::string("out: wrong length"); });
        const nb::gil_scoped_release unlocked;
        pack_q4_0({from, n, count * 18, count * 18}, l, to);
    });
    m.def("unpack", [](Handle weight, Handle out) {
        const WeightArgument w(weight);
        const Out o("out", out);
        const auto to = o.rows();
        const nb::gil_scoped_release unlocked;
        unpack(w.view(), to);
    });
}

static void bind_embedding(nb::module_& m) {
    m.def("embed", [](Handle ids, Handle weight, float scale, Handle out) {
        const InIds i("ids", ids);
        const WeightArgument w(weight);
        const Out o("out", out);
        const auto tokens = i.vector();
        const Weight matrix = w.view();
        const auto to = o.rows();
        issue([=] { embed(tokens, matrix, scale, to); });
    });
    m.def("per_layer", [](Handle context, Handle ids, Handle table, Handle weight, float eps, float context_scale,
                          float token_scale, Handle out) {
        const In c("context", context);
        const InIds i("ids", ids);
        const WeightArgument t(table);
        const In w("weight", weight);
        const Out o("out", out);
        const auto rows = c.rows();
        const auto tokens = i.vector();
        const auto norm = w.vector();
        const Weight matrix = t.view();
        const auto to = o.rows();
        issue([=] { per_layer(rows, tokens, matrix, norm, eps, context_scale, token_scale, to); });
    });
}

static void bind_experts(nb::module_& m) {
    m.def("route", [](Handle scores, Handle scale, Handle ids, Handle weights) {
        const In s("scores", scores), f("scale", scale);
        const Array<int32_t> i("ids", ids);
        const Out w("weights", weights);
        const auto rows = s.rows();
        const auto factors = f.vector();
        const auto to_ids = i.rows();
        const auto to_weights = w.rows();
        issue([=] { route(rows, factors, to_ids, to_weights); });
    });
    m.def("mlp", [](Handle x, Handle gate_up, Handle down, Handle out) {
        const In a("x", x);
        const WeightArgument g(gate_up), d(down);
        const Out o("out", out);
        const auto rows = a.rows();
        const Weight first = g.view(), second = d.view();
        const auto to = o.rows();
        issue([=] { mlp(rows, first, second, to); });
    });
    m.def("experts",
          [](Handle x, Handle ids, Handle weights, Handle gate_up, Handle down, int64_t num_experts, Handle out) {
              const In a("x", x), w("weights", weights);
              const InIds i("ids", ids);
              const WeightArgument g(gate_up), d(down);
              const Out o("out", out);
              const auto rows = a.rows(), factors = w.rows();
              const auto chosen = i.rows();
              const Weight first = g.view(), second = d.view();
              const auto to = o.rows();
              issue([=] { experts(rows, chosen, factors, first, second, num_experts, to); });
          });
}

static void bind_norms(nb::module_& m) {
    m.def(
        "rms_norm",
        [](Handle x, Handle weight, float eps, Handle out) {
            const In a("x", x), w("weight", weight, true);
            const Out o("out", out);
            const auto rows = a.rows();
            const auto norm = w.vector();
            const auto to = o.rows();
            issue([=] { rms_norm(rows, norm, eps, to); });
        },
        nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
    m.def(
        "norm_add",
        [](Handle x, Handle weight, float eps, float scale, Handle residual) {
            const In a("x", x), w("weight", weight, true);
            const Out o("residual", residual);
            const auto rows = a.rows();
            const auto norm = w.vector();
            const auto to = o.rows();
            issue([=] { norm_add(rows, norm, eps, scale, to); });
        },
        nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
    m.def(
        "head_norm_rope",
        [](Handle x, int64_t head_len, Handle weight, float eps, Handle cos, Handle sin) {
            const Out o("x", x);
            const In w("weight", weight, true), c("cos", cos, true), s("sin", sin, true);
            const auto rows = o.rows();
            const auto norm = w.vector();
            const auto cosines = c.rows(), sines = s.rows();
            issue([=] { head_norm_rope(rows, head_len, norm, eps, cosines, sines); });
        },
        nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg().none());
}

template <class T>
static void bind_take_rows(nb::module_& m, const char* name) {
    m.def(name, [](Handle x, Handle rows, Handle out) {
        const Array<const T> a("x", x);
        const InIds r("rows", rows);
        const Array<T> o("out", out);
        const auto from = a.rows();
        const auto wanted = r.vector();
        const auto to = o.rows();
        issue([=] { take_rows(from, wanted, to); });
    });
}

static void bind_elements(nb::module_& m) {
    m.def("gelu_mul", [](Handle gate, Handle up, Handle out) {
        const In g("gate", gate), u("up", up);
        const Out o("out", out);
        const auto a = g.rows(), b = u.rows();
        const auto to = o.rows();
        issue([=] { gelu_mul(a, b, to); });
    });
    m.def("rope_rows", [](Handle positions, Handle inv_freq, Handle cos, Handle sin) {
        const InIds p("positions", positions);
        const In f("inv_freq", inv_freq);
        const Out c("cos", cos), s("sin", sin);
        const auto at = p.vector();
        const auto freq = f.vector();
        const auto to_cos = c.rows(), to_sin = s.rows();
        issue([=] { rope_rows(at, freq, to_cos, to_sin); });
    });
    m.def("copy", [](Handle x, Handle out) {
        const In a("x", x);
        const Out o("out", out);
        const auto rows = a.rows();
        const auto to = o.rows();
        issue([=] { copy(rows, to); });
    });
    m.def("finite", [](Handle x) {
        refuse_recording("finite");
        const In a("x", x);
        const auto values = a.vector();
        const nb::gil_scoped_release unlocked;
        return finite(values);
    });
}

static void bind_attention(nb::module_& m) {
    m.def("append_kv",
          [](Handle k, Handle v, Handle keys, Handle values, Handle tables, Handle row_segment, Handle positions) {
              const In a("k", k), b("v", v);
              const CacheArgument c(keys, values, tables, row_segment);
              const SlottedCache cache(c.view());
              const InIds p("positions", positions);
              const auto from_k = a.rows(), from_v = b.rows();
              const auto at = p.vector();
              issue([=] { append_kv(from_k, from_v, cache.view(), at); });
          });
    m.def("attention", [](Handle q, Handle keys, Handle values, Handle tables, Handle row_segment, Handle begin,
                          Handle end, Handle out) {
        const In a("q", q);
        const CacheArgument c(keys, values, tables, row_segment);
        const SlottedCache cache(c.view());
        const InIds b("begin", begin), e("end", end);
        const Out o("out", out);
        const auto rows = a.rows();
        const auto from = b.vector(), until = e.vector();
        const auto to = o.rows();
        issue([=] { attention(rows, cache.view(), from, until, to); });
    });
}

static void bind_sampling(nb::module_& m) {
    m.def(
        "sample_row",
        [](Handle logits, Handle ids, double temperature, int64_t top_k, double top_p, double min_p, uint64_t seed,
           uint64_t position) {
            refuse_recording("sample_row");
            const In l("logits", logits);
            const InIds i("ids", ids, true);
            const auto row = l.vector();
            const auto tokens = i.vector();
            const nb::gil_scoped_release unlocked;
            return sample_row(row, tokens, {temperature, top_k, top_p, min_p, seed, position});
        },
        nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def(
        "draw",
        [](Handle logits, Handle ids, Handle how, Handle token, Handle drawn, Handle chances) {
            const In l("logits", logits);
            const InIds i("ids", ids, true);
            const Array<uint8_t> h("how", how);
            const Array<int32_t> t("token", token), d("drawn", drawn);
            const Out c("chances", chances);
            const auto row = l.vector();
            const auto tokens = i.vector();
            require_len("how", h.vector(), sizeof(Draw));
            require_len("token", t.vector(), 1);
            Draw* const state = reinterpret_cast<Draw*>(h.vector().data);
            require(reinterpret_cast<uintptr_t>(state) % alignof(Draw) == 0,
                    [] { return std::string("how: memory that is not aligned"); });
            int32_t* const to = t.vector().data;
            const auto all = d.vector();
            const auto chance = c.vector();
            issue([=] { draw(row, tokens, state, to, all, chance); });
            if (Program* program = Program::recording()) program->add_draw(state);
        },
        nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("top_clusters", [](Handle scores, Handle out) {
        const In s("scores", scores);
        const Array<int32_t> o("out", out);
        const auto row = s.vector();
        const auto to = o.vector();
        issue([=] { top_clusters(row, to); });
    });
}

// Parts of ops, for tests/kernels only.
static void bind_parts(nb::module_& m) {
    m.def("apply_math", [](const std::string& name, Handle x, Handle out) {
        const In a("x", x);
        const Out o("out", out);
        const auto from = a.vector();
        const auto to = o.vector();
        require_len("out", to, from.len);
        if (name == "sin" || name == "cos") {
            float other;
            for (int64_t i = 0; i < from.len; ++i) {
                name == "sin" ? sin_cos(from.data[i], to.data + i, &other) : sin_cos(from.data[i], &other, to.data + i);
            }
            return;
        }
        const FloatEnvironment environment;
        require(kernels().math(name.c_str(), from.data, from.len, to.data), [&] { return "no function " + name; });
    });
    m.def("noise", [](Handle words, Handle out) {
        const Array<const uint32_t> a("words", words);
        const Out o("out", out);
        const auto from = a.vector();
        const auto to = o.vector();
        require_len("out", to, from.len);
        kernels().noise(from.data, from.len, to.data);
    });
    m.def("philox", [](Handle counter, Handle key, Handle out) {
        const Array<const uint32_t> c("counter", counter), k("key", key);
        const Array<uint32_t> o("out", out);
        require_len("counter", c.vector(), 4);
        require_len("key", k.vector(), 2);
        require_len("out", o.vector(), 4);
        philox(c.vector().data, k.vector().data, o.vector().data);
    });
    m.def("round_half", [](Handle x, Handle out) {
        const In a("x", x);
        const Array<uint16_t> o("out", out);
        const auto from = a.vector();
        const auto to = o.vector();
        require_len("out", to, from.len);
        for (int64_t i = 0; i < from.len; ++i) to.data[i] = half_from_float(from.data[i]);
    });
    m.def("widen_half", [](Handle x, Handle out) {
        const Array<const uint16_t> a("x", x);
        const Out o("out", out);
        const auto from = a.vector();
        const auto to = o.vector();
        require_len("out", to, from.len);
        for (int64_t i = 0; i < from.len; ++i) to.data[i] = half_to_float(from.data[i]);
    });
}

static void bind_process(nb::module_& m) {
    m.def("set_threads", [](int64_t n) {
        require(1 <= n && n <= kMaxThreads, [&] { return "threads: " + number(n) + ", expected 1 to 256"; });
        const nb::gil_scoped_release unlocked;
        Pool::instance().set_threads(static_cast<int>(n));
    });
    m.def("threads", [] { return Pool::instance().threads(); });
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const Kernels* row : available_kernels()) names.push_back(row->isa);
        return names;
    });
    m.def("multiply_peak", [](const std::string& format, int64_t rounds) {
        const Format f = format_named(format);
        const nb::gil_scoped_release unlocked;
        return multiply_peak(f, rounds);
    });
    m.def("isa", [] { return std::string(kernels().isa); });
    m.def("is_intel", is_intel);
    m.def("take_for_intel", take_for_intel);
    m.def("set_isa", [](const std::string& name) { return use_kernels(name); });
}

}  // namespace foretoken

NB_MODULE(_core, m) {
    using namespace foretoken;
    // The classes live as long as the interpreter; the translator runs with the lock held.
    static PyObject *shape_error, *weights_error;
    const nb::object errors = nb::module_::import_("foretoken.errors");
    shape_error = nb::object(errors.attr("ShapeError")).release().ptr();
    weights_error = nb::object(errors.attr("WeightsError")).release().ptr();
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const ShapeError& e) {
            PyErr_SetString(shape_error, e.what());
        } catch (const WeightsError& e) {
            PyErr_SetString(weights_error, e.what());
        }
    });
    bind_linear(m);
    bind_embedding(m);
    bind_experts(m);
    bind_norms(m);
    bind_elements(m);
    bind_take_rows<float>(m, "take_rows");
    bind_take_rows<int32_t>(m, "take_ids");
    bind_attention(m);
    bind_sampling(m);
    bind_parts(m);
    bind_process(m);
    bind_program(m);
    bind_text(m);
}
