// What llm.js offers besides the functions of llm_c.h. `make wasm` puts this file behind what Emscripten writes.
//
//     const llm = await LLM();                             // node: require("./build/wasm/llm.js")
//     const session = llm.load(bytes);                     // a Uint8Array: a GGUF file. Or a directory's files, by name
//     llm.generate(session, "ROMEO:", {max_tokens: 100}, text => console.log(text));
//
// Failures are Errors; what callbacks throw ends a call and comes out of it. It all runs where it is called: in a page
// that is a worker's place.

const said = text => new Error(UTF8ToString(text));
const checked = result => {
    if (!result || result < 0) throw said(_llm_last_error(0));
    return result;
};
const withText = (text, call) => {
    if (text.includes("\0")) throw new Error("a text holds a NUL character: leave it out");
    const size = lengthBytesUTF8(text) + 1, at = _malloc(size);
    stringToUTF8(text, at, size);
    try {
        return call(at);
    } finally {
        _free(at);
    }
};
// call(pointer) with a function for C. An exception must not pass through C's code, which would not clean up: it makes
// the function return 0, and is thrown again afterwards.
const withFunction = (signature, body, call) => {
    const thrown = [];
    const pointer = addFunction((...values) => {
        try {
            return body(...values) === false ? 0 : 1;
        } catch (error) {
            thrown.push(error);
            return 0;
        }
    }, signature);
    try {
        return call(pointer);
    } finally {
        removeFunction(pointer);
        if (thrown.length) throw thrown[0];
    }
};

// llm_options in 32 bits: where its members are, and the heap of their type. A seed has 64 bits.
const members = {seed: [8, "i64"], max_tokens: [16, "i32"], temperature: [20, "float"], top_p: [24, "float"],
                 min_p: [28, "float"], repeat_penalty: [32, "float"], top_k: [36, "i32"], repeat_last_n: [40, "i32"],
                 ignore_end: [44, "i32"], parse_special: [48, "i32"], lookup: [52, "i32"]};
const optionsSize = 72;
const setOption = (at, name, value) => {
    if (!members[name]) throw new Error("no such option: " + name);
    const [offset, type] = members[name], most = type === "i64" ? Number.MAX_SAFE_INTEGER : 2147483647;
    if (type !== "float" && (!Number.isInteger(Number(value)) || value > most || value < (type === "i64" ? 0 : -most)))
        throw new Error(name + " is out of range: " + value);
    if (type !== "i64") return setValue(at + offset, value, type);
    setValue(at + offset, value % 4294967296 | 0, "i32");
    setValue(at + offset + 4, Math.floor(value / 4294967296), "i32");
};

const loadBytes = (bytes, progress) => {
    const at = _malloc(bytes.length);
    if (!at) throw new Error("there is not enough memory for the model's file");
    HEAPU8.set(bytes, at);
    const model = _llm_load_bytes(at, bytes.length, 0, 0, progress, 0);
    _free(at);
    return model;
};
const loadFiles = (files, progress) => {
    const directory = "/model";
    FS.mkdir(directory);
    try {
        for (const name in files) FS.writeFile(directory + "/" + name, files[name]);
        return withText(directory, path => _llm_load(path, 0, 0, progress, 0));
    } finally {
        for (const name of FS.readdir(directory)) if (name !== "." && name !== "..") FS.unlink(directory + "/" + name);
        FS.rmdir(directory);
    }
};
// onProgress(done, what) returns false to end the loading.
Module["load"] = (from, onProgress) => {
    const tell = (user, done, what) => !onProgress || onProgress(done, UTF8ToString(what));
    const model = withFunction("iifi", tell, progress =>
        checked((from instanceof Uint8Array ? loadBytes : loadFiles)(from, progress)));
    const session = _llm_session_new(model, 0, 0);
    _llm_model_free(model);
    return checked(session);
};

// onText(text) returns false to end the text. Returns the whole of it.
Module["generate"] = (session, prompt, options, onText) => {
    const at = _malloc(optionsSize);
    let text = "";
    const take = (user, i, piece, bytes) => {
        piece = UTF8ToString(piece, bytes);
        text += piece;
        return !onText || onText(piece);
    };
    try {
        if (_llm_options_init(at, optionsSize) < 0) throw said(_llm_last_error(0));
        for (const name in options) setOption(at, name, options[name]);
        const n = withFunction("iiiii", take, show =>
            withText(prompt, prompt => _llm_generate(session, prompt, at, show, 0, 0)));
        if (n < 0) throw said(_llm_last_error(0));
        return text;
    } finally {
        _free(at);
    }
};
Module["rewind"] = (session, position) => {
    if (_llm_rewind(session, position) < 0) throw said(_llm_last_error(0));
};
Module["version"] = () => UTF8ToString(_llm_version());
