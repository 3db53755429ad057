import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { controlClient } from './client.js';
import { claimName, type MachineRecord } from './machine-folders.js';
import { isStats, metricsText } from './metrics.js';
import type { Stats } from './schemas.js';
import { scrapeMachines } from './scrape.js';
import { listenFor, MachineControl } from './serve.js';
import { FakeControlled, ownPlace } from './testing.js';

const record: MachineRecord = { name: 'box', id: 'abc', pid: 7, host: 'native', since: '2026-01-01T00:00:00.000Z' };
const stats: Stats = {
  state: 'running',
  atMs: 1,
  cpus: [
    {
      id: 0,
      exits: 12,
      byReason: { io: 7, mmio: 4 },
      counters: { exits: 12, answeredNatively: 5, answeredByScript: 6, threadCpuNs: 2_500_000_000 },
    },
    { id: 1, exits: 3, byReason: {}, counters: { exits: 3 } },
  ],
  memoryBytes: 2 ** 28,
  devices: [
    {
      id: 'root',
      class: 'block',
      functions: {
        read: { by: 'native', calls: 3, errors: 1, ns: 1500, bytes: 4096 },
        discard: { by: 'emulated', calls: 0, errors: 0, ns: 0, bytes: 0 },
      },
    },
  ],
  pit: {
    phase: 'catch-up',
    programmedHz: 250,
    firingHz: 500,
    delivered: 1000,
    forgiven: 2,
    owed: -3,
    lagMs: -12.5,
    episodes: 4,
    storms: 0,
    reprograms: 1,
  },
  process: { cpuMs: 1234, rssBytes: 5 * 2 ** 20 },
  saves: [{ dir: '/there', bytesDone: 1, bytesTotal: 2 }],
  viewers: 2,
};

interface Parsed {
  /** Types by metric. */
  readonly types: ReadonlyMap<string, string>;
  /** Values by metric and labels, as they are written. */
  readonly samples: ReadonlyMap<string, number>;
}

