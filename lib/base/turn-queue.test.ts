import { describe, expect, it } from 'vitest';
import { TurnQueue, untilAborted } from './turn-queue.js';

describe('TurnQueue', () => {
  it('runs one after another, whatever becomes of them', async () => {
    const queue = new TurnQueue();
    const seen: string[] = [];
    let release!: () => void;
    const first = queue.run(async () => {
      await new Promise<void>((resolve) => (release = resolve));
      seen.push('first');
      throw new Error('broken');
    });
    const second = queue.run(() => seen.push('second'));
    await Promise.resolve();
    release();
    await expect(first).rejects.toThrow('broken');
    await second;
    expect(seen).toEqual(['first', 'second']);
  });

  it('lets go of a call that waits, and never runs it', async () => {
    const queue = new TurnQueue();
    let release!: () => void;
    const first = queue.run(() => new Promise<void>((resolve) => (release = resolve)));
    const controller = new AbortController();
    let ran = false;
    const second = queue.run(() => (ran = true), controller.signal);
    controller.abort('enough');
    await expect(second).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'enough' });
    release();
    await first;
    await queue.run(() => undefined);
    expect(ran).toBe(false);
  });

  it('leaves an action that has begun to itself', async () => {
    const queue = new TurnQueue();
    const controller = new AbortController();
    const running = queue.run(() => {
      controller.abort();
      return 7;
    }, controller.signal);
    expect(await running).toBe(7);
  });

  it('refuses a signal that has fired already', async () => {
    await expect(new TurnQueue().run(() => 1, AbortSignal.abort())).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});

describe('untilAborted', () => {
  it('gives the result, the failure, or the abort, whichever is first', async () => {
    const { signal } = new AbortController();
    expect(await untilAborted(Promise.resolve(1), undefined)).toBe(1);
    expect(await untilAborted(Promise.resolve(2), signal)).toBe(2);
    await expect(untilAborted(Promise.reject(new Error('no')), signal)).rejects.toThrow('no');
    const never = new Promise(() => undefined);
    await expect(untilAborted(never, AbortSignal.abort())).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});
