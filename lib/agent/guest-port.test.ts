import { createServer, type Server } from 'node:net';
import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { AgentClient } from './client.js';
import { FakeAgent, FakeChannel, type FakeProcess } from './fake-agent.js';
import { waitForGuestPort, type ListeningPort, type PortWaitOptions } from './guest-port.js';

const HEAD = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';
const ROWS = {
  loopback: '   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n',
  any: '   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1\n',
  any6: '   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000\n',
  link6: '   1: 000080FE00000000FF005450563412FE:1F90 00000000000000000000000000000000:0000 0A 00000000\n',
  /** To that port of another machine, from that port to another, and one that is being closed. */
  others:
    '   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000\n   3: 0100007F:1F90 0100007F:C350 01 00000000:00000000\n' +
    '   4: 00000000:1F91 00000000:0000 0A 00000000\n   5: 0100007F:1F90 0100007F:C350 06 00000000\n',
};

let clock: ManualClock;
let channel: FakeChannel;
let agent: FakeAgent;
let client: AgentClient;
let play: (process: FakeProcess) => void;
let looks: number;

beforeEach(() => {
  clock = new ManualClock();
  channel = new FakeChannel();
  client = new AgentClient(channel, { clock });
  looks = 0;
  agent = new FakeAgent(channel, (process) => {
    looks++;
    play(process);
  });
});

const telling =
  (table: string, code = 0) =>
  (process: FakeProcess): void =>
    queueMicrotask(() => {
      if (table !== '') process.stdout(table);
      process.exit(code);
    });

/** A wait, and how it has ended if it has. */
function waiting(port: number, options?: PortWaitOptions): { result: Promise<ListeningPort> } {
  const result = waitForGuestPort(client, clock, port, options);
  result.catch(() => undefined);
  return { result };
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
};

describe('a port of the guest', () => {
  it('is there when something listens on it, with the addresses', async () => {
    play = telling(HEAD + ROWS.others + ROWS.loopback + ROWS.any + HEAD + ROWS.any6 + ROWS.link6 + ROWS.any6);
    agent.boot();
    expect(await waitForGuestPort(client, clock, 8080)).toEqual({
      port: 8080,
      addresses: ['127.0.0.1', '0.0.0.0', '[::]', '[fe80::5054:ff:fe12:3456]'],
    });
    expect(agent.processes.get(1)!.request.argv).toEqual(['cat', '/proc/net/tcp', '/proc/net/tcp6']);
  });

  it('is looked for until it is there, at first often, and without IPv6 as well', async () => {
    play = telling(HEAD + ROWS.others, 1);
    const { result } = waiting(8080);
    await turns();
    expect(looks).toBe(0);
    agent.boot();
    await expect.poll(() => looks).toBe(1);
    await turns();
    for (const [ms, count] of [
      [49, 1],
      [1, 2],
      [99, 2],
      [1, 3],
      [10_000, 4],
    ] as const) {
      clock.advance(BigInt(ms) * 1_000_000n);
      await turns();
      expect(looks).toBe(count);
    }
    play = telling(HEAD + ROWS.any, 1);
    clock.advance(1_000_000_000n);
    expect(await result).toEqual({ port: 8080, addresses: ['0.0.0.0'] });
  });

  it('is given up in time, with what was lacking', async () => {
    const agentless = waiting(8080, { timeoutMs: 100 });
    clock.advance(100_000_000n);
    await expect(agentless.result).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: 'no agent in the guest after 100 ms',
    });
    play = telling(HEAD + ROWS.others);
    agent.boot();
    const portless = waiting(8080, { timeoutMs: 100 });
    await expect.poll(() => looks).toBe(1);
    await turns();
    clock.advance(100_000_000n);
    await expect(portless.result).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: 'nothing listens on TCP port 8080 of the guest after 100 ms',
    });
  });

  it('is not waited for when the call is given up, in a look or between two', async () => {
    agent.boot();
    play = () => undefined;
    const [inLook, between] = [new AbortController(), new AbortController()];
    const first = waiting(8080, { signal: inLook.signal });
    await expect.poll(() => looks).toBe(1);
    inLook.abort();
    await expect(first.result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(agent.processes.get(1)!.signals).toEqual([9]);
    play = telling(HEAD);
    const second = waiting(8080, { signal: between.signal });
    await expect.poll(() => looks).toBe(2);
    await turns();
    between.abort();
    await expect(second.result).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    clock.advance(10_000_000_000n);
    await turns();
    expect(looks).toBe(2);
  });

  it('outlives an agent that starts over, and ends with the guest', async () => {
    play = () => undefined;
    agent.boot();
    const { result } = waiting(8080);
    await expect.poll(() => looks).toBe(1);
    channel.open();
    await turns();
    clock.advance(50_000_000n);
    await turns();
    expect(looks).toBe(1);
    agent.boot();
    await expect.poll(() => looks).toBe(2);
    client.close();
    await turns();
    clock.advance(100_000_000n);
    await expect(result).rejects.toMatchObject({ code: 'ERR_AGENT' });
  });

  it('is no matter for a guest without the tables, or without cat', async () => {
    agent.boot();
    play = telling('', 1);
    await expect(waiting(80).result).rejects.toMatchObject({ code: 'ERR_GUEST_FILE', errno: 'ENOENT' });
    play = (process) => process.fail(2);
    await expect(waiting(80).result).rejects.toMatchObject({ code: 'ERR_GUEST_FILE', errno: 'ENOSYS' });
  });

  it('is found in a table in pieces, and not in noise without end', async () => {
    agent.boot();
    play = (process) => {
      for (const letter of `${HEAD}${'x'.repeat(5000)}\n${ROWS.any}`) process.stdout(letter);
      process.exit(0);
    };
    expect((await waiting(8080).result).addresses).toEqual(['0.0.0.0']);
    const rows = Array.from({ length: 1000 }, (_, at) =>
      ROWS.any.replace('00000000', at.toString(16).toUpperCase().padStart(8, '0')),
    );
    play = telling(HEAD + rows.join(''));
    expect((await waiting(8080).result).addresses).toHaveLength(64);
  });

  it.each([0, 65_536, 1.5, NaN])('is none of %d', async (port) => {
    await expect(waitForGuestPort(client, clock, port)).rejects.toThrow(RangeError);
  });
});

describe("this Linux's own tables", () => {
  let server: Server;
  beforeEach(async () => {
    server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  afterEach(() => new Promise((resolve) => server.close(resolve)));

  it('show a port that is listened on, and none that is not', async () => {
    const { port } = server.address() as { port: number };
    play = telling(execFileSync('cat', ['/proc/net/tcp'], { encoding: 'latin1' }));
    agent.boot();
    expect(await waitForGuestPort(client, clock, port)).toEqual({ port, addresses: ['127.0.0.1'] });
    await new Promise((resolve) => server.close(resolve));
    play = telling(execFileSync('cat', ['/proc/net/tcp'], { encoding: 'latin1' }));
    const { result } = waiting(port, { timeoutMs: 10 });
    await expect.poll(() => looks).toBe(2);
    await turns();
    clock.advance(10_000_000n);
    await expect(result).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  });
});
