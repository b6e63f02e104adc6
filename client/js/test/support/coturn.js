// A real TURN server on loopback that shares a secret with the gateway; ends with its test.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { within } from './gateway.js';

/** The server that tests/run puts there where the system has none. */
const MADE = fileURLToPath(new URL('../../../../target/tools/turnserver', import.meta.url));
/** Asks for one's own address (RFC 8489). */
const BINDING = Buffer.from([0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

/** The URL of one with this secret. */
export async function startCoturn(t, secret) {
  const folder = mkdtempSync(join(tmpdir(), 'conexus-js-'));
  // It takes no port 0.
  const port = await freePort();
  const program = existsSync(MADE) ? MADE : 'turnserver';
  const child = spawn(
    program,
    [
      ...['-n', '--no-cli', '--no-tls', '--no-dtls', '--no-tcp', '--no-tcp-relay'],
      ...['--listening-ip', '127.0.0.1', '--relay-ip', '127.0.0.1', '--listening-port', String(port)],
      ...['--allow-loopback-peers', '--realm', 'test', '--use-auth-secret', '--static-auth-secret', secret],
      ...['--log-file', 'stdout', '--simple-log', '--pidfile', 'pid', '--userdb', 'db'],
    ],
    { cwd: folder, stdio: 'ignore' },
  );
  const failed = new Promise((_, reject) => {
    child.once('error', () => reject(new Error('no turnserver: run tests/run, once at least')));
  });
  const exited = new Promise((resolve) => {
    child.once('exit', resolve);
  });
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
    rmSync(folder, { recursive: true, force: true });
  });
  await within(Promise.race([answers(port), failed]), 'the TURN server to answer');
  return `turn:127.0.0.1:${port}?transport=udp`;
}

function freePort() {
  const socket = createSocket('udp4');
  return new Promise((resolve) => {
    socket.bind(0, '127.0.0.1', () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}

/** Asks until there is an answer. */
async function answers(port) {
  const socket = createSocket('udp4');
  const answered = new Promise((resolve) => {
    socket.once('message', resolve);
  });
  const asking = setInterval(() => socket.send(BINDING, port, '127.0.0.1', () => {}), 50);
  await answered;
  clearInterval(asking);
  socket.close();
}
