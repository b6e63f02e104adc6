// The programs that the README shows do what it says.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';

import { startGateway, within } from './support/gateway.js';

test('the first program runs, says what it heard, and ends', async (t) => {
  const { url } = await startGateway(t);
  const program = fileURLToPath(new URL('../examples/first.js', import.meta.url));
  const child = spawn(process.execPath, ['--experimental-websocket', program, url], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (data) => {
    said += data;
  });
  const code = await within(new Promise((resolve) => child.once('close', resolve)), 'the program to end');
  assert.equal(code, 0);
  assert.match(said, /^did:key:z\w+ answers: you said hello\n$/);
});
