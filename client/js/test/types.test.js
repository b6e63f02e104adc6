// The types: they hold together, and name exactly what the module exports.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';

import * as exported from '../src/index.js';

const FOLDER = new URL('../', import.meta.url);

test('the compiler finds no fault with the types', () => {
  const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', FOLDER));
  const { status, stdout, stderr } = spawnSync(process.execPath, [tsc, '--noEmit'], { cwd: FOLDER, encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
});

test('the types declare what there is, and nothing else', () => {
  const files = readdirSync(new URL('types/', FOLDER)).filter((name) => name !== 'index.d.ts' && name !== 'platform.d.ts');
  const declared = new Set();
  for (const name of files) {
    const text = readFileSync(new URL(`types/${name}`, FOLDER), 'utf8');
    for (const [, what] of text.matchAll(/^export declare (?:class|function|const) (\w+)/gm)) declared.add(what);
  }
  assert.deepEqual([...declared].sort(), Object.keys(exported).sort());
});

test('a class has the members that its type has', async () => {
  const { Channel, Client, Identity, Peer } = exported;
  for (const [name, { prototype }] of Object.entries({ Channel, Client, Identity, Peer })) {
    const file = name === 'Identity' ? 'identity' : name === 'Client' ? 'client' : 'peer';
    const text = readFileSync(new URL(`types/${file}.d.ts`, FOLDER), 'utf8');
    const body = new RegExp(`declare class ${name} \\{([^]*?)\n\\}`).exec(text)[1];
    const methods = [...body.matchAll(/^ {2}(?!private|static|constructor|readonly)(\w+)[<(]/gm)].map(([, method]) => method);
    assert.ok(methods.length > 3, name);
    for (const method of methods) assert.equal(typeof prototype[method], 'function', `${name}.${method}`);
  }
});
