// JSON as the protocol reads it: each number kept to the digit, no member twice, no half of a surrogate pair.
//
// JSON.parse forgets all three, and a signature covers them. `parse` makes a tree of nodes, which `canonical`
// writes and `value` turns into ordinary values.

import { integerText, floatText } from './number.js';

/** The deepest nesting that is read, as the gateway's. */
const MAX_DEPTH = 128;
/** The longest integer that is read, as the gateway's (Python's own limit). */
const MAX_DIGITS = 4300;

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/** Why a text is no JSON: `syntax`, `depth`, `number`, `duplicate` or `surrogate`. */
export class JsonError extends Error {
  constructor(kind, at) {
    super(`${kind} at ${at}`);
    this.kind = kind;
  }
}

/**
 * Reads a JSON text into a node: `{kind, …}` with kind `object` (`members`, a Map of nodes), `array` (`items`),
 * `string` (`text`), `integer` or `float` (`digits`), `boolean` (`value`), `null`.
 */
export function parse(text) {
  const reader = new Reader(text);
  reader.space();
  const node = reader.node(0);
  reader.space();
  if (reader.at !== text.length) reader.fail('syntax');
  return node;
}

/** A node as an ordinary value; integers beyond 2^53 become BigInts. */
export function value(node) {
  switch (node.kind) {
    case 'object':
      return objectOf(Array.from(node.members, ([name, member]) => [name, value(member)]));
    case 'array':
      return node.items.map(value);
    case 'string':
      return node.text;
    case 'integer':
      return Number.isSafeInteger(Number(node.digits)) ? Number(node.digits) : BigInt(node.digits);
    case 'float':
      return Number(node.digits);
    case 'boolean':
      return node.value;
    default:
      return null;
  }
}

/** The canonical text of a node. */
export function canonical(node) {
  switch (node.kind) {
    case 'object':
      return `{${sorted(Array.from(node.members, ([name, member]) => [name, canonical(member)]))}}`;
    case 'array':
      return `[${node.items.map(canonical).join(',')}]`;
    case 'string':
      return quoted(node.text);
    case 'integer':
      return integerText(node.digits);
    case 'float':
      return floatText(Number(node.digits));
    case 'boolean':
      return String(node.value);
    default:
      return 'null';
  }
}

/**
 * The canonical text of an ordinary value. Members that are undefined are left out, as JSON.stringify does;
 * what JSON has no form for is a TypeError.
 */
export function stringify(thing, depth = 0) {
  if (depth > MAX_DEPTH) throw new TypeError('nested too deeply for a message');
  switch (typeof thing) {
    case 'string':
      if (!thing.isWellFormed()) throw new TypeError('half a surrogate pair is no text');
      return quoted(thing);
    case 'number':
      if (!Number.isFinite(thing)) throw new TypeError(`${thing} has no form in JSON`);
      return Number.isSafeInteger(thing) && !Object.is(thing, -0) ? String(thing) : floatText(thing);
    case 'bigint':
      return String(thing);
    case 'boolean':
      return String(thing);
    case 'object':
      return stringifyObject(thing, depth);
    default:
      throw new TypeError(`a ${typeof thing} has no form in JSON`);
  }
}

function stringifyObject(thing, depth) {
  if (thing === null) return 'null';
  if (Array.isArray(thing)) return `[${thing.map((item) => stringify(item, depth + 1)).join(',')}]`;
  if (typeof thing.toJSON === 'function') return stringify(thing.toJSON(), depth + 1);
  const members = Object.entries(thing).filter(([, member]) => member !== undefined);
  if (!members.every(([name]) => name.isWellFormed())) throw new TypeError('half a surrogate pair is no name');
  return `{${sorted(members.map(([name, member]) => [name, stringify(member, depth + 1)]))}}`;
}

/** An object of any member names: `__proto__` is one like the others. */
function objectOf(members) {
  const made = {};
  for (const [name, member] of members) {
    Object.defineProperty(made, name, { value: member, enumerable: true, writable: true, configurable: true });
  }
  return made;
}