/** The text format 0.0.4, strictly: each metric once, with its type before its samples, no sample twice. */
function parse(text: string): Parsed {
  const types = new Map<string, string>();
  const samples = new Map<string, number>();
  expect(text.endsWith('\n')).toBe(true);
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('# HELP ')) continue;
    const [, typed, type] = /^# TYPE (\S+) (counter|gauge)$/.exec(line) ?? [];
    if (typed !== undefined) {
      expect(types).not.toContain(typed);
      types.set(typed, type!);
      continue;
    }
    const [, key, name, value] = /^(([a-z_]+)(?:\{(?:[a-z]+="[^"\\]*",?)+\})?) (-?[\d.e+-]+)$/.exec(line) ?? [];
    expect([line, types.has(name ?? '')]).toEqual([line, true]);
    expect(samples).not.toContain(key);
    samples.set(key!, Number(value));
  }
  return { types, samples };
}

describe('the text', () => {
  it('has everything of the counters, in base units', async () => {
    const { samples } = parse(await metricsText([{ record, stats }]));
    const box = 'machine="box"';
    const read = `${box},device="root",class="block",function="read",by="native"`;
    const discard = `${box},device="root",class="block",function="discard",by="emulated"`;
    const expected: Record<string, number> = {
      [`vivarium_machine_info{${box},id="abc",host="native"}`]: 1,
      [`vivarium_guest_memory_bytes{${box}}`]: 2 ** 28,
      [`vivarium_vcpu_exits_total{${box},cpu="0"}`]: 12,
      [`vivarium_vcpu_exits_total{${box},cpu="1"}`]: 3,
      [`vivarium_vcpu_exits_by_reason_total{${box},cpu="0",reason="io"}`]: 7,
      [`vivarium_vcpu_exits_by_reason_total{${box},cpu="0",reason="mmio"}`]: 4,
      [`vivarium_vcpu_exits_answered_total{${box},cpu="0",by="native"}`]: 5,
      [`vivarium_vcpu_exits_answered_total{${box},cpu="0",by="script"}`]: 6,
      [`vivarium_vcpu_cpu_seconds_total{${box},cpu="0"}`]: 2.5,
      [`vivarium_device_calls_total{${read}}`]: 3,
      [`vivarium_device_calls_total{${discard}}`]: 0,
      [`vivarium_device_errors_total{${read}}`]: 1,
      [`vivarium_device_errors_total{${discard}}`]: 0,
      [`vivarium_device_seconds_total{${read}}`]: 1.5e-6,
      [`vivarium_device_seconds_total{${discard}}`]: 0,
      [`vivarium_device_bytes_total{${read}}`]: 4096,
      [`vivarium_device_bytes_total{${discard}}`]: 0,
      [`vivarium_pit_programmed_hertz{${box}}`]: 250,
      [`vivarium_pit_firing_hertz{${box}}`]: 500,
      [`vivarium_pit_ticks_delivered_total{${box}}`]: 1000,
      [`vivarium_pit_ticks_forgiven_total{${box}}`]: 2,
      [`vivarium_pit_ticks_owed{${box}}`]: -3,
      [`vivarium_pit_lag_seconds{${box}}`]: -0.0125,
      [`vivarium_pit_episodes_total{${box}}`]: 4,
      [`vivarium_pit_storms_total{${box}}`]: 0,
      [`vivarium_pit_reprograms_total{${box}}`]: 1,
      [`vivarium_process_cpu_seconds_total{${box}}`]: 1.234,
      [`vivarium_process_resident_memory_bytes{${box}}`]: 5 * 2 ** 20,
      [`vivarium_viewers{${box}}`]: 2,
      [`vivarium_snapshots_in_progress{${box}}`]: 1,
    };
    for (const state of ['created', 'running', 'paused', 'stopped', 'failed']) {
      expected[`vivarium_machine_state{${box},state="${state}"}`] = state === 'running' ? 1 : 0;
    }
    for (const phase of ['nominal', 'catch-up', 'slow-down', 'stand-down']) {
      expected[`vivarium_pit_phase{${box},phase="${phase}"}`] = phase === 'catch-up' ? 1 : 0;
    }
    expect(Object.fromEntries(samples)).toEqual(expected);
  });

  it("has Prometheus's names: what only grows ends with _total, and nothing else does", async () => {
    const { types } = parse(await metricsText([{ record, stats }], 0));
    for (const [name, type] of types) {
      expect(name).toMatch(/^vivarium_/);
      expect([name, name.endsWith('_total')]).toEqual([name, type === 'counter']);
    }
  });

  it('has each metric once for any number of machines, and leaves out what one does not tell', async () => {
    const other = { record: { ...record, name: 'other' }, stats: { ...stats, pit: {}, cpus: [], devices: [] } };
    const { samples } = parse(await metricsText([{ record, stats }, other], 3));
    expect(samples.get('vivarium_viewers{machine="other"}')).toBe(2);
    expect(samples.get('vivarium_scrape_failed')).toBe(3);
    expect([...samples.keys()].filter((key) => /^vivarium_(pit|vcpu|device).*other/.test(key))).toEqual([]);
  });
});

describe('a scrape', () => {
  let place: ReturnType<typeof ownPlace>;
  const after: (() => unknown)[] = [];
  beforeEach(() => (place = ownPlace()));
  afterEach(async () => {
    for (const each of after.splice(0).reverse()) await each();
    place.done();
  });

  async function serve(name: string): Promise<FakeControlled> {
    const claim = await claimName(name, { host: 'native' }, place);
    const machine = new FakeControlled(name);
    const control = new MachineControl(machine, { record: claim.record });
    const socket = await listenFor(claim, (stream) => control.accept(stream));
    after.push(async () => {
      const closed = socket.close();
      await control.close({ reason: 'killed' });
      await closed;
      claim.release();
    });
    return machine;
  }

  /** A process that takes connections; what it does with them is `answer`. */
  async function stuck(name: string, answer?: string): Promise<void> {
    const claim = await claimName(name, { host: 'native' }, place);
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      after.push(() => socket.destroy());
      if (answer !== undefined) socket.end(answer);
    });
    await new Promise<void>((resolve) => server.listen(claim.socketPath, resolve));
    after.push(async () => {
      server.close();
      claim.release();
    });
  }

  it('is the text of one machine by its own route', async () => {
    const machine = await serve('box');
    machine.print('something');
    const text = (await controlClient('box', place).bytes('GET', '/v1/metrics')).toString();
    const { samples } = parse(text);
    expect(samples.get('vivarium_vcpu_exits_total{machine="box",cpu="0"}')).toBe(7);
    expect(samples.get('vivarium_pit_programmed_hertz{machine="box"}')).toBe(250);
    expect(samples.has('vivarium_scrape_failed')).toBe(false);
  });

  it('has all machines that answer, and counts those that do not in time or say something else', async () => {
    await serve('one');
    await serve('two');
    await stuck('silent');
    await stuck('strange', 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}');
    const { samples } = parse(await scrapeMachines({ place, answerMs: 1000 }));
    const machines = [...samples.keys()].filter((key) => key.startsWith('vivarium_machine_info')).map(machineIn);
    expect(machines).toEqual(['one', 'two']);
    expect(samples.get('vivarium_scrape_failed')).toBe(2);
  });

  it('does not count machines that were killed, or are being started', async () => {
    const claim = await claimName('starting', { host: 'native' }, place);
    after.push(() => claim.release());
    const dead = claim.folder.replace(/starting$/, 'dead');
    cpSync(claim.folder, dead, { recursive: true });
    const text = readFileSync(`${dead}/machine.json`, 'utf8');
    writeFileSync(`${dead}/machine.json`, text.replace('"starting"', '"dead"'));
    const { samples } = parse(await scrapeMachines({ place }));
    expect(Object.fromEntries(samples)).toEqual({ vivarium_scrape_failed: 0 });
  });
});

function machineIn(key: string): string | undefined {
  return /machine="([^"]*)"/.exec(key)?.[1];
}

it('knows what are counters', () => {
  expect(isStats(stats)).toBe(true);
  expect(isStats({ ...stats, cpus: [{ id: 0 }] })).toBe(false);
  expect(isStats({})).toBe(false);
});
