"""Writes pipeline.json: what transformers' TokenClassificationPipeline finds, by each strategy.

    pip install torch transformers safetensors      # made with torch 2.15.0, transformers 5.23.0
    python tests/tasks/golden/pipeline.py [MINILM_NER]

Run from the repository's root. MINILM_NER is the folder of a larger, uncased checkpoint; without it, its
entries stay as they are. A text is left out where two labels are so near each other that rounding decides.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForTokenClassification, AutoTokenizer, TokenClassificationPipeline

OUT = Path("tests/tasks/golden/pipeline.json")
STRATEGIES = ["none", "simple", "first", "average", "max"]
MARGIN = 1e-4

TEXTS = [
    "Angela Merkel met Emmanuel Macron in Berlin on Tuesday.",
    "Shares of Siemens AG rose in Frankfurt, Reuters reported.",
    # Neighbours of the same kind, with and without something between them.
    "Paris London Berlin Tokyo",
    "John Smith Mary Jones Peter Brown",
    "BRAZIL 2 CHILE 1 ( halftime 1-0 )",
    "Germany's Boris Becker beat Sweden's Stefan Edberg 6-4 6-3.",
    "Essex, Leicestershire, Surrey and Kent won; Derbyshire lost.",
    # Words of many pieces, of which some are labelled otherwise than others.
    "Schwarzenegger visited Llanfairpwllgwyngyll with Krzysztof Wojciechowski.",
    "The Microsoft-Nokia-Verizon deal; Ex-Yugoslavian anti-German pro-Brazilian.",
    "Hewlett-Packard's Rolls-Royce, AT&T, McDonald's, O'Neill & Sons, U.N.-brokered",
    "unbelievableJohnParisLondon XxYyZz Dostoyevskyesque Kafkaesque",
    # Case.
    "angela merkel met emmanuel macron in berlin.",
    "ANGELA MERKEL MET EMMANUEL MACRON IN BERLIN.",
    "iPhone eBay aNgElA mErKeL",
    # Punctuation, white space, numbers.
    "  Angela\tMerkel \n\n met   (Emmanuel \"Macron\") in [Berlin]!!! ",
    "...Berlin,Paris;London/Tokyo:Rome|Madrid...",
    "U.S. U.K. U.S.A. Dr. J. R. R. Tolkien, Jr., at 10:30 p.m. on 12/31/1999",
    "'", "-", "Berlin", "a", "?!",
    # Unicode: composed, decomposed, ligatures, wide forms, signs of no width, right to left, emoji.
    "Élan Müller und Łódź in São Paulo, Curaçao; Ångström, Dvořák, Škoda, İstanbul.",
    "E\u0301lan Mu\u0308ller A\u030angstro\u0308m Dvor\u030ca\u0301k from Sa\u0303o Paulo",
    "ﬁnland ﬀ ＢＥＲＬＩＮ Ⅷ ½ ß Straße STRASSE",
    "Ber\u200blin Par\u00adis Lon\u200ddon\ufeff To\u0000kyo",
    "😀Angela😀Merkel👩‍👩‍👧 met 🇩🇪 in Berlin🙂",
    "王小明在北京大学读书 with Angela Merkel in 上海",
    "Владимир Путин в Москве, Αθήνα, القاهرة, ירושלים, กรุงเทพ, 東京タワー, 한국",
    "A\u0301\u0301\u0301 \u0301 \u0301Berlin x\u0301\u0302y",
    # Special tokens by their names, and words that are in no vocabulary.
    "Angela [MASK] met [UNK] in [SEP] Berlin [CLS] . [PAD]",
    "☃☃☃ Angela ☃ Merkel ☃Berlin☃ ꙮ",
    "a" * 101 + " Berlin " + "Bb" * 60,
]

# Words of the small random checkpoint, glued and mixed so that labels change within words and between them.
MICRO_TEXTS = [
    "john mary london paris berlin new york",
    "johnmary londonparis newyork bankmarket cityriver",
    "hello world, the great movie; it was not a bad film!",
    "He walked saying goodness, quickly: sadness.",
    "un said will over more very hello world the of and in to is was",
    "johns marys londoners parising berlined yorkly marketness nation",
    "JOHN Mary LoNdOn é É E\u0301 ß ẞ ñ n\u0303 ÅÄÖ",
    "你好 中国人 john在london 的一是不了",
    "a b c d e f g abcdefghij 0123456789 a1b2c3",
    "(john) [mary] {london} \"paris\" 'berlin' new-york a/b a.b.c",
    "xylophones zzz qqq jazzes buzzed kiwi wizardly",
    "😀 john😀mary 😀 ☃london☃ İstanbul",
    "[MASK] john [UNK] mary [SEP] london",
    "e\u0301e\u0301e\u0301 cafe\u0301s naïveté\u0301",
    "the city of london and the river of paris are not two good markets",
    "goodjohn badmary greatlondon terribleparis onetwo",
]

# The labels of the small random checkpoint, then some whose names have no prefix or several hyphens.
LABELS = {
    "bio": None,
    "names": ["O", "PER", "LOC", "ORG", "MISC"],
    "hyphens": ["O", "B-place-name", "I-place-name", "B-a", "I-a"],
    "loose": ["O", "PER", "I-PER", "B-PER", "LOC"],
}


def run(model, tokenizer, texts):
    pipeline = TokenClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    found = []
    for text in texts:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, 1:-1]
        best = logits.softmax(-1).sort(-1).values
        if len(best) and (best[:, -1] - best[:, -2]).min() < MARGIN:
            print("left out:", repr(text))
            continue
        case = {"text": text}
        for strategy in STRATEGIES:
            entities = pipeline(text, aggregation_strategy=strategy)
            label = "entity" if strategy == "none" else "entity_group"
            case[strategy] = [
                [e[label], int(e["start"]), int(e["end"]), round(float(e["score"]), 6), e["word"]]
                for e in entities
            ]
        found.append(case)
    return found


def load(folder, tokenizer=None):
    model = AutoModelForTokenClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), AutoTokenizer.from_pretrained(tokenizer or folder)


def main():
    warnings.simplefilter("ignore")
    golden = json.loads(OUT.read_text()) if OUT.exists() else {}
    golden["made with"] = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    golden["tiny-ner"] = run(*load("models/tiny-ner"), TEXTS)
    fixtures = Path("convert/tests/fixtures")
    # The same vocabulary, with a tokenizer beside it.
    model, tokenizer = load(fixtures / "micro-token-classification", fixtures / "micro")
    for name, labels in LABELS.items():
        if labels:
            model.config.id2label = dict(enumerate(labels))
        texts = MICRO_TEXTS[:6] if labels else MICRO_TEXTS
        golden[f"micro-token-classification {name}"] = run(model, tokenizer, texts)
    if len(sys.argv) > 1:
        golden["minilm-ner"] = run(*load(sys.argv[1]), TEXTS)
    dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = ",\n".join(f"{dump(key)}:{dump(golden[key])}" for key in golden).replace('{"text"', '\n{"text"')
    OUT.write_text("{\n" + text + "\n}\n")


main()
