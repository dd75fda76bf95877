// The extension foretoken._core: arrays in, exceptions out, lock released. No arithmetic.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "base/angle.h"
#include "base/half.h"
#include "base/pool.h"
#include "bindings/arguments.h"
#include "ops/dispatch.h"

namespace foretoken {

using Handle = nb::handle;
using Unlocked = nb::gil_scoped_release;

Format format_named(const std::string& name) {
    if (name == "f32") return Format::f32;
    if (name == "bf16") return Format::bf16;
    if (name == "q8") return Format::q8;
    if (name == "q4") return Format::q4;
    throw ShapeError("format: got \"" + name + "\", expected \"f32\", \"bf16\", \"q8\" or \"q4\"");
}

Layout layout_named(const std::string& name) {
    if (name == "panels") return Layout::panels;
    if (name == "rows") return Layout::rows;
    throw ShapeError("layout: got \"" + name + "\", expected \"panels\" or \"rows\"");
}

static nb::object field(nb::handle packed, const char* name) {
    PyObject* value = PyObject_GetAttrString(packed.ptr(), name);
    if (!value) {
        PyErr_Clear();
        throw ShapeError("weight: expected a Packed, as pack() returns");
    }
    return nb::steal(value);
}

template <class T>
static T field_as(nb::handle packed, const char* name) {
    T value;
    if (!nb::try_cast<T>(field(packed, name), value, false)) {
        throw ShapeError(std::string("weight.") + name + ": a value of the wrong type");
    }
    return value;
}

WeightArgument::WeightArgument(nb::handle packed) : data_("weight.data", field(packed, "data")) {
    weight_.format = format_named(field_as<std::string>(packed, "format"));
    weight_.layout = layout_named(field_as<std::string>(packed, "layout"));
    weight_.n = field_as<int64_t>(packed, "n");
    weight_.k = field_as<int64_t>(packed, "k");
    const int64_t bytes = packed_bytes(weight_.format, weight_.layout, weight_.n, weight_.k);
    weight_.data = data_.dims(1);
    require(data_.dim(0) == bytes, [&] {
        return "weight.data: " + number(data_.dim(0)) + " bytes, expected " + number(bytes) + " for " +
               number(weight_.n) + " x " + number(weight_.k);
    });
    require(reinterpret_cast<uintptr_t>(weight_.data) % 4 == 0,
            [] { return std::string("weight.data: memory that is not aligned"); });
}

// One layer's cache arguments; keys and values are written only by append_kv.
class CacheArgument {
  public:
    CacheArgument(Handle keys, Handle values, Handle tables, Handle row_segment)
        : keys_("keys", keys),
          values_("values", values),
          tables_("tables", tables),
          segment_("row_segment", row_segment) {
        cache_.keys = keys_.dims(5);
        cache_.values = values_.dims(4);
        cache_.pages = keys_.dim(0);
        cache_.kv_heads = keys_.dim(1);
        cache_.head_len = keys_.dim(3);
        require(keys_.dim(2) == 4 && keys_.dim(4) == 16 && cache_.kv_heads > 0 && cache_.head_len > 0 &&
                    cache_.head_len <= 65536,
                [] { return std::string("keys: expected shape (pages, Hkv, 4, Dh, 16)"); });
        require(values_.dim(0) == cache_.pages && values_.dim(1) == cache_.kv_heads && values_.dim(2) == 64 &&
                    values_.dim(3) == cache_.head_len,
                [] { return std::string("values: expected shape (pages, Hkv, 64, Dh) that fits keys"); });
        cache_.tables = tables_.rows();
        cache_.row_segment = segment_.vector();
    }
    const Cache& view() const { return cache_; }

