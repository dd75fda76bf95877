"""Lines that try a tokenizer: many languages, emoji, white space of all kinds, and what looks like a control token."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

SENTENCES = (
    "The quick brown fox jumps over the lazy dog; it isn't tired.", "Größe, Füße und Äpfel — schön, nicht wahr?",
    "L'été dernier, où étiez-vous ? Ça va très bien !", "¿Dónde está la niña? ¡Mañana será otro día!",
    "Não há razão para preocupações, João.", "Perché l'università è così lontana dalla città?",
    "Zażółć gęślą jaźń, proszę.", "Příliš žluťoučký kůň úpěl ďábelské ódy.", "Árvíztűrő tükörfúrógép.",
    "Pijamalı hasta yağız şoföre çabucak güvendi.", "Съешь же ещё этих мягких французских булок.",
    "Щастя — це бути собою, чи не так?", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.", "דג סקרן שט בים מאוכזב.",
    "نص حكيم له سر قاطع وذو شأن عظيم.", "خوش آمدید به کتابخانهٔ بزرگ شهر", "آپ کیسے ہیں؟ سب خیریت ہے۔",
    "नमस्ते दुनिया, आप कैसे हैं?", "আমি বাংলায় গান গাই।", "வணக்கம் உலகம், எப்படி இருக்கிறீர்கள்?",
    "నమస్కారం ప్రపంచం", "ನಮಸ್ಕಾರ ಪ್ರಪಂಚ", "സ്വാഗതം ലോകമേ", "ආයුබෝවන් ලෝකය", "สวัสดีชาวโลก วันนี้อากาศดี",
    "ສະບາຍດີຊາວໂລກ", "မင်္ဂလာပါ ကမ္ဘာလောက", "សួស្តី​ពិភពលោក", "გამარჯობა მსოფლიო", "Բարեւ աշխարհ", "ሰላም ልዑል ዓለም",
    "你好，世界！今天天气怎么样？", "繁體中文：請問圖書館在哪裡？", "いろはにほへと　ちりぬるを。カタカナもね！",
    "안녕하세요, 세계! 잘 지내시죠?", "Xin chào thế giới, hôm nay trời đẹp quá.", "Selamat pagi dunia, apa kabar?",
    "Kumusta ka, mundo?", "Habari ya dunia?", "Sawubona mhlaba", "Ẹ káàárọ̀ ayé", "Tere, maailm! Õun ja äädikas.",
    "Hyvää päivää, maailma!", "Labas pasauli, ąčęėįšųūž", "Halló heimur, þetta er góður dagur.",
    "Dia dhuit, a dhomhain!", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ", "བོད་སྐད་ཀྱི་ཡི་གེ།",
    "def f(x: int) -> str:\n\treturn f\"{x:>8.3f}\"  # tab",
    "for (size_t i = 0; i < n; ++i) { a[i] ^= b[i] << 3; }", "SELECT * FROM t WHERE a LIKE '%_x' AND b <> 'ü';",
    "<table><tr><td>1</td></tr></table>", "$$\\int_0^\\infty e^{-x^2}\\,dx$$",
    "https://example.org/a%20b?q=1&r=%C3%A9#top", "3.14159 1,000,000 0x1F 1e-9 ½ ² Ⅷ ①", "C:\\Users\\x\\n\\t.txt",
)  # fmt: skip
EMOJI = [
    "🙂",
    "😂",
    "👍🏽",
    "👨\u200d👩\u200d👧\u200d👦",
    "🏳️\u200d🌈",
    "🇩🇪",
    "❤️",
    "☃",
    "🧑🏿\u200d🚀",
    "✨",
    "⌨️",
    "🤷\u200d♀️",
    "1️⃣",
    "🫠",
    "🪿",
]
SPACES = (
    " ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r", " \n", "\n ", "\u00a0", "\u3000", "\u2009",
    "\u200b", "\u2028", "\ufeff", "\v", "\f", "▁", "▁▁", " ▁ ", " " * 31, " " * 32, " " * 33, "\n" * 31, "\n" * 40,
)  # fmt: skip
CONTROLS = (
    "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
    "[multimodal]", "<unused0>", "<unused42>", "<unused99999>", "<0x0A>", "<0xFF>", "<0xff>", "<|turn>", "<turn|>",
    "<|channel>", "<table>", "</td>", "<h1>", "<|think|>", "<|tool_call>", "<|\"|>", "<image_soft_token>",
)  # fmt: skip
RANGES = (
    (0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x7FF), (0x900, 0xDFF), (0xE00, 0x109F),
    (0x10A0, 0x18AF), (0x1E00, 0x206F), (0x2070, 0x2BFF), (0x2C00, 0x2E7F), (0x3000, 0x312F), (0x3400, 0x9FFF),
    (0xA000, 0xD7A3), (0xE000, 0xFFFD), (0x10000, 0x1FBFF), (0x20000, 0x2FA1F), (0xE0000, 0xE01EF), (0, 0x1F),
)  # fmt: skip


def lines(pieces: Sequence[str], count: int = 3000, seed: int = 1) -> Iterator[str]:
    """So many lines, the same every time; `pieces` of a vocabulary are strung together as one of the kinds."""
    rng = random.Random(seed)
    kinds = (_sentences, _mixed, _spaced, _lookalikes, _characters, lambda r: _from(r, pieces), _mutated)
    yield from SENTENCES
    yield from SPACES
    yield from CONTROLS
    yield from EMOJI
    rest = count - len(SENTENCES) - len(SPACES) - len(CONTROLS) - len(EMOJI)
    for index in range(max(rest, 0)):
        yield kinds[index % len(kinds)](rng)


def _sentences(rng: random.Random) -> str:
    return rng.choice(SPACES).join(rng.sample(SENTENCES, rng.randint(1, 4)))


def _mixed(rng: random.Random) -> str:
    words = [word for sentence in rng.sample(SENTENCES, 3) for word in sentence.split(" ")]
    return rng.choice((" ", "", "\n")).join(rng.choices([*words, *EMOJI], k=rng.randint(1, 30)))


def _spaced(rng: random.Random) -> str:
    return "".join(
        rng.choice(SPACES) + rng.choice((*EMOJI, "a", "if", ":", "日", "")) for _ in range(rng.randint(1, 20))
    )


def _lookalikes(rng: random.Random) -> str:
    """Names of control tokens, whole, cut, doubled, in other case, and with a character too many."""
    found = []
    for _ in range(rng.randint(1, 8)):
        name = rng.choice(CONTROLS)
        at = rng.randrange(len(name))
        changed = (
            name,
            name[:at],
            name[at:],
            name.upper(),
            name[:at] + rng.choice(" x▁<|") + name[at:],
            name + name[1:],
        )
        found.append(rng.choice(changed) + rng.choice(("", " ", "\n", "text")))
    return "".join(found)


def _characters(rng: random.Random) -> str:
    """Characters of one or of all parts of Unicode, unassigned ones too."""
    ranges = rng.choice(([rng.choice(RANGES)], RANGES))
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 40)))


def _from(rng: random.Random, pieces: Sequence[str]) -> str:
    return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 25))).replace("▁", " ")


def _mutated(rng: random.Random) -> str:
    """A sentence with characters lost, doubled and moved."""
    text = list(rng.choice(SENTENCES))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(text))
        text[at : at + 1] = rng.choice(([], text[at : at + 1] * rng.randint(2, 6), [rng.choice(text)]))
        text = text or ["a"]
    return "".join(text)
