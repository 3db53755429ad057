/**
 * Networks and consoles of whole machines over a restore: a driver in a flat guest goes on with the queues that it has, over the same
 * switch or whatever it is given instead.
 */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { EtherType } from '../../lib/abi/inet.js';
import { hostClock } from '../../lib/base/clock.js';
import { silentLogger } from '../../lib/base/logger.js';
import type { Machine } from '../../lib/machine/index.js';
import { callbackConsole, networkSwitch } from '../../lib/vsp/index.js';
import type { NetFrame } from '../../lib/vsp/net/contract.js';
import { readU64, startGuest, until } from '../lib/machine.js';
import {
  BACK,
  echoesOf,
  FRAME,
  isDriven,
  nicGuest,
  ownRuntimeFolder,
  RX,
  TestNetwork,
  typeOf,
} from '../lib/nic-guest.js';
import { MEMORIES, MODES, restore, snapshotFolder } from '../lib/snapshots.js';

ownRuntimeFolder();

let folder: string;
beforeEach(() => void (folder = snapshotFolder()));
const ways = MODES.map((mode, at) => [mode, MEMORIES[at % MEMORIES.length]!] as const);
const inFolder = (name: string): string => path.join(folder, name);

/** As test/guests/virtio-console.S sends it back. */
const changed = (text: string): string => Buffer.from(Buffer.from(text).map((byte) => byte ^ 1)).toString('latin1');

