// What build/wasm/llm.js writes after "ROMEO:", with errors on the way: node program.js LLM.js MODEL [TOKENS]
const assert = require("assert");
const fs = require("fs");

require(require("path").resolve(process.argv[2]))().then(llm => {
    assert.throws(() => llm.load(new Uint8Array([71, 71, 85, 70])), /the header ends too early/);
    const steps = [];
    const path = process.argv[3], read = name => fs.readFileSync(name);
    const isFile = fs.statSync(path).isFile();
    const files = isFile ? {} : Object.fromEntries(fs.readdirSync(path).map(name => [name, read(path + "/" + name)]));
    const session = llm.load(isFile ? read(path) : files, done => void steps.push(done));
    assert(steps.length > 3 && steps[steps.length - 1] === 1);
    assert.throws(() => llm.generate(session, "a", {top_p: 7}), /top_p is out of range/);
    assert.throws(() => llm.generate(session, "a", {no_such: 1}), /no such option/);
    let pieces = "";
    const options = {max_tokens: Number(process.argv[4] || 120), seed: 3};
    const text = llm.generate(session, "ROMEO:", options, piece => void (pieces += piece));
    assert.strictEqual(pieces, text);
    llm.rewind(session, 0);
    assert.strictEqual(llm.generate(session, "ROMEO:", options, () => false), text.slice(0, 1));
    // What callbacks throw comes out, and the next call works; so it does after a load that failed.
    assert.throws(() => llm.generate(session, "a", {}, () => { throw new Error("mine"); }), /mine/);
    assert.throws(() => llm.load({a: 5}), Error);
    assert.throws(() => llm.load({"config.json": "{}"}), /llm|model/);
    if (!isFile) assert.throws(() => llm.load(files, () => { throw new Error("progress"); }), /progress/);
    assert.throws(() => llm.generate(session, "a\0b"), /NUL/);
    for (const max_tokens of [2 ** 32 + 1, 1.5, -(2 ** 40)])
        assert.throws(() => llm.generate(session, "a", {max_tokens}), /out of range/);
    assert.throws(() => llm.generate(session, "a", {seed: -1}), /out of range/);
    const writes = seed => (llm.rewind(session, 0), llm.generate(session, "ROMEO:", {...options, seed}));
    assert.notStrictEqual(writes(2 ** 32 + 3), text);
    assert.strictEqual(writes(3), text);
    process.stdout.write("ROMEO:" + text + "\n");
});
