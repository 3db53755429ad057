import { pino } from 'pino';
import { expect, it } from 'vitest';
import { pinoLogger } from './pino-logger.js';

it("writes records as pino's lines, with levels, fields and errors", () => {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line) as Record<string, unknown>);
  const log = pinoLogger(pino({ level: 'debug', base: { machine: 'box' }, timestamp: false }, { write }));
  log.log('debug', 'begins');
  log.log('info', 'pit: ticks are fired with precedence', { workers: 2 });
  log.log('warn', 'disk root: no space', { dropped: 3, error: new Error('full') });
  log.log('error', 'disk root: broken', { error: { code: 'io' } });
  expect(lines).toEqual([
    { level: 20, machine: 'box', msg: 'begins' },
    { level: 30, machine: 'box', msg: 'pit: ticks are fired with precedence', workers: 2 },
    {
      level: 40,
      machine: 'box',
      msg: 'disk root: no space',
      dropped: 3,
      err: expect.objectContaining({ type: 'Error', message: 'full' }),
    },
    { level: 50, machine: 'box', msg: 'disk root: broken', err: { code: 'io' } },
  ]);
});

it('leaves out what the instance does not want', () => {
  const lines: string[] = [];
  const log = pinoLogger(pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) }));
  log.log('info', 'begins');
  expect(lines).toEqual([]);
});
