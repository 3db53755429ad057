/** The console ports of a machine as its user writes them, and the checks on them before anything is opened. */
import { checkInteger, checkOptionNames } from '../base/options.js';
import { QEMU_AGENT_PORT } from '../agent/qemu/port.js';
import { AgentPortBackend, type ConsoleSource } from '../vsp/index.js';
import { DeviceIds } from './device-ids.js';

export interface ConsolePortOptions {
  /** Names it in `vm.device(id)`; unique in the machine: letters, digits, '.', '_' and '-', at most 20. */
  readonly id: string;
  /** What a Linux guest finds it by: /dev/virtio-ports/NAME. Letters, digits, '.', '_', '-', at most 63. Default: the id. */
  readonly name?: string;
  /** A terminal in the guest, /dev/hvc0 and up, instead of a plain stream of bytes. Default false. */
  readonly terminal?: boolean;
  /**
   * What it stands on: `unixSocketConsole(path)`, `fileConsole(path)`, `streamConsole(streams)`, `stdioConsole()`,
   * `callbackConsole(output)`.
   */
  readonly backend: ConsoleSource;
}

/** Ports of one virtio console device. */
const MAX_PORTS = 31;
/** Of the port that `qemuAgent` adds. */
const QEMU_AGENT_ID = 'qemu-agent';

/** What `qemuAgent: true` stands for. */
export function qemuAgentPort(): ConsolePortOptions {
  return { id: QEMU_AGENT_ID, name: QEMU_AGENT_PORT, backend: new AgentPortBackend() };
}

/** A port of a snapshot that nothing outside of the machine's process stood on. */
export function isQemuAgentPort({ id, name }: Pick<ConsolePortOptions, 'id' | 'name'>): boolean {
  return id === QEMU_AGENT_ID && name === QEMU_AGENT_PORT;
}

/** Of checked ports; undefined where none is the agent's. */
export function qemuAgentEnd(ports: readonly ConsolePortOptions[]): AgentPortBackend | undefined {
  return ports.map(({ backend }) => backend).find((backend) => backend instanceof AgentPortBackend);
}

/** @throws TypeError for wrong names and types, RangeError for values out of bounds and for an id or name twice. */
export function checkConsolePorts(ports: unknown, ids = new DeviceIds()): Required<ConsolePortOptions>[] {
  if (!Array.isArray(ports)) throw new TypeError('consolePorts: an array is wanted');
  checkInteger('consolePorts.length', ports.length, 0, MAX_PORTS);
  const names = new Set<string>();
  return (ports as ConsolePortOptions[]).map((port, index) => {
    const option = `consolePorts[${index}]`;
    if (typeof port !== 'object' || port === null) throw new TypeError(`${option}: { id, backend } is wanted`);
    checkOptionNames(option, port, ['id', 'name', 'terminal', 'backend']);
    const id = ids.claim(`${option}.id`, port.id);
    const { name = id, terminal = false, backend } = port;
    if (typeof name !== 'string' || !/^[A-Za-z0-9._-]{1,63}$/.test(name)) {
      throw new TypeError(
        `${option}.name: ${JSON.stringify(name)} is no name of a port; letters, digits, '.', '_' and '-', at most 63`,
      );
    }
    if (names.has(name)) throw new RangeError(`${option}.name: '${name}' is the name of another port too`);
    names.add(name);
    if (typeof terminal !== 'boolean') throw new TypeError(`${option}.terminal: true or false is wanted`);
    if (typeof backend !== 'object' || (backend as ConsoleSource | null)?.class !== 'console') {
      throw new TypeError(`${option}.backend: a console is wanted, such as unixSocketConsole(path)`);
    }
    return { id, name, terminal, backend };
  });
}
