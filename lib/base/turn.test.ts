import { describe, expect, it } from 'vitest';
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
});
