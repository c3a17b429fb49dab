#!/usr/bin/env python3
"""Makes tokenizers.json: files of tokenizers as people have them, and the ids that transformers (5.24) gives with them.

Each case changes a model of models/: texts of its tokenizer.json are replaced, or vocab.json and merges.txt take its place,
and files are put beside. With an "error" there are no ids: llm.h refuses it, and the error says this."""

import json
import pathlib
import shutil
import tempfile

from transformers import AutoTokenizer

models = pathlib.Path(__file__).parent.parent.parent / "models"
TEXTS = ["hi <speaker1> [PAD] x", "the king", " <speaker1>\n you[PAD]\t", "a b\u2581x zz  yy  ", "<s2>it's  \u2764", "<|endoftext|>the<eos>"]
END = "<|endoftext|>"
POST = '"post_processor":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true}'
SPLIT = '"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false'
OWN = '"special":true}],"normalizer"'
GEMMA_POST = '"post_processor":' + json.dumps(
    json.loads((models / "gemma3-tiny/tokenizer.json").read_text())["post_processor"], separators=(",", ":"))
GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
            "special": True, **flags}


def post(processor):
    return [[POST, '"post_processor":' + json.dumps(processor)]]


def template(*single):
    steps = [{"Sequence": {"id": "A", "type_id": 0}} if s == "A" else {"SpecialToken": {"id": s, "type_id": 0}} for s in single]
    ids = {END: {"id": END, "ids": [767], "tokens": [END]}, "two": {"id": "two", "ids": [5, 6], "tokens": ["&", "'"]}}
    return {"type": "TemplateProcessing", "single": steps, "pair": [{"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": ids}


def own(id, *tokens):
    listed = "".join(", " + json.dumps({"id": id + i, **t}) for i, t in enumerate(tokens))
    return [[OWN, OWN.replace("]", listed + "]")]]


bert = {"type": "BertProcessing", "sep": [END, 767], "cls": ["a", 64]}
roberta = {"type": "RobertaProcessing", "sep": [END, 767], "cls": ["a", 65], "trim_offsets": True, "add_prefix_space": True}
mapped = {"special_tokens_map.json": {"pad_token": "[PAD]", "additional_special_tokens": ["<speaker1>"]}}
decoder = {"767": token(END), "768": token("<speaker1>", lstrip=True, rstrip=True), "769": token("[PAD]", rstrip=True, special=False)}

# name, model, with tokenizer.json, replaced texts, tokenizer_config.json, other files, error
CASES = [
    ("prefix space by the configuration", "gpt2-tiny", True, [], {**GPT2, "add_prefix_space": True}, {}, None),
    ("prefix space of tokenizer.json, unheeded", "gpt2-tiny", True, [[SPLIT, SPLIT.replace("false", "true")]], GPT2, {}, None),
    ("prefix space of tokenizer.json", "gpt2-tiny", True, [[SPLIT, SPLIT.replace("false", "true")]], FAST, {}, None),
    ("prefix space beside vocab.json", "gpt2-tiny", False, [], {"add_prefix_space": True}, {}, None),
    ("bos and eos beside vocab.json", "gpt2-tiny", False, [], {"add_bos_token": True, "add_eos_token": True}, {}, None),
    ("bos of the configuration beside tokenizer.json, unheeded", "gpt2-tiny", True, [], {**GPT2, "add_bos_token": True}, {}, None),
    ("no post-processor", "gpt2-tiny", True, post(None), {**GPT2, "add_bos_token": True}, {}, None),
    ("a template at both ends", "gpt2-tiny", True, post(template(END, "A", "two")), GPT2, {}, None),
    ("BertProcessing", "gpt2-tiny", True, post(bert), GPT2, {}, None),
    ("RobertaProcessing", "gpt2-tiny", True, post(roberta), FAST, {}, None),
    ("a Sequence", "gpt2-tiny", True, post({"type": "Sequence", "processors": [roberta, bert, template("two", "A")]}), GPT2, {}, None),
    ("another post-processor", "gpt2-tiny", True, post({"type": "Other"}), GPT2, {}, "post-processor \"Other\""),
    ("added_tokens_decoder", "gpt2-tiny", True, [], {**GPT2, "added_tokens_decoder": decoder}, {}, None),
    ("added_tokens_decoder beside vocab.json", "gpt2-tiny", False, [], {"added_tokens_decoder": decoder}, {}, None),
    ("added_tokens_decoder in place of tokenizer.json's", "gpt2-tiny", True, own(768, token("<s2>")),
     {**GPT2, "added_tokens_decoder": {"767": token(END), "768": token("[PAD]")}}, {}, None),
    ("added_tokens_decoder over tokenizer.json's", "gpt2-tiny", True, own(768, token("<speaker1>"), token("<s2>")),
     {**FAST, "added_tokens_decoder": {"768": token("<speaker1>", lstrip=True), "770": token("[PAD]")}}, {}, None),
    ("an id that is not the next one", "gpt2-tiny", True, [], {**GPT2, "added_tokens_decoder": {"767": token(END), "775": token("[PAD]")}}, {}, "id 775"),
    ("added_tokens.json", "gpt2-tiny", True, [], GPT2, {"added_tokens.json": {"[PAD]": 769, "<speaker1>": 768}}, None),
    ("added_tokens.json beside vocab.json", "gpt2-tiny", False, [], {"pad_token": "[PAD]"}, {"added_tokens.json": {"[PAD]": 769, "<speaker1>": 768}}, None),
    ("special_tokens_map.json", "gpt2-tiny", True, [], GPT2, mapped, None),
    ("special_tokens_map.json beside vocab.json", "gpt2-tiny", False, [], None, mapped, None),
    ("special_tokens_map.json beside added_tokens_decoder, unheeded", "gpt2-tiny", True, [], {**GPT2, "added_tokens_decoder": {"767": token(END), "768": token("<s2>")}}, mapped, None),
    ("names in the configuration", "gpt2-tiny", True, [], {**GPT2, "pad_token": "[PAD]", "voice_token": "<speaker1>", "mask_token": "<mask>",
     "additional_special_tokens": ["<s2>", "king"]}, {}, None),
    ("more names", "gpt2-tiny", True, [], {**GPT2, "extra_special_tokens": {"voice": "<speaker1>"}, "pad_token": {"__type": "AddedToken", **token("[PAD]", lstrip=True)}}, {}, None),
    ("white space that a token takes holds another", "gpt2-tiny", True, [], {**GPT2, "added_tokens_decoder": {"767": token(END),
     "768": token("<speaker1>", rstrip=True), "769": token("\n", special=False)}}, {}, None),
    ("model_specific_special_tokens", "gpt2-tiny", True, [], {**GPT2, "extra_special_tokens": ["<speaker1>"],
     "model_specific_special_tokens": {"voice": "[PAD]"}}, {}, None),
    ("model_specific_special_tokens beside texts, unheeded", "gpt2-tiny", True, [], {**GPT2, "image_token": "<s2>",
     "model_specific_special_tokens": {"voice": "[PAD]"}}, {}, None),
    ("another name as an object", "gpt2-tiny", True, [], {**GPT2, "image_token": {"__type": "AddedToken", **token("[PAD]", rstrip=True)}, "voice_token": "<s2>"}, {}, None),
    ("another name in both files", "gpt2-tiny", True, [], {**GPT2, "image_token": "<speaker1>"},
     {"special_tokens_map.json": {"image_token": "[PAD]", "voice_token": {**token("<s2>", lstrip=True)}}}, None),
    ("the last description of several", "gpt2-tiny", False, [], None, {"special_tokens_map.json": {"bos_token": "[PAD]", "pad_token": token("[PAD]", lstrip=True)}}, None),
    ("an empty list goes before the map's", "gpt2-tiny", True, [], {**GPT2, "additional_special_tokens": []}, mapped, None),
    ("single_word", "gpt2-tiny", True, own(768, token("king", single_word=True)), GPT2, {}, "single_word"),
    ("split_special_tokens", "gpt2-tiny", True, [], {**GPT2, "split_special_tokens": True}, {}, "split_special_tokens"),
    ("another class", "gpt2-tiny", True, [], {"tokenizer_class": "LlamaTokenizer"}, {}, "LlamaTokenizer"),
    ("Gemma without post-processor", "gemma3-tiny", True, [[GEMMA_POST, '"post_processor":null']], {"add_bos_token": True}, {}, None),
    ("Gemma's normalized tokens", "gemma3-tiny", True, own(1024, token("a b", normalized=True), token("\u2581x", normalized=True, special=False),
     token("zz", lstrip=True, rstrip=True), token("yy", lstrip=True, rstrip=True, normalized=True)), {"tokenizer_class": "PreTrainedTokenizerFast"}, {}, None),
    ("Gemma's added tokens by the configuration", "gemma3-tiny", True, [], {"added_tokens_decoder": {"2": token("<bos>"), "1024": token("<mask>"), "1025": token("[PAD]")}}, {}, None),
]

cases = []
for name, model, is_json, replaced, config, files, error in CASES:
    with tempfile.TemporaryDirectory() as directory:
        where = pathlib.Path(directory)
        text = (models / model / "tokenizer.json").read_text()
        for a, b in replaced:
            assert text.count(a) == 1, (name, a)
            text = text.replace(a, b)
        if is_json:
            (where / "tokenizer.json").write_text(text)
        else:
            whole = json.loads(text)
            (where / "vocab.json").write_text(json.dumps({**whole["model"]["vocab"], END: 767}))
            (where / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in whole["model"]["merges"]))
        all_files = {n: json.dumps(content) for n, content in files.items()}
        if config is not None:
            all_files["tokenizer_config.json"] = json.dumps(config)
        for n, content in all_files.items():
            (where / n).write_text(content)
        shutil.copy(models / model / "config.json", where)
        case = {"name": name, "model": model, "json": is_json, "replaced": replaced, "files": all_files, "error": error}
        if not error:
            tokenizer = AutoTokenizer.from_pretrained(directory)
            case["ids"] = [tokenizer(t)["input_ids"] for t in TEXTS]
        cases.append(case)

out = json.dumps({"texts": TEXTS, "cases": cases}, separators=(",", ":"))
(pathlib.Path(__file__).parent / "tokenizers.json").write_text(out + "\n")
