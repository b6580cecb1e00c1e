const test = require("node:test");
const assert = require("node:assert");
const { sum } = require("../src/main.js");
test("sums", () => assert.strictEqual(sum([1, 2, 3]), 6));
