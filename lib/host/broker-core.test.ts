/** The broker with a fake machine, fake clients and a clock in the test's hand. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import type { VmmError } from '../base/errors.js';
import { Broker, type BrokerOptions } from './broker-core.js';
import { duplexPair, FakeMachine } from './fake-machine.js';
import {
  creditFrame,
  dataFrame,
  FRAME_CREDIT,
  FRAME_DATA,
  FRAME_MESSAGE,
  STDIN,
  STDOUT,
  type Frame,
} from './frames.js';
import { Link } from './link.js';
import { messageOf, ONLY_SESSION, type Message, type SessionRequest } from './messages.js';

const SECOND = 1_000_000_000n;

const request: SessionRequest = {
  kind: 'command',
  argv: ['run'],
  cwd: '/tmp',
  env: {},
  stdinIsTerminal: false,
  stdoutIsTerminal: false,
  stderrIsTerminal: false,
  bundle: { key: 'k', path: '/b' },
};

/** Lets promises and streams run until nothing moves. */
async function settle(): Promise<void> {
  for (let turns = 0; turns < 12; turns++) await new Promise((resolve) => setImmediate(resolve));
}

function house(overrides: Partial<BrokerOptions> = {}) {
  const clock = new ManualClock();
  const machine = new FakeMachine();
  const events: string[] = [];
  const ends: (VmmError | undefined)[] = [];
  const broker = new Broker({
    key: 'key',
    clock,
    startMachine: () => Promise.resolve(machine),
    sharedFolders: () => [{ name: 'home' }],
    idleMs: 600_000,
    bootDeadlineMs: 60_000,
    pingMs: 2000,
    stallPings: 5,
    log: () => undefined,
    onRetired: () => events.push('retired'),
    onEnded: (error) => ends.push(error),
    ...overrides,
  });
  const client = () => {
    const [near, far] = duplexPair();
    broker.accept(far);
    const frames: Frame[] = [];
    let gone = false;
    const link = new Link(near, near, { onFrame: (frame) => frames.push(frame), onEnd: () => (gone = true) });
    const messages = (): Message[] => frames.filter(({ type }) => type === FRAME_MESSAGE).map(messageOf);
    const say = (message: Message): void => link.sendMessage(ONLY_SESSION, message);
    return { link, frames, messages, say, gone: () => gone };
  };
  const boot = async (): Promise<void> => {
    await broker.start();
    machine.inner.sendMessage(0, { type: 'hello', uptimeMs: 5000 });
    await settle();
    machine.inner.sendMessage(0, { type: 'attached' });
    await settle();
  };
  return { clock, machine, events, ends, broker, client, boot };
}

