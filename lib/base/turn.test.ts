import { describe, expect, it, onTestFinished } from 'vitest';
import { atEndOfTurn } from './turn.js';

describe('atEndOfTurn', () => {
  it('runs what it was given after the code that asked, in order, and before other work of the event loop', async () => {
    const order: string[] = [];
    const later = new Promise<void>((resolve) => {
      setImmediate(() => {
        order.push('immediate');
        resolve();
      });
    });
    atEndOfTurn(() => {
      order.push('first');
      atEndOfTurn(() => order.push('from the first'));
    });
    queueMicrotask(() => order.push('second'));
    order.push('the code that asked');
    await later;
    expect(order).toEqual(['the code that asked', 'first', 'second', 'from the first', 'immediate']);
  });

  it('makes what a callback throws an uncaught exception, and runs the others', async () => {
    const others = process.listeners('uncaughtException');
    for (const listener of others) process.off('uncaughtException', listener);
    onTestFinished(() => others.forEach((listener) => process.on('uncaughtException', listener)));
    const thrown = new Promise((resolve) => process.once('uncaughtException', resolve));
    let ran = false;
    atEndOfTurn(() => {
      throw new Error('a bug');
    });
    atEndOfTurn(() => (ran = true));
    expect(await thrown).toMatchObject({ message: 'a bug' });
    expect(ran).toBe(true);
  });
});
