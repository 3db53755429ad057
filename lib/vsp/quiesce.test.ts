import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { quiesce, type PrepareOptions, type Quiescable } from './quiesce.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A device that does as the test says. */
class FakeDevice implements Quiescable {
  readonly title: string;
  isReady = false;
  resumes = 0;
  options: PrepareOptions | undefined;
  finish!: () => void;
  refuse!: (reason: Error) => void;
  readonly #log: string[];

  constructor(title: string, log: string[] = []) {
    this.title = title;
    this.#log = log;
  }

  prepare(options?: PrepareOptions): Promise<void> {
    this.options = options;
    this.#log.push(`prepare ${this.title}`);
    return new Promise((resolve, reject) => {
      this.finish = () => {
        this.isReady = true;
        resolve();
      };
      this.refuse = (reason) => reject(reason);
    });
  }

  resume(): void {
    if (!this.isReady) return;
    this.isReady = false;
    this.resumes++;
    this.#log.push(`resume ${this.title}`);
  }
}

const set = (log?: string[]): FakeDevice[] =>
  ['disk a', 'nic b', 'console c'].map((title) => new FakeDevice(title, log));

describe('quiesce', () => {
  it('prepares all at once with one deadline, and resumes them the other way round, once', async () => {
    const clock = new ManualClock({ startNs: 1000n });
    const log: string[] = [];
    const devices = set(log);
    const all = quiesce(devices, { clock, maxNs: 500n });
    await turn();
    expect(devices.map(({ options }) => options?.deadlineNs)).toEqual([1500n, 1500n, 1500n]);
    let isDone = false;
    void all.then(() => (isDone = true));
    for (const device of devices.slice(1)) device.finish();
    await turn();
    expect(isDone).toBe(false);
    devices[0]!.finish();
    const resume = await all;
    resume();
    resume();
    expect(log.slice(3)).toEqual(['resume console c', 'resume nic b', 'resume disk a']);
  });

  it('lets those that were ready go on when one refuses, and names it', async () => {
    const devices = set();
    const [disk, nic, port] = devices;
    const all = quiesce(devices, { clock: new ManualClock() });
    const refused = expect(all).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      message: "nic b can't be saved now: it is being repaired",
      cause: { message: 'it is being repaired' },
    });
    await turn();
    disk!.finish();
    nic!.refuse(new Error('it is being repaired'));
    await refused;
    expect([disk!.resumes, disk!.isReady, nic!.resumes]).toEqual([1, false, 0]);
    // The third was told not to go on with it, and becomes ready all the same.
    expect(port!.options?.signal?.aborted).toBe(true);
    port!.finish();
    await turn();
    expect([port!.resumes, port!.isReady]).toEqual([1, false]);
  });

  it('waits for no device that never answers', async () => {
    const clock = new ManualClock();
    const devices = set();
    const [disk, nic, port] = devices;
    const all = quiesce(devices, { clock, maxNs: 1_000_000_000n });
    const refused = expect(all).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      message: expect.stringMatching(/^disk a can't be saved now: .*not done in/) as string,
    });
    await turn();
    nic!.finish();
    port!.finish();
    clock.advance(1_200_000_000n);
    await refused;
    expect([nic!.resumes, port!.resumes]).toEqual([1, 1]);
    disk!.finish();
    await turn();
    expect(disk!.resumes).toBe(1);
  });

  it('takes a device that throws for one that refuses', async () => {
    const [disk, nic] = set();
    Object.assign(nic!, {
      prepare: () => {
        throw new TypeError('a bug');
      },
    });
    const all = quiesce([disk!, nic!], { clock: new ManualClock() });
    disk!.finish();
    await expect(all).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_REFUSED',
      message: expect.stringMatching(/nic b.*a bug/) as string,
    });
    await turn();
    expect(disk!.isReady).toBe(false);
  });

  it('ends at once with an abort, and nothing is held afterwards', async () => {
    const aborter = new AbortController();
    const devices = set();
    const [disk, nic] = devices;
    const all = quiesce(devices, { clock: new ManualClock(), signal: aborter.signal });
    const aborted = expect(all).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'enough' });
    await turn();
    disk!.finish();
    aborter.abort('enough');
    nic!.finish();
    await aborted;
    await turn();
    expect(devices.map(({ isReady }) => isReady)).toEqual([false, false, false]);
    await expect(quiesce(devices, { clock: new ManualClock(), signal: aborter.signal })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
  });
});
