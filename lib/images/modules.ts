/**
 * Kernel modules of an unpacked kernel package: where one lies, what it needs first, and its bytes.
 * Reads modules.dep and modules.builtin (modules.dep(5)); loads nothing.
 */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { VmmError } from '../base/errors.js';
import { busybox } from './busybox.js';

/** A kernel's modules: names (with _ for -) to their path below the modules folder and what they depend on. */
export class ModuleIndex {
  readonly #modules = new Map<string, { path: string; needs: readonly string[] }>();
  readonly #builtin = new Set<string>();

  /** @param dep the text of modules.dep; @param builtin that of modules.builtin. */
  constructor(dep: string, builtin: string) {
    for (const line of dep.split('\n')) {
      const colon = line.indexOf(':');
      if (colon < 0) continue;
      const path = line.slice(0, colon).trim();
      const needs = line
        .slice(colon + 1)
        .split(/\s+/)
        .filter((word) => word !== '')
        .map(moduleName);
      this.#modules.set(moduleName(path), { path, needs });
    }
    for (const line of builtin.split('\n')) {
      if (line.trim() !== '') this.#builtin.add(moduleName(line.trim()));
    }
  }

  static async read(modulesFolder: string): Promise<ModuleIndex> {
    const text = (file: string): Promise<string> => readFile(join(modulesFolder, file), 'utf8');
    return new ModuleIndex(await text('modules.dep'), await text('modules.builtin').catch(() => ''));
  }

  /** Whether the kernel has it, as a module or built in. */
  has(name: string): boolean {
    return this.#modules.has(normalized(name)) || this.#builtin.has(normalized(name));
  }

  /**
   * The modules to load, in an order in which each comes after what it needs; what is built in is left out, and so is
   * what the kernel does not have at all.
   */
  loadOrder(names: readonly string[]): { name: string; path: string }[] {
    const order: { name: string; path: string }[] = [];
    const seen = new Set<string>();
    const visit = (name: string): void => {
      if (seen.has(name)) return;
      seen.add(name);
      const module = this.#modules.get(name);
      if (module === undefined) return;
      for (const need of module.needs) visit(need);
      order.push({ name, path: module.path });
    };
    // Busybox's depmod lists all that is needed, in no order: what needs least is loaded first within each list.
    const byNeeds = (list: readonly string[]): string[] =>
      [...list].sort((a, b) => (this.#modules.get(a)?.needs.length ?? 0) - (this.#modules.get(b)?.needs.length ?? 0));
    for (const module of this.#modules.values()) module.needs = byNeeds(module.needs);
    for (const name of names) visit(normalized(name));
    return order;
  }
}

/** Busybox's applets that unpack a module to stdout, by the file's ending. */
const UNPACKERS: Readonly<Record<string, string>> = { xz: 'xzcat', gz: 'zcat' };

/**
 * The bytes of a module as init_module(2) wants them: a .ko as it is, a compressed one unpacked by busybox (the cache's by default).
 *
 * @throws VmmError ERR_SETUP for a compression that busybox does not know, or a damaged file.
 */
export async function readModule(path: string, busyboxPath?: string): Promise<Uint8Array> {
  const ending = /\.ko(?:\.(\w+))?$/.exec(path)?.[1];
  if (ending === undefined) return readFile(path);
  const applet = UNPACKERS[ending];
  if (applet === undefined) throw new VmmError('ERR_SETUP', `${path}: unknown compression of a kernel module`);
  const child = spawn(busyboxPath ?? (await busybox()).path, [applet, path], { stdio: ['ignore', 'pipe', 'pipe'] });
  const chunks: Buffer[] = [];
  let words = '';
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (words += text));
  const code = await new Promise<number | null>((resolve) => {
    child.once('error', (error) => {
      words += error.message;
      resolve(null);
    });
    child.once('close', resolve);
  });
  if (code !== 0) throw new VmmError('ERR_SETUP', `${path} can't be unpacked: ${words.trim()}`);
  return Buffer.concat(chunks);
}

function moduleName(path: string): string {
  return normalized((path.split('/').pop() ?? path).replace(/\.ko(\.\w+)?$/, ''));
}

/** The kernel takes - and _ in module names as the same. */
function normalized(name: string): string {
  return name.replaceAll('-', '_');
}
