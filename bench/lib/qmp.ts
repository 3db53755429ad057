/** QEMU's control socket: commands, each answered in turn. Imports only Node's own modules: it is loaded inside the embedded host, too. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const START_DEADLINE_MS = 120_000;

export interface Qmp {
  /** What QEMU returned. @throws Error with its description, or when the socket closes first. */
  execute(command: string, args?: object): Promise<unknown>;
  close(): void;
}

/**
 * A connection that has been greeted. Only answers count: events, which QMP mixes in, have neither of their keys.
 *
 * @throws Error when QEMU has ended, or does not listen within two minutes.
 */
export async function connectQmp(socketPath: string, hasEnded: () => boolean): Promise<Qmp> {
  const socket = await connected(socketPath, hasEnded);
  const waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  let text = '';
  socket.on('data', (bytes: Buffer) => {
    const lines = (text + bytes.toString()).split('\n');
    text = lines.pop()!;
    for (const line of lines) {
      const message = JSON.parse(line) as { return?: unknown; error?: { desc: string } };
      if (message.error) waiting.shift()?.reject(new Error(message.error.desc));
      else if ('return' in message) waiting.shift()?.resolve(message.return);
    }
  });
  socket.once('close', () => {
    for (const { reject } of waiting.splice(0)) reject(new Error('QEMU has closed its control socket'));
  });
  socket.on('error', () => undefined); // 'close' follows
  const execute = (command: string, args?: object) =>
    new Promise<unknown>((resolve, reject) => {
      waiting.push({ resolve, reject });
      socket.write(`${JSON.stringify({ execute: command, ...(args && { arguments: args }) })}\n`);
    });
  await execute('qmp_capabilities');
  return { execute, close: () => socket.destroy() };
}

/** QEMU makes its socket some time after its start. */
async function connected(socketPath: string, hasEnded: () => boolean): Promise<Socket> {
  const deadlineMs = performance.now() + START_DEADLINE_MS;
  for (;;) {
    const socket = createConnection(socketPath);
    try {
      await once(socket, 'connect');
      return socket;
    } catch (error) {
      if (hasEnded() || performance.now() > deadlineMs) throw error;
      await delay(50);
    }
  }
}