  private:
    Array<uint16_t> keys_, values_;
    InIds tables_, segment_;
    Cache cache_{};
};

static void bind_linear(nb::module_& m) {
    m.def("linear", [](Handle x, Handle weight, Handle out) {
        const In a("x", x);
        const WeightArgument w(weight);
        const Out o("out", out);
        const auto rows = a.rows();
        const auto to = o.rows();
        const Unlocked unlocked;
        linear(rows, w.view(), to);
    });
    m.def("cluster_logits", [](Handle z, Handle weight, Handle clusters, int64_t cluster_len, Handle out) {
        const In a("z", z);
        const WeightArgument w(weight);
        const InIds c("clusters", clusters);
        const Out o("out", out);
        const auto input = a.vector();
        const auto chosen = c.vector();
        const auto to = o.vector();
        const Unlocked unlocked;
        cluster_logits(input, w.view(), chosen, cluster_len, to);
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
        const Unlocked unlocked;
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
        const Unlocked unlocked;
        pack_q4_0({from, n, count * 18, count * 18}, l, to);
    });
    m.def("unpack", [](Handle weight, Handle out) {
        const WeightArgument w(weight);
        const Out o("out", out);
        const auto to = o.rows();
        const Unlocked unlocked;
        unpack(w.view(), to);
    });
}

static void bind_embedding(nb::module_& m) {
    m.def("embed", [](Handle ids, Handle weight, float scale, Handle out) {
        const InIds i("ids", ids);
        const WeightArgument w(weight);
        const Out o("out", out);
        const auto tokens = i.vector();
        const auto to = o.rows();
        const Unlocked unlocked;
        embed(tokens, w.view(), scale, to);
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
        const auto to = o.rows();
        const Unlocked unlocked;
        per_layer(rows, tokens, t.view(), norm, eps, context_scale, token_scale, to);
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
        const Unlocked unlocked;
        route(rows, factors, to_ids, to_weights);
    });
    m.def("experts",
          [](Handle x, Handle ids, Handle weights, Handle gate_up, Handle down, int64_t num_experts, Handle out) {
              const In a("x", x), w("weights", weights);
              const InIds i("ids", ids);
              const WeightArgument g(gate_up), d(down);
              const Out o("out", out);
              const auto rows = a.rows(), factors = w.rows();
              const auto chosen = i.rows();
              const auto to = o.rows();
              const Unlocked unlocked;
              experts(rows, chosen, factors, g.view(), d.view(), num_experts, to);
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
            const Unlocked unlocked;
            rms_norm(rows, norm, eps, to);
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
            const Unlocked unlocked;
            norm_add(rows, norm, eps, scale, to);
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
            const Unlocked unlocked;
            head_norm_rope(rows, head_len, norm, eps, cosines, sines);
        },
        nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg().none());
}

static void bind_elements(nb::module_& m) {
    m.def("gelu_mul", [](Handle gate, Handle up, Handle out) {
        const In g("gate", gate), u("up", up);
        const Out o("out", out);
        const auto a = g.rows(), b = u.rows();
        const auto to = o.rows();
        const Unlocked unlocked;
        gelu_mul(a, b, to);
    });
    m.def("softcap", [](Handle x, float cap) {
        const Out o("x", x);
        const auto rows = o.rows();
        const Unlocked unlocked;
        softcap(rows, cap);
    });
    m.def("rope_rows", [](Handle positions, Handle inv_freq, Handle cos, Handle sin) {
        const InIds p("positions", positions);
        const In f("inv_freq", inv_freq);
        const Out c("cos", cos), s("sin", sin);
        const auto at = p.vector();
        const auto freq = f.vector();
        const auto to_cos = c.rows(), to_sin = s.rows();
        const Unlocked unlocked;
        rope_rows(at, freq, to_cos, to_sin);
    });
    m.def("finite", [](Handle x) {
        const In a("x", x);
        const auto values = a.vector();
        const Unlocked unlocked;
        return finite(values);
    });
}

static void bind_attention(nb::module_& m) {
    m.def("append_kv",
          [](Handle k, Handle v, Handle keys, Handle values, Handle tables, Handle row_segment, Handle positions) {
              const In a("k", k), b("v", v);
              const CacheArgument cache(keys, values, tables, row_segment);
              const InIds p("positions", positions);
              const auto from_k = a.rows(), from_v = b.rows();
              const auto at = p.vector();
              const Unlocked unlocked;
              append_kv(from_k, from_v, cache.view(), at);
          });
    m.def("attention", [](Handle q, Handle keys, Handle values, Handle tables, Handle row_segment, Handle begin,
                          Handle end, Handle out) {
        const In a("q", q);
        const CacheArgument cache(keys, values, tables, row_segment);
        const InIds b("begin", begin), e("end", end);
        const Out o("out", out);
        const auto rows = a.rows();
        const auto from = b.vector(), until = e.vector();
        const auto to = o.rows();
        const Unlocked unlocked;
        attention(rows, cache.view(), from, until, to);
    });
}

static void bind_sampling(nb::module_& m) {
    m.def(
        "sample_row",
        [](Handle logits, Handle ids, double temperature, int64_t top_k, double top_p, double min_p, uint64_t seed,
           uint64_t position) {
            const In l("logits", logits);
            const InIds i("ids", ids, true);
            const auto row = l.vector();
            const auto tokens = i.vector();
            const Unlocked unlocked;
            return sample_row(row, tokens, {temperature, top_k, top_p, min_p, seed, position});
        },
        nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("top_clusters", [](Handle scores, Handle out) {
        const In s("scores", scores);
        const Array<int32_t> o("out", out);
        const auto row = s.vector();
        const auto to = o.vector();
        const Unlocked unlocked;
        top_clusters(row, to);
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
        const Unlocked unlocked;
        Pool::instance().set_threads(static_cast<int>(n));
    });
    m.def("threads", [] { return Pool::instance().threads(); });
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const Kernels* row : available_kernels()) names.push_back(row->isa);
        return names;
    });
    m.def("isa", [] { return std::string(kernels().isa); });
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
    bind_attention(m);
    bind_sampling(m);
    bind_parts(m);
    bind_process(m);
}
