import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { VmmError } from '../base/errors.js';
import { saveFor } from './save.js';
import { MachineControl } from './serve.js';
import { FakeControlled } from './testing.js';

describe('a snapshot of a fenced machine', () => {
  const record = { name: 'box', id: 'abc', pid: 1, host: 'native', since: '2026-01-01T00:00:00Z' } as const;
  const networks = { tap: false, switch: false, passt: false };
  const fence = { write: ['/saved'], networks, landlock: 6, sealed: true };

  it('names the folder of a disk that is not lent: a disk is cut into an image beside it', async () => {
    const machine = new FakeControlled();
    machine.onSnapshot = () => {
      const cause = Object.assign(new Error('EACCES: open'), { code: 'EACCES', path: '/home/me/disk.1.qcow2' });
      return Promise.reject(new VmmError('ERR_SNAPSHOT_REFUSED', 'disk0 refuses', { cause }));
    };
    const control = new MachineControl(machine, { record, clock: new ManualClock(), fence });
    const told: unknown[] = [];
    control.target.events.on((event) => told.push(event));
    const saved = saveFor(control.target, { dir: '/saved/one' }, new AbortController().signal);
    await expect(saved).rejects.toMatchObject({
      code: 'ERR_FENCED',
      cure: expect.stringMatching(/\/home\/me/) as string,
    });
    expect(told.at(-1)).toMatchObject({ type: 'snapshot', what: 'failed', code: 'ERR_FENCED' });
    expect(control.target.saves.size).toBe(0);
    machine.end({ reason: 'killed' });
    await control.close({ reason: 'killed' });
  });
});
