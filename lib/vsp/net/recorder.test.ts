import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ManualClock } from '../../base/clock.js';
import { silentLogger } from '../../base/logger.js';
import { recordedNetwork } from './recorder.js';
import { FakeNetwork } from './testing.js';

/** How many descriptors this process has of a file. */
const descriptorsOf = (file: string) =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === file;
    } catch {
      return false; // the one of the folder itself has gone
    }
  }).length;

describe('recordedNetwork', () => {
  it('closes its file and can be opened again although what is around it does not close', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'vivarium-recorder-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const file = path.join(folder, 'net.pcap');
    const networks = [new FakeNetwork(), new FakeNetwork()];
    networks[0]!.close = () => Promise.reject(new Error('does not end'));
    const source = recordedNetwork(
      { class: 'network', describe: () => ({ kind: 'fake' }), open: () => Promise.resolve(networks.shift()!) },
      file,
    );
    const context = { id: 'net0', mac: 1, logger: silentLogger, clock: new ManualClock() };
    const first = await source.open(context);
    expect(descriptorsOf(file)).toBe(1);
    await expect(first.close()).rejects.toThrow('does not end');
    expect(descriptorsOf(file)).toBe(0);
    const second = await source.open(context);
    await second.close();
    expect(descriptorsOf(file)).toBe(0);
  });
});
