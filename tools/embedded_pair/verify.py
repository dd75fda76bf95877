"""Check exported folders against transformers: same logits, same drafter result on a first step, configs load."""

from __future__ import annotations

import argparse
from pathlib import Path

import drafter as draft
import model
import torch
from transformers import AutoTokenizer, Gemma4AssistantForCausalLM, Gemma4ForCausalLM


def load_f32(folder: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights of a folder in f32, `prefix` cut from their names."""
    from safetensors.torch import load_file

    return {
        n.removeprefix(prefix): x.float() if x.is_floating_point() else x
        for n, x in load_file(folder / "model.safetensors").items()
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", type=Path, help="folder with target/ and drafter/")
    args = parser.parse_args()
    big, info = Gemma4ForCausalLM.from_pretrained(args.pair / "target", dtype=torch.float32, output_loading_info=True)
    print("target", {k: v for k, v in info.items() if v})
    w, s = load_f32(args.pair / "target", "model."), model.TARGET
    text = AutoTokenizer.from_pretrained(args.pair / "target")
    chat = text.apply_chat_template(
        [{"role": "user", "content": " Define heron. "}], add_generation_prompt=True, tokenize=False
    )
    assert chat == "<bos><|turn>user\nDefine heron.<turn|>\n<|turn>model\n", chat
    ids = torch.randint(0, s.vocab, (1, 700), generator=torch.Generator().manual_seed(0))
    ids[:, :20] = torch.tensor(
        text(chat + "**heron** (noun): a bird of the", add_special_tokens=False).input_ids[:20] + [2] * 20
    )[:20]
    hidden, kv = model.forward(w, s, ids, model.rope_tables(s, torch.arange(700)), model.causal_masks(s, 700))
    out = big(ids, output_hidden_states=True, return_shared_kv_states=True, use_cache=True)
    ours = model.logits(w, s, hidden)
    print("target logits differ by at most", float((ours - out.logits).abs().max()), "of", float(ours.abs().max()))
    small, info = Gemma4AssistantForCausalLM.from_pretrained(
        args.pair / "drafter", dtype=torch.float32, output_loading_info=True
    )
    print("drafter", {k: v for k, v in info.items() if v})
    d, ds = load_f32(args.pair / "drafter"), draft.DRAFTER
    bonus = torch.tensor([[400]])
    donors = {k: kv[s.donor(k)] for k in (model.SLIDING, model.FULL)}
    embedded = model.embed(w, s, ids[:, 400:401])[0]
    z, after = draft.step(
        d, ds, embedded, hidden[:, 399:400], draft.round_rope(bonus, 700), draft.round_masks(ds, bonus, 700), donors
    )
    seen = {k: (a[:, :, :400], b[:, :, :400]) for k, (a, b) in donors.items()}
    theirs = small(
        inputs_embeds=torch.cat([embedded, hidden[:, 399:400]], -1), position_ids=bonus, shared_kv_states=seen
    )
    mine = draft.head_logits(d, ds, z[0])
    print(
        "drafter logits differ by at most",
        float((mine - theirs.logits[0]).abs().max()),
        "projected hidden by",
        float((after - theirs.last_hidden_state).abs().max()),
    )


if __name__ == "__main__":
    main()
