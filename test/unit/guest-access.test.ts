/** A guest's files and ports from another end: connect(), the control socket, the agent's client, the C agent and this Linux's own tools. */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { claimName, connect, listenFor, MachineControl, type RemoteMachine } from '../../lib/control/index.js';
import { FakeControlled, ownPlace } from '../../lib/control/testing.js';
import { buildNativeAgent, startNativeAgent } from '../lib/native-agent.js';

const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-guest-access-'));
let box: RemoteMachine;
let close: () => Promise<void>;

beforeAll(async () => {
  const program = path.join(folder, 'agent');
  buildNativeAgent(program);
  const { agents, child } = startNativeAgent(program);
  const place = ownPlace();
  const claim = await claimName('box', { host: 'native' }, place);
  const control = new MachineControl(new FakeControlled(), { record: claim.record, agents });
  const socket = await listenFor(claim, (stream) => control.accept(stream));
  box = await connect('box', { place });
  close = async () => {
    const closed = socket.close();
    await control.close({ reason: 'killed' });
    await closed;
    claim.release();
    place.done();
    child.kill('SIGKILL');
  };
}, 60_000);
afterAll(async () => {
  await close();
  rmSync(folder, { recursive: true, force: true });
});

describe('a guest', () => {
  it('has files of up to 16 MiB, which are written, read and listed', async () => {
    const at = path.join(folder, 'files');
    mkdirSync(at);
    const bytes = Buffer.alloc(16 * 2 ** 20, 'viv');
    await box.writeFile(`${at}/big`, bytes, { mode: 0o640 });
    expect(readFileSync(`${at}/big`).equals(bytes)).toBe(true);
    expect(statSync(`${at}/big`).mode & 0o777).toBe(0o640);
    expect(Buffer.from(await box.readFile(`${at}/big`)).equals(bytes)).toBe(true);
    await box.writeFile(`${at}/big`, '!', { append: true });
    await expect(box.readFile(`${at}/big`)).rejects.toMatchObject({ code: 'ERR_GUEST_FILE', errno: 'EFBIG' });
    writeFileSync(Buffer.concat([Buffer.from(`${at}/`), Buffer.from([0xff, 0x0a])]), 'odd');
    const entries = await box.list(at);
    expect(entries.map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual([
      ['big', bytes.length + 1],
      ['\ufffd\n', 3],
    ]);
    const odd = Buffer.concat([Buffer.from(`${at}/`), entries[1]!.nameBytes!]);
    expect(Buffer.from(await box.readFile(odd)).toString()).toBe('odd');
    await expect(box.list(`${at}/big`)).rejects.toMatchObject({ errno: 'ENOTDIR' });
  });

  it('is written to and read from by many at a time', async () => {
    const at = path.join(folder, 'many');
    mkdirSync(at);
    chmodSync(at, 0o700);
    const numbers = Array.from({ length: 40 }, (_, index) => index);
    await Promise.all(numbers.map((number) => box.writeFile(`${at}/${number}`, String(number).repeat(10_000))));
    const read = await Promise.all(numbers.map((number) => box.readFile(`${at}/${number}`)));
    expect(read.map((bytes) => Buffer.from(bytes).toString())).toEqual(
      numbers.map((number) => String(number).repeat(10_000)),
    );
  });

  it('has a port that is waited for until something listens on it', async () => {
    const server = createServer();
    const listen = (port: number): Promise<void> =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(port, '127.0.0.1', resolve);
      });
    await listen(0);
    const { port } = server.address() as { port: number };
    expect(await box.waitForPort(port)).toEqual({ port, addresses: ['127.0.0.1'] });
    await new Promise((resolve) => server.close(resolve));
    await expect(box.waitForPort(port, { timeoutMs: 100 })).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    let isOver = false;
    const waiting = box.waitForPort(port).finally(() => (isOver = true));
    await box.list('/');
    expect(isOver).toBe(false);
    await listen(port);
    expect((await waiting).port).toBe(port);
    await new Promise((resolve) => server.close(resolve));
  });
});