describe('Broker', () => {
  it('attaches the machine with time and folders, then is ready', async () => {
    const { broker, machine, client, boot } = house();
    const waiting = client();
    await boot();
    expect(machine.messages()[0]).toMatchObject({ type: 'attach', folders: [{ name: 'home' }], session: 0 });
    expect(broker.status()).toMatchObject({ state: 'ready', key: 'key', qemuPid: 4711, sessions: 0 });
    expect(waiting.messages().at(-1)).toMatchObject({ type: 'ready' });
  });

  it('keeps a session that comes early until the host is ready, and numbers sessions apart', async () => {
    const { broker, machine, client, boot } = house();
    const first = client();
    first.say({ type: 'open', request });
    await settle();
    first.link.send(creditFrame(ONLY_SESSION, STDOUT, 1000));
    first.say({ type: 'signal', signal: 'SIGINT' });
    await settle();
    expect(broker.status().sessions).toBe(1);
    await boot();
    const early = machine.heard.filter(({ session }) => session === 1).map(({ type }) => type);
    expect(early).toEqual([FRAME_MESSAGE, FRAME_CREDIT, FRAME_MESSAGE]);
    const second = client();
    second.say({ type: 'open', request });
    await settle();
    const opened = machine.messages().filter(({ type }) => type === 'open');
    expect(opened.map(({ session }) => session)).toEqual([1, 2]);
    second.link.send(dataFrame(ONLY_SESSION, STDIN, Buffer.from('to second')));
    machine.inner.send(dataFrame(1, STDOUT, Buffer.from('from first')));
    await settle();
    const sent = machine.heard.filter(({ type }) => type === FRAME_DATA);
    expect(sent.map(({ session, payload }) => [session, Buffer.from(payload).toString()])).toEqual([[2, 'to second']]);
    expect(second.frames.some(({ type }) => type === FRAME_DATA)).toBe(false);
    const got = first.frames.filter(({ type }) => type === FRAME_DATA);
    expect(got.map(({ session, payload }) => [session, Buffer.from(payload).toString()])).toEqual([
      [ONLY_SESSION, 'from first'],
    ]);
  });

  it('hangs up for a client that goes, and counts its session until the inside says that it is over', async () => {
    const { broker, machine, client, boot } = house();
    await boot();
    const one = client();
    one.say({ type: 'open', request });
    await settle();
    one.link.destroy();
    await settle();
    expect(machine.messages().at(-1)).toMatchObject({ type: 'hangup', session: 1 });
    expect(broker.status().sessions).toBe(1);
    machine.inner.sendMessage(1, { type: 'exit', status: 129 });
    await settle();
    expect(broker.status().sessions).toBe(0);
  });

  it('ends when nobody needed it for long, and not before', async () => {
    const { clock, machine, client, boot, ends, events } = house();
    /** Time passes while the inside answers. */
    const pass = async (seconds: number): Promise<void> => {
      for (let tick = 0; tick < seconds; tick++) {
        clock.advance(SECOND);
        machine.inner.sendMessage(0, { type: 'pong', count: 0 });
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    await boot();
    await pass(590);
    const one = client();
    one.say({ type: 'open', request });
    await settle();
    await pass(700);
    expect(ends).toEqual([]);
    machine.inner.sendMessage(1, { type: 'exit', status: 0 });
    await settle();
    await pass(590);
    expect(ends).toEqual([]);
    await pass(15);
    await settle();
    expect(ends).toEqual([undefined]);
    expect(events).toEqual(['retired']);
    expect(machine.killed).toBe(true);
  });

  it('gives a host up that does not answer any more, with the last lines of its console', async () => {
    const { clock, client, boot, ends } = house();
    await boot();
    const one = client();
    one.say({ type: 'open', request });
    await settle();
    for (let tick = 0; tick < 6; tick++) {
      clock.advance(2n * SECOND);
      await settle();
    }
    const failed = one.messages().at(-1);
    expect(failed).toMatchObject({ type: 'failed', failure: { code: 'ERR_EMBEDDED_HOST' } });
    expect(JSON.stringify(failed)).toMatch(/has not answered for 10 s.*Kernel panic/);
    expect(ends[0]?.code).toBe('ERR_EMBEDDED_HOST');
  });

  it('gives a host up that is not ready in time', async () => {
    const { clock, broker, machine, client, ends } = house();
    const one = client();
    await broker.start();
    one.say({ type: 'open', request });
    await settle();
    clock.advance(61n * SECOND);
    await settle();
    expect(JSON.stringify(one.messages().at(-1))).toMatch(/was not ready after 60 s/);
    expect(machine.killed).toBe(true);
    expect(ends).toHaveLength(1);
  });

  it('tells every session when QEMU dies', async () => {
    const { machine, client, boot, ends } = house();
    await boot();
    const clients = [client(), client()];
    for (const one of clients) one.say({ type: 'open', request });
    await settle();
    machine.die('QEMU was ended by SIGKILL');
    await settle();
    for (const one of clients) {
      expect(JSON.stringify(one.messages().at(-1))).toMatch(/QEMU was ended by SIGKILL.*Kernel panic/);
      expect(one.gone()).toBe(true);
    }
    expect(ends).toHaveLength(1);
  });

  it('reports a machine that cannot be started, and an inner daemon that fails', async () => {
    const dead = house({ startMachine: () => Promise.reject(new Error('no such program')) });
    const one = dead.client();
    one.say({ type: 'open', request });
    await dead.broker.start();
    await settle();
    expect(JSON.stringify(one.messages().at(-1))).toContain('no such program');

    const sick = house();
    await sick.broker.start();
    sick.machine.inner.sendMessage(0, { type: 'failed', failure: { code: 'ERR_EMBEDDED_HOST', message: 'no 9p' } });
    await settle();
    expect(sick.ends[0]?.message).toContain('no 9p');
  });

  it('gives a start up that nobody waits for any more', async () => {
    const { clock, broker, machine, client, ends } = house();
    const one = client();
    await broker.start();
    one.say({ type: 'open', request });
    await settle();
    one.link.destroy();
    await settle();
    clock.advance(SECOND);
    await settle();
    expect(machine.killed).toBe(true);
    expect(ends).toEqual([undefined]);
  });

  it('drains: retires at once, lets its session end, then goes', async () => {
    const { machine, client, boot, events, ends, broker } = house();
    await boot();
    const one = client();
    one.say({ type: 'open', request });
    client().say({ type: 'drain' });
    await settle();
    expect(events).toEqual(['retired']);
    expect(broker.status().state).toBe('draining');
    expect(ends).toEqual([]);
    machine.inner.sendMessage(1, { type: 'exit', status: 3 });
    await settle();
    expect(one.messages().at(-1)).toEqual({ type: 'exit', status: 3 });
    expect(ends).toEqual([undefined]);
    expect(events).toEqual(['retired']);
  });

  it('survives a client that talks nonsense, and one that opens twice', async () => {
    const { broker, client, boot } = house();
    await boot();
    const [near, far] = duplexPair();
    broker.accept(far);
    near.resume();
    near.on('error', () => undefined);
    near.write('GET / HTTP/1.1\r\nHost: here\r\n\r\n');
    await settle();
    const one = client();
    one.say({ type: 'open', request });
    one.say({ type: 'open', request });
    await settle();
    expect(one.messages().at(-1)).toMatchObject({ type: 'failed', failure: { code: 'ERR_STATE' } });
    expect(broker.status()).toMatchObject({ state: 'ready', sessions: 1 });
  });

  it('stops at once when asked, and says so to its sessions', async () => {
    const { machine, client, boot, ends } = house();
    await boot();
    const one = client();
    one.say({ type: 'open', request });
    await settle();
    client().say({ type: 'stop' });
    await settle();
    expect(JSON.stringify(one.messages().at(-1))).toContain('was stopped');
    expect(machine.killed).toBe(true);
    expect(ends).toHaveLength(1);
  });
});