describe.each(ways)('saved %s, restored %s,', (mode, memory) => {
  it('a nic goes on over the switch of its name, under its address', async () => {
    const echo = await startGuest('virtio-net', nicGuest(networkSwitch('lan')));
    await until(() => isDriven(echo));
    await echo.snapshot(inFolder('snap'), { mode, maxPauseMs: 20_000 });
    await echo.close();

    const clone = await restore(inFolder('snap'), { memory });
    const peer = await networkSwitch('lan').open({
      id: 'peer',
      mac: 0x0200_0000_0002,
      logger: silentLogger,
      clock: hostClock,
    });
    onTestFinished(() => peer.close());
    const echoes: Uint8Array[] = [];
    const receive = (frames: readonly NetFrame[]): void => {
      echoes.push(...frames.map(({ bytes }) => bytes.slice()).filter((bytes) => typeOf(bytes) === 0x88b5));
    };
    peer.start({ receive, writable: () => undefined, link: () => undefined });
    for (const round of [1, 2]) {
      peer.send([{ bytes: FRAME }]);
      await until(() => echoes.length === round);
    }
    expect(echoes).toEqual([BACK, BACK]);
    expect(clone.device('net0').contract).toMatchObject({
      backend: { kind: 'switch', name: 'lan' },
      functions: { receive: { calls: 2 } },
    });
  });

  it('a nic goes on over another network, beside the machine that it was saved from', async () => {
    const [one, two] = [new TestNetwork(), new TestNetwork()];
    const machine = await startGuest('virtio-net', nicGuest(one));
    await until(() => isDriven(machine));
    one.last.host.receive([{ bytes: FRAME }]);
    await until(() => echoesOf(one).length === 1);
    await machine.snapshot(inFolder('snap'), { mode, maxPauseMs: 20_000 });

    const clone = await restore(inFolder('snap'), { memory, start: false, overrides: { nics: { net0: two } } });
    // What comes before it runs waits for it.
    two.last.host.receive([{ bytes: FRAME }]);
    expect(echoesOf(two)).toEqual([]);
    await clone.resume();
    await until(() => echoesOf(two).length === 1);
    // The network learns where the guest is by now.
    expect(two.last.sent.some(({ bytes }) => typeOf(bytes) === EtherType.RARP)).toBe(true);
    for (const network of [one, two]) network.last.host.receive([{ bytes: FRAME }]);
    await until(() => echoesOf(one).length === 2 && echoesOf(two).length === 2);
    for (const network of [one, two]) expect(echoesOf(network)).toEqual([BACK, BACK]);
    const functions = (vm: Machine): string[] => Object.keys(vm.device('net0').contract.functions).sort();
    expect(functions(clone)).toEqual(functions(machine));
    await clone.close();
    expect([one.last.closed, two.last.closed]).toEqual([false, true]);
  });

  it('a console port goes on over another backend, with the bytes that waited for the guest', async () => {
    const text = { machine: '', clone: '' };
    const port = (who: 'machine' | 'clone') =>
      callbackConsole((bytes) => {
        text[who] += Buffer.from(bytes).toString('latin1');
        return undefined;
      });
    const backend = port('machine');
    const machine = await startGuest('virtio-console', {
      mode: 'long64',
      defines: { BUFFER: RX, BUFFER_BYTES: 16, TAKEN: 0x70000 },
      consolePorts: [{ id: 'port', backend, terminal: true }],
    });
    await until(() => isDriven(machine));
    await backend.input(Buffer.from('before'));
    await until(() => text.machine === changed('before'));
    await machine.pause();
    const waiting = Array.from({ length: 100 }, (_, at) => String.fromCharCode(0x41 + (at % 26))).join('');
    const echoed = changed(waiting);
    // More than it takes at once: its promise is kept when the guest has read.
    const taken = backend.input(Buffer.from(waiting));
    await machine.snapshot(inFolder('snap'), { mode, maxPauseMs: 20_000 });

    const refused = restore(inFolder('snap'), { memory });
    await expect(refused).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT',
      cure: expect.stringContaining("'port'") as string,
    });
    const other = port('clone');
    const clone = await restore(inFolder('snap'), { memory, overrides: { console: { port: other } } });
    await until(() => text.clone.length >= echoed.length);
    expect(text.clone).toBe(echoed);
    await other.input(Buffer.from('after'));
    await until(() => text.clone.length >= echoed.length + 5);
    expect([text.clone, text.machine]).toEqual([echoed + changed('after'), changed('before')]);
    expect(readU64(clone, 0x70000)).toBe(BigInt('before'.length + waiting.length + 'after'.length));
    await machine.resume();
    await taken;
    await until(() => text.machine.length >= 6 + echoed.length);
    expect(text.machine).toBe(changed('before') + echoed);
  });

  it('the serial console goes on, with what was typed and not read yet', async () => {
    const machine = await startGuest('uart-echo');
    await machine.console.waitFor(/ready\n/);
    await machine.pause();
    machine.console.write('typed');
    await machine.snapshot(inFolder('snap'), { mode, maxPauseMs: 20_000 });
    const clone = await restore(inFolder('snap'), { memory });
    for (const vm of [clone, machine]) {
      if (vm.state === 'paused') await vm.resume();
      await vm.console.waitFor(/typed/);
      vm.console.write(Uint8Array.of(...Buffer.from('more'), 4));
      await vm.console.waitFor(/typedmore/);
      expect(await vm.wait()).toEqual({ reason: 'debug-exit', code: 9 });
    }
  });
});

describe('a nic', () => {
  it('whose network the snapshot can not name, or that is too narrow, is refused by its name, and nothing stays', async () => {
    const machine = await startGuest('virtio-net', nicGuest(new TestNetwork()));
    await until(() => isDriven(machine));
    await machine.snapshot(inFolder('snap'), { mode: 'paused' });
    await machine.close();
    for (const memory of MEMORIES) {
      await expect(restore(inFolder('snap'), { memory })).rejects.toMatchObject({
        code: 'ERR_SNAPSHOT',
        message: expect.stringMatching(/nic 'net0' stood on 'fake'/) as string,
        cure: "overrides: { nics: { 'net0': ... } }",
      });
      const narrow = new TestNetwork(1000);
      const refused = restore(inFolder('snap'), { memory, overrides: { nics: { net0: narrow } } });
      await expect(refused).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_/) as string,
        message: expect.stringMatching(/net0.*1000/) as string,
      });
      expect(narrow.last.closed).toBe(true);
    }
    expect(readdirSync(folder)).toEqual(['snap']);
    const network = new TestNetwork();
    await restore(inFolder('snap'), { overrides: { nics: { net0: network } } });
    network.last.host.receive([{ bytes: FRAME }]);
    await until(() => echoesOf(network).length === 1);
  });
});
