import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { PanicWatch } from './panic-watch.js';

const bytes = (text: string) => new TextEncoder().encode(text);

function watch() {
  const clock = new ManualClock();
  let settled = 0;
  const panic = new PanicWatch({ clock, onSettled: () => settled++ });
  return { clock, panic, settled: () => settled };
}

describe('PanicWatch', () => {
  it('sees the kernel line, also in pieces and with a caller id', () => {
    const { panic } = watch();
    panic.look(bytes('[    1.000000] Run /init\r\n[    1.2345'));
    panic.look(bytes('67] Kernel panic - not syncing: Attempted to kill init!\r\n'));
    expect(panic.message).toBe('Kernel panic - not syncing: Attempted to kill init!');
    const second = watch().panic;
    second.look(bytes('[    2.000001][    T1] Kernel panic - not syncing: x\n'));
    expect(second.message).toBe('Kernel panic - not syncing: x');
  });

  it('does not take what users print for a panic', () => {
    const { panic } = watch();
    panic.look(bytes('# echo Kernel panic - not syncing\nKernel panic - not syncing\n'));
    expect(panic.message).toBeUndefined();
  });

  it('settles after the grace, once, and forgets at a reset', () => {
    const { clock, panic, settled } = watch();
    panic.panicked('pvpanic');
    panic.panicked('again');
    clock.advance(2_999_000_000n);
    expect(settled()).toBe(0);
    clock.advance(2_000_000n);
    expect(settled()).toBe(1);
    panic.reset();
    expect(panic.message).toBeUndefined();
    panic.panicked('pvpanic');
    panic.reset();
    clock.advance(10_000_000_000n);
    expect(settled()).toBe(1);
  });
});
