/** What is told of a machine over real sockets: in order, to the end, and bounded for who does not read. */
import { connect as connectSocket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Value } from '@sinclair/typebox/value';
import { ManualClock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { MachineEvent } from './event-schemas.js';
import { claimName, type MachineClaim } from './machine-folders.js';
import { connect, type RemoteMachine } from './remote-machine.js';
import { listenFor, MachineControl, type ControlSocket } from './serve.js';
import { FakeControlled, ownPlace } from './testing.js';

let place: ReturnType<typeof ownPlace>;
let claim: MachineClaim;
let socket: ControlSocket;
let control: MachineControl;
let machine: FakeControlled;
let box: RemoteMachine;
const clock = new ManualClock({ wallMs: Date.parse('2026-01-01T00:00:00Z') });

beforeEach(async () => {
  place = ownPlace();
  claim = await claimName('box', { host: 'native' }, place);
  machine = new FakeControlled();
  control = new MachineControl(machine, { record: claim.record, clock });
  socket = await listenFor(claim, (stream) => control.accept(stream));
  box = await connect('box', { place });
});
afterEach(async () => {
  const [closed, closing] = [socket.close(), control.close({ reason: 'killed' })];
  await expect.poll(() => control.target.events.size).toBe(0);
  clock.advance(60_000_000_000n);
  await Promise.all([closed, closing]);
  claim.release();
  place.done();
});

/** Takes events as they come, without their times. */
async function listening(options?: { signal?: AbortSignal }) {
  const taken: Record<string, unknown>[] = [];
  const ended = (async () => {
    for await (const event of box.events(options)) {
      expect([...Value.Errors(MachineEvent, event)]).toEqual([]);
      const { at, ...rest } = event;
      expect(at).toMatch(/^2026-01-01T00:\d\d:\d\d\.\d{3}Z$/);
      taken.push(rest);
    }
  })();
  ended.catch(() => undefined);
  await expect.poll(() => taken.length).toBe(1);
  return { taken, ended };
}

describe('events', () => {
  it('are the state, what happens, and the end', async () => {
    const { taken, ended } = await listening();
    machine.agent.boot({ release: '6.1.0-fake' });
    await box.pause();
    await box.resume();
    await box.device('root').rebind({ kind: 'file', path: '/disk.img' });
    machine.pitEvent('catch-up', { owed: 100, lagMs: 400, firingHz: 500 });
    machine.pitEvent('storm', { limitHz: 300, firingHz: 500 });
    machine.pitEvent('nominal', { owed: 0, lagMs: 0, firingHz: 250, episodeMs: 800 });
    machine.pitEvent('reprogrammed', { count: 1, mode: 2, programmedHz: 250 });
    machine.end({ reason: 'poweroff' });
    void control.close({ reason: 'poweroff', status: 0, outcome: 'poweroff' });
    await ended;
    expect(taken).toEqual([
      { type: 'state', state: 'running' },
      { type: 'agent', agent: 'fake-agent 1', release: '6.1.0-fake' },
      { type: 'state', state: 'paused' },
      { type: 'state', state: 'running' },
      { type: 'rebound', device: 'root', held: 0 },
      { type: 'pit', what: 'catch-up', detail: { owed: 100, lagMs: 400, firingHz: 500 } },
      { type: 'pit', what: 'storm', detail: { limitHz: 300, firingHz: 500 } },
      { type: 'pit', what: 'nominal', detail: { owed: 0, lagMs: 0, firingHz: 250, episodeMs: 800 } },
      { type: 'state', state: 'stopped' },
      { type: 'ended', reason: 'poweroff', status: 0, outcome: 'poweroff' },
    ]);
    expect(box.state).toBe('stopped');
  });

  it('tell of a snapshot, its progress not too often, and how it went', async () => {
    const { taken } = await listening();
    machine.onSnapshot = (dir, { onProgress }) => {
      for (let bytesDone = 0; bytesDone < 4096; bytesDone += 512) {
        onProgress?.({ bytesDone, bytesTotal: 4096, ratePerSecond: 1 });
        if (bytesDone === 1024) clock.advance(250_000_000n);
      }
      return Promise.resolve({ dir, id: 'abc', stats: { pauseMs: 1.5 } as never });
    };
    await box.snapshot('/there');
    machine.onSnapshot = () => Promise.reject(new VmmError('ERR_SNAPSHOT_REFUSED', 'a device refuses'));
    await expect(box.snapshot('/other')).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_REFUSED' });
    await expect.poll(() => taken.length).toBe(6);
    expect(taken.slice(1)).toEqual([
      { type: 'snapshot', what: 'started', dir: '/there' },
      { type: 'snapshot', what: 'progress', dir: '/there', bytesDone: 1536, bytesTotal: 4096 },
      { type: 'snapshot', what: 'done', dir: '/there', id: 'abc', pauseMs: 1.5 },
      { type: 'snapshot', what: 'started', dir: '/other' },
      { type: 'snapshot', what: 'failed', dir: '/other', code: 'ERR_SNAPSHOT_REFUSED', message: 'a device refuses' },
    ]);
  });

  it('are let go of by who leaves, or gives up', async () => {
    for await (const event of box.events()) {
      expect(event).toMatchObject({ type: 'state', state: 'running' });
      break;
    }
    await expect.poll(() => control.target.events.size).toBe(0);
    expect(control.target.ending.size).toBe(0);
    const stop = new AbortController();
    const { ended } = await listening({ signal: stop.signal });
    stop.abort();
    await expect(ended).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect.poll(() => control.target.events.size).toBe(0);
    expect(control.target.ending.size).toBe(0);
  });

  it('of who does not read are left out and counted; the machine and others go on', async () => {
    const slow = connectSocket(claim.socketPath);
    slow.on('error', () => undefined);
    slow.write('GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n');
    await new Promise((resolve) => slow.once('readable', resolve));
    await expect.poll(() => control.target.events.size).toBe(1);
    const total = 20_000;
    for (let sent = 0; sent < total; sent++) {
      machine.pitEvent('catch-up', { owed: sent, lagMs: 1, firingHz: 'x'.repeat(1000) as never });
      if (sent % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await box.summary()).state).toBe('running');
    machine.end({ reason: 'poweroff' });
    void control.close({ reason: 'poweroff' });
    let text = '';
    slow.on('data', (bytes: Buffer) => (text += bytes.toString()));
    await new Promise((resolve) => slow.once('end', resolve));
    const events = text.match(/^\{.*\}$/gm)!.map((line) => JSON.parse(line) as MachineEvent);
    const lost = events.reduce((sum, event) => sum + (event.type === 'lost' ? event.count : 0), 0);
    const told = events.filter(({ type }) => type === 'pit').length;
    expect(lost).toBeGreaterThan(total / 2);
    // Of the last state too, which is told again.
    expect(told + lost).toBeGreaterThanOrEqual(total);
    expect(told + lost).toBeLessThanOrEqual(total + 1);
    expect(events.at(-1)).toMatchObject({ type: 'ended', reason: 'poweroff' });
    expect(events.filter(({ type }) => type === 'state').at(-1)).toMatchObject({ state: 'stopped' });
  });
});
