/** The provider of a console device: its ports, with names that a guest can find, each on a backend of its own. */
import { hostClock, type Clock } from '../../base/clock.js';
import { VmmError } from '../../base/errors.js';
import type { Logger } from '../../base/logger.js';
import type { Savable, SavedPart } from '../../base/saved-state.js';
import { consoleProviderState } from '../state.js';
import type { ConsoleBackend } from './contract.js';
import { ConsolePort } from './port.js';

export interface ConsolePortOptions {
  /** As in /dev/virtio-ports/NAME. Empty: a console without a name. */
  readonly name: string;
  /** A terminal (hvc) in the guest. Default: it has no name. */
  readonly isConsole?: boolean;
  readonly backend: ConsoleBackend;
}

export interface ConsoleProviderOptions {
  readonly id: string;
  readonly ports: readonly ConsolePortOptions[];
  readonly logger: Logger;
  /** Default: the host's. */
  readonly clock?: Clock;
}

const NAME = /^[A-Za-z0-9._-]{0,63}$/;

export class ConsoleProvider implements Savable {
  readonly id: string;
  readonly ports: readonly ConsolePort[];

  /** @throws TypeError for no ports, a name with other characters, or a name twice. */
  constructor(options: ConsoleProviderOptions) {
    const { id, ports, logger, clock = hostClock } = options;
    if (ports.length === 0) throw new TypeError(`console ${id}: at least one port is wanted`);
    const names = new Set<string>();
    for (const { name } of ports) {
      if (!NAME.test(name))
        throw new TypeError(`console ${id}: '${name}' is no name of a port: letters, digits, . _ -`);
      if (name !== '' && names.has(name)) throw new TypeError(`console ${id}: two ports are named '${name}'`);
      names.add(name);
    }
    this.id = id;
    this.ports = ports.map(
      ({ name, isConsole = name === '', backend }) => new ConsolePort(name, isConsole, backend, { clock, logger }),
    );
  }

  saveState(): SavedPart {
    return consoleProviderState.save({ ports: this.ports.map((port) => port.state()) });
  }

  /** @throws VmmError ERR_SNAPSHOT for other ports; ERR_SNAPSHOT_VERSION. */
  restoreState(part: SavedPart): void {
    const { ports } = consoleProviderState.load(part);
    const names = (list: readonly { readonly name: string; readonly isConsole: boolean }[]): string =>
      list.map(({ name, isConsole }) => `'${name}'${isConsole ? ' (a console)' : ''}`).join(', ');
    if (names(ports) !== names(this.ports)) {
      throw new VmmError(
        'ERR_SNAPSHOT',
        `the console's ports are ${names(this.ports)}; in the snapshot ${names(ports)}`,
      );
    }
    ports.forEach((saved, index) => this.ports[index]!.restore(saved));
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.ports.map((port) => port.close()));
  }
}
