/** From what was asked of a named machine to the command that does it. */
import path from 'node:path';
import type { CommandIo } from '../base/command-io.js';
import { consoleCommand, logsCommand } from './attach-command.js';
import {
  changeCommand,
  inspectCommand,
  metricsCommand,
  parseBackend,
  psCommand,
  rebindCommand,
  snapshotCommand,
  statsCommand,
  waitCommand,
  waitForPortCommand,
  type AskContext,
} from './control-commands.js';
import { copyCommand, parseCopy } from './copy-command.js';
import type { ControlWorld } from './control-world.js';
import { listCommand, readCommand, writeCommand } from './file-commands.js';
import { eventsCommand } from './events-command.js';
import { execCommand, parseEnv } from './exec-command.js';
import type { ControlRequest } from './program-control.js';
import { UsageError } from './usage-error.js';

export function controlCommand(request: ControlRequest, io: CommandIo, world: ControlWorld): Promise<number> {
  const context: AskContext = { io, world, json: request.json };
  const inCwd = (name: string): string => path.resolve(io.cwd, name);
  switch (request.what) {
    case 'ps':
      return psCommand(request.all, context);
    case 'inspect':
      return inspectCommand(request.name, context);
    case 'stats':
      return statsCommand(request.name, context);
    case 'metrics':
      return metricsCommand(request.name, context);
    case 'pause': {
      const { name, clock } = request;
      return changeCommand(name, context, (vm, signal) => vm.pause({ ...(clock && { clock }), signal }));
    }
    case 'resume':
      return changeCommand(request.name, context, (vm, signal) => vm.resume({ signal }));
    case 'stop': {
      const { name, timeoutMs } = request;
      const limit = timeoutMs === undefined ? {} : { timeoutMs };
      return changeCommand(name, context, (vm, signal) => vm.stop({ ...limit, signal }));
    }
    case 'kill':
      return changeCommand(request.name, context, (vm, signal) => vm.kill({ signal }));
    case 'wait':
      return request.port === undefined
        ? waitCommand(request.name, request.timeoutMs, context)
        : waitForPortCommand(request.name, request.port, request.timeoutMs, context);
    case 'logs':
      return logsCommand(request.name, request, context);
    case 'events':
      return eventsCommand(request.name, context);
    case 'console':
      return consoleCommand(request.name, context);
    case 'exec': {
      const refuse = (what: string): never => {
        throw new UsageError(what);
      };
      return execCommand(request.name, { ...request, env: parseEnv(request.env, io.env, refuse) }, context);
    }
    case 'cp':
      return copyCommand(parseCopy(request.from, request.to), request, context);
    case 'read':
      return readCommand(request.place, request.waitMs, context);
    case 'write':
      return writeCommand(request.place, request, context);
    case 'list':
      return listCommand(request.place, request.waitMs, context);
    case 'snapshot': {
      const { name, dir, parent } = request;
      const inPlace = { ...request, parent: parent === undefined ? undefined : inCwd(parent) };
      return snapshotCommand(name, inCwd(dir), inPlace, context);
    }
    case 'rebind': {
      const backend = parseBackend(request.backend);
      const inPlace = 'path' in backend ? { ...backend, path: inCwd(backend.path) } : backend;
      return rebindCommand(request.name, request.device, inPlace, context);
    }
  }
}
