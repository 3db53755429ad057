import { expect, it } from 'vitest';
import { StateHolder } from './state-holder.js';

it('tells of changes, to each listener on its own, until it is taken away', () => {
  const logged: string[] = [];
  const holder = new StateHolder({ log: (_level, message) => void logged.push(message) });
  const told: string[] = [];
  const listener = (state: string): void => void told.push(state);
  const leave = holder.on(listener);
  holder.on(() => {
    throw new Error('a bug of the listener');
  });
  const leaveTwin = holder.on(listener);
  holder.state = 'running';
  holder.state = 'running';
  leave();
  leave();
  holder.state = 'paused';
  leaveTwin();
  holder.state = 'stopped';
  expect(told).toEqual(['running', 'running', 'paused']);
  expect(logged).toEqual(Array(3).fill("a listener of the machine's state threw"));
  expect(holder.state).toBe('stopped');
  expect(() => holder.on('x' as never)).toThrow(TypeError);
});
