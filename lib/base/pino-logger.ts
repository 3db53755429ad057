/**
 * vivarium's log into a pino instance of the program's own: levels go to those of the same name, fields become the record's. pino
 * itself is not loaded here.
 */
import type { Logger, LogLevel } from './logger.js';

/** What is used of a pino instance. */
export type PinoInstance = Readonly<Record<LogLevel, (fields: object, message: string) => void>>;

/**
 * A logger for `Machine.create({ logger })` and `Machine.restore()`. A field `error` goes under `err`, where pino looks for one.
 *
 * @example
 * const vm = await Machine.create({ boot, logger: pinoLogger(pino().child({ machine: 'box' })) });
 */
export function pinoLogger(pino: PinoInstance): Logger {
  return {
    log(level, message, fields = {}) {
      const { error, ...more } = fields;
      pino[level](error === undefined ? more : { ...more, err: error }, message);
    },
  };
}
