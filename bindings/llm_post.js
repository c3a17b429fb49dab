// What llm.js offers besides the functions of llm_c.h. `make wasm` puts this file behind what Emscripten writes.
//
//     const llm = await LLM();                             // node: require("./build/wasm/llm.js")
//     const session = llm.load(bytes);                     // a Uint8Array: a GGUF file. Or a directory's files, by name
//     llm.generate(session, "ROMEO:", {max_tokens: 100}, text => console.log(text));
//
// Failures are Errors. It all runs where it is called: in a page that is a worker's place.

const said = text => new Error(UTF8ToString(text));
const checked = result => {
    if (!result || result < 0) throw said(_llm_last_error(0));
    return result;
};
const withText = (text, call) => {
    const size = lengthBytesUTF8(text) + 1, at = _malloc(size);
    stringToUTF8(text, at, size);
    try {
        return call(at);
    } finally {
        _free(at);
    }
};

// llm_options in 32 bits: where its members are, and the heap of their type.
const members = {seed: [8, "i32"], max_tokens: [16, "i32"], temperature: [20, "float"], top_p: [24, "float"],
                 min_p: [28, "float"], repeat_penalty: [32, "float"], top_k: [36, "i32"], repeat_last_n: [40, "i32"],
                 ignore_end: [44, "i32"], parse_special: [48, "i32"], lookup: [52, "i32"]};
const optionsSize = 72;

const sessionOf = (load, onProgress) => {
    const call = (user, done, what) => (onProgress && onProgress(done, UTF8ToString(what)) === false ? 0 : 1);
    const progress = addFunction(call, "iifi");
    try {
        const model = checked(load(progress));
        const session = _llm_session_new(model, 0, 0);
        _llm_model_free(model);
        return checked(session);
    } finally {
        removeFunction(progress);
    }
};
const loadBytes = bytes => progress => {
    const at = _malloc(bytes.length);
    if (!at) throw new Error("there is not enough memory for the model's file");
    HEAPU8.set(bytes, at);
    const model = _llm_load_bytes(at, bytes.length, 0, 0, progress, 0);
    _free(at);
    return model;
};
const loadFiles = files => progress => {
    const directory = "/model";
    FS.mkdir(directory);
    for (const name in files) FS.writeFile(directory + "/" + name, files[name]);
    const model = withText(directory, path => _llm_load(path, 0, 0, progress, 0));
    for (const name in files) FS.unlink(directory + "/" + name);
    FS.rmdir(directory);
    return model;
};
Module["load"] = (model, onProgress) =>
    sessionOf(model instanceof Uint8Array ? loadBytes(model) : loadFiles(model), onProgress);

// onText(text) returns false to end the text. Returns the whole of it.
Module["generate"] = (session, prompt, options, onText) => {
    const at = _malloc(optionsSize);
    let text = "";
    const take = addFunction((user, i, piece, bytes) => {
        piece = UTF8ToString(piece, bytes);
        text += piece;
        return onText && onText(piece) === false ? 0 : 1;
    }, "iiiii");
    try {
        if (_llm_options_init(at, optionsSize) < 0) throw said(_llm_last_error(0));
        for (const name in options) {
            if (!members[name]) throw new Error("no such option: " + name);
            setValue(at + members[name][0], options[name], members[name][1]);
        }
        const n = withText(prompt, prompt => _llm_generate(session, prompt, at, take, 0, 0));
        if (n < 0) throw said(_llm_last_error(0));
        return text;
    } finally {
        _free(at);
        removeFunction(take);
    }
};
Module["rewind"] = (session, position) => {
    if (_llm_rewind(session, position) < 0) throw said(_llm_last_error(0));
};
Module["version"] = () => UTF8ToString(_llm_version());
