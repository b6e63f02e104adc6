// A real gateway for tests: started on port 0, which it tells, and ended with its test.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** The built `conexus`; the tests are of no use without. */
const PROGRAM = process.env.CONEXUS_BIN ?? new URL('../../../../target/debug/conexus', import.meta.url).pathname;
const PATIENCE = 20_000;

/** Starts one with these settings (`key=value`); `t` is the test, with which it ends. */
export async function startGateway(t, settings = [], { port = 0 } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'conexus-js-'));
  const all = [`server.listen="127.0.0.1:${port}"`, 'admin.enabled=false', ...settings];
  const child = spawn(PROGRAM, ['run', ...all.flatMap((setting) => ['--set', setting])], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
  });
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
    rmSync(folder, { recursive: true, force: true });
  });
  const address = await within(listening(child), `a gateway (${PROGRAM})`);
  return {
    address,
    url: `ws://${address}/ws`,
    /** Asks it to stop in an orderly way, and waits until it has. */
    async stop() {
      child.kill('SIGTERM');
      await within(exited, 'the gateway to stop');
    },
    /** Ends it at once. */
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** The first line that it prints says where. */
function listening(child) {
  const log = [];
  createInterface({ input: child.stderr }).on('line', (line) => log.push(line));
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = /listening on wss?:\/\/([^/]+)\//.exec(line);
      if (found) resolve(found[1]);
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the gateway ended with ${code}: ${log.join('\n')}`)));
  });
}

/** A promise with a patience: an event that does not come is a failure with a name. */
export function within(promise, what, patience = PATIENCE) {
  let timer;
  const over = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${patience} ms for ${what}`)), patience);
  });
  return Promise.race([promise, over]).finally(() => clearTimeout(timer));
}