function sorted(members) {
  members.sort(([a], [b]) => compareCodePoints(a, b));
  return members.map(([name, text]) => `${quoted(name)}:${text}`).join(',');
}

/** By code points: UTF-16 puts what is above the BMP before U+E000. */
function compareCodePoints(a, b) {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at += 1) {
    const [left, right] = [a.charCodeAt(at), b.charCodeAt(at)];
    if (left === right) continue;
    const [leftPair, rightPair] = [isSurrogate(left), isSurrogate(right)];
    return leftPair === rightPair ? left - right : leftPair ? 1 : -1;
  }
  return a.length - b.length;
}

function isSurrogate(unit) {
  return unit >= 0xd800 && unit <= 0xdfff;
}

function quoted(text) {
  // JSON.stringify has the short escapes; what is left are the characters beyond ASCII, and U+007F.
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  fail(kind) {
    throw new JsonError(kind, this.at);
  }

  space() {
    while (' \t\n\r'.includes(this.text[this.at] || 'x')) this.at += 1;
  }

  node(depth) {
    if (depth > MAX_DEPTH) this.fail('depth');
    switch (this.text[this.at]) {
      case '{':
        return this.object(depth);
      case '[':
        return this.array(depth);
      case '"':
        return { kind: 'string', text: this.string() };
      case 't':
        return this.word('true', { kind: 'boolean', value: true });
      case 'f':
        return this.word('false', { kind: 'boolean', value: false });
      case 'n':
        return this.word('null', { kind: 'null' });
      default:
        return this.number();
    }
  }

  word(word, node) {
    if (!this.text.startsWith(word, this.at)) this.fail('syntax');
    this.at += word.length;
    return node;
  }

  object(depth) {
    if (depth === MAX_DEPTH) this.fail('depth');
    const members = new Map();
    this.list('}', () => {
      if (this.text[this.at] !== '"') this.fail('syntax');
      const name = this.string();
      this.space();
      this.expect(':');
      this.space();
      const member = this.node(depth + 1);
      if (members.has(name)) this.fail('duplicate');
      members.set(name, member);
    });
    return { kind: 'object', members };
  }

  array(depth) {
    if (depth === MAX_DEPTH) this.fail('depth');
    const items = [];
    this.list(']', () => items.push(this.node(depth + 1)));
    return { kind: 'array', items };
  }

  /** What stands between brackets, apart by commas. */
  list(end, item) {
    this.at += 1;
    this.space();
    if (this.text[this.at] === end) {
      this.at += 1;
      return;
    }
    for (;;) {
      item();
      this.space();
      if (this.text[this.at] === end) {
        this.at += 1;
        return;
      }
      this.expect(',');
      this.space();
    }
  }

  expect(letter) {
    if (this.text[this.at] !== letter) this.fail('syntax');
    this.at += 1;
  }

  string() {
    const start = this.at;
    let escapes = false;
    for (;;) {
      this.at += 1;
      const unit = this.text.charCodeAt(this.at);
      if (unit === QUOTE) break;
      // Beyond the end it is NaN.
      if (!(unit >= 0x20)) this.fail('syntax');
      if (unit === BACKSLASH) {
        escapes = true;
        ESCAPE.lastIndex = this.at;
        const escape = ESCAPE.exec(this.text);
        if (!escape) this.fail('syntax');
        this.at += escape[0].length - 1;
      }
    }
    this.at += 1;
    const literal = this.text.slice(start, this.at);
    const text = escapes ? JSON.parse(literal) : literal.slice(1, -1);
    if (!text.isWellFormed()) this.fail('surrogate');
    return text;
  }

  number() {
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    if (!found) this.fail('syntax');
    const [digits, fraction, exponent] = found;
    const isFloat = fraction !== undefined || exponent !== undefined;
    if (isFloat ? !Number.isFinite(Number(digits)) : digits.length > MAX_DIGITS + digits.startsWith('-')) {
      this.fail('number');
    }
    this.at += digits.length;
    return { kind: isFloat ? 'float' : 'integer', digits };
  }
}
