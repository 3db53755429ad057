/** A session inside the embedded host whose process ends without a word: by a signal that was passed on, or by itself. */
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { expect, it } from 'vitest';
import { duplexPair } from './fake-machine.js';
import type { Bundles, WorkerProcess } from './inner-bundles.js';
import { InnerSession } from './inner-session.js';
import type { Link } from './link.js';
import { messageFrame, type Message, type SessionRequest } from './messages.js';

const request: SessionRequest = {
  kind: 'command',
  argv: ['run'],
  cwd: '/',
  env: {},
  stdinIsTerminal: false,
  stdoutIsTerminal: false,
  stderrIsTerminal: false,
  bundle: { key: 'k', path: '/b' },
};

it.each([
  ['tells a status', 143, { type: 'exit', status: 143 }],
  ['is a failure', 1, { type: 'failed', failure: { code: 'ERR_EMBEDDED_HOST' } }],
])('that was sent SIGTERM %s when its process ends with %i', async (_name, code, expected) => {
  const [near] = duplexPair();
  const child = Object.assign(new EventEmitter(), { stdio: [null, null, null, near] }) as unknown as ChildProcess;
  const worker = { child, lastWords: () => '' } as WorkerProcess;
  const told: Message[] = [];
  let end: () => void = () => undefined;
  const over = new Promise<void>((resolve) => (end = resolve));
  const session = new InnerSession(7, request, {
    link: {
      send: () => undefined,
      sendMessage: (_id: number, message: Message) => told.push(message),
    } as unknown as Link,
    bundles: { takeWorker: () => Promise.resolve(worker), prepare: () => undefined } as unknown as Bundles,
    log: () => undefined,
    onEnd: end,
  });
  session.start();
  session.onFrame(messageFrame(7, { type: 'signal', signal: 'SIGTERM' }));
  await new Promise((resolve) => setImmediate(resolve));
  child.emit('close', code, null);
  await over;
  expect(told).toMatchObject([expected]);
});
