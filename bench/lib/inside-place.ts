/**
 * Where a bench program that runs inside the embedded host keeps what its contestants read: copies in memory, since files
 * of the machine outside are slow to read from there. Also how QEMU is started from such a copy.
 */
import { copyFileSync, cpSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export interface QemuFiles {
  readonly qemu: string;
  readonly libraries: readonly string[];
}

export class InsidePlace {
  readonly folder = '/run/vivarium-bench';
  readonly #qemu: string;

  /** Copies QEMU with its libraries and firmware. */
  constructor({ qemu, libraries }: QemuFiles) {
    for (const folder of ['lib', 'firmware']) mkdirSync(path.join(this.folder, folder), { recursive: true });
    this.#qemu = this.copied(qemu);
    for (const library of libraries) this.copied(library.replace(/^\/lib\//, '/usr/lib/'), 'lib');
    for (const folder of ['/usr/share/qemu', '/usr/share/seabios']) {
      for (const file of readdirSync(folder)) {
        if (/^(bios|qboot|linuxboot|multiboot|pvh|kvmvapic|vgabios)[\w.-]*\.(bin|rom)$/.test(file)) {
          this.copied(path.join(folder, file), 'firmware');
        }
      }
    }
  }

  /** Copies a file; its path here. */
  copied(file: string, folder = ''): string {
    const target = path.join(this.folder, folder, path.basename(file));
    copyFileSync(file, target);
    return target;
  }

  /** Copies this build, which a newer one may replace while the program runs; the path of its command. */
  command(): string {
    const build = path.dirname(path.dirname(fileURLToPath(import.meta.resolve('vivarium'))));
    cpSync(build, path.join(this.folder, 'vivarium'), { recursive: true });
    return path.join(this.folder, 'vivarium/dist/command/main.js');
  }

  /** Copies a program and its libraries; how it is started here. */
  program(file: string, libraries: readonly string[]) {
    const folder = `${path.basename(file)}-libraries`;
    mkdirSync(path.join(this.folder, folder), { recursive: true });
    for (const library of libraries) this.copied(library, folder);
    return { program: this.copied(file), env: { LD_LIBRARY_PATH: path.join(this.folder, folder) } };
  }

  /** `vivarium run`, with what is kept in its cache here too. */
  vivarium(command: string, args: readonly string[]) {
    const env = { ...process.env, XDG_CACHE_HOME: path.join(this.folder, 'cache') };
    return { program: process.execPath, args: [command, 'run', '--quiet', '--kvm', 'native', ...args], env };
  }

  /** QEMU with this machine's KVM, its console on standard output, and nothing that it was not asked for. */
  qemu(machine: string, args: readonly string[]) {
    const all = ['-M', machine, '-accel', 'kvm', '-cpu', 'host', '-smp', '1', '-L', path.join(this.folder, 'firmware')];
    all.push('-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio', ...args);
    return { program: this.#qemu, args: all, env: { LD_LIBRARY_PATH: path.join(this.folder, 'lib') } };
  }
}
