/**
 * Runs a document's block of TypeScript as a program of its own, on the built package, in a folder where the files that documents name lie:
 * kernel, initramfs, images. The kernel is not Linux but a few instructions of the test's, which print a prompt and go on for ever, so
 * that any KVM runs it: what a block does to its machine is done, and no guest answers.
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import ts from 'typescript';
import { onTestFinished } from 'vitest';
import { buildElf, pvhNote } from '../../lib/boot/testing.js';
import { createQcow2Overlay } from '../../lib/vsp/index.js';
import { type RunOptions, Vivarium } from './command.js';
import { ROOT } from './document-blocks.js';

const DISK_BYTES = 1024 * 1024;
const KERNEL_GPA = 0x10_0000;
/** Of an ELF program header. */
const NOTE = 4;

export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder with what documents take for granted, and how programs run there. It is gone when the test ends. */
export class Workplace {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'vivarium-docs-'));
  readonly env: NodeJS.ProcessEnv;
  readonly #limitS: number;

  /** `limitS` is what each program may take. Names of machines are its own, unless it is to find the embedded host that is there. */
  constructor({ limitS = 50, ownNames = true }: { readonly limitS?: number; readonly ownNames?: boolean } = {}) {
    this.#limitS = limitS;
    onTestFinished(() => rmSync(this.folder, { recursive: true, force: true }));
    for (const name of ['node_modules', 'bin', 'run', 'snapshots']) mkdirSync(this.path(name), { mode: 0o700 });
    symlinkSync(ROOT, this.path('node_modules/vivarium'));
    const main = path.join(ROOT, 'dist/command/main.js');
    writeFileSync(this.path('bin/vivarium'), `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`, { mode: 0o755 });
    this.#lendCurl();
    this.env = {
      ...process.env,
      PATH: `${this.path('bin')}:${process.env['PATH'] ?? ''}`,
      ...(ownNames ? { XDG_RUNTIME_DIR: this.path('run') } : {}),
    };
  }

  /** Where this host has no curl, one that does as much of it as the documents use. */
  #lendCurl(): void {
    if (spawnSync('curl', ['--version']).status === 0) return;
    const [socketPath, url] = ['process.argv[2]', 'new URL(process.argv[3])'];
    const get = `require('http').get({ socketPath: ${socketPath}, path: ${url}.pathname }, (got) => got.pipe(process.stdout))`;
    writeFileSync(this.path('bin/curl'), `#!/bin/sh\nexec "${process.execPath}" -e "${get}" -- "$@"\n`, {
      mode: 0o755,
    });
  }

  path(name: string): string {
    return path.join(this.folder, name);
  }

  /** Kernel, initramfs and images under the names that the documents give them. */
  async stock(): Promise<void> {
    writeFileSync(this.path('vmlinuz'), promptingKernel('login: '));
    writeFileSync(this.path('initrd.img'), 'no initramfs');
    for (const name of ['root.img', 'base.img']) {
      writeFileSync(this.path(name), '');
      truncateSync(this.path(name), DISK_BYTES);
    }
    await createQcow2Overlay(this.path('root.qcow2'), { backing: this.path('base.img'), backingFormat: 'raw' });
  }

  /** Runs TypeScript as a module to its end. `launcher`: words of a command that starts it. */
  program(source: string, launcher: readonly string[] = []): Promise<Ended> {
    writeFileSync(this.path('block.mjs'), withoutTypes(source));
    // A kernel of these few instructions is no matter of what KVM can do.
    const env = { ...this.env, VIVARIUM_HOST: 'embedded' };
    return this.#run([...launcher, process.execPath, this.path('block.mjs')], env);
  }

  /** Types lines into a shell. */
  type(lines: string): Promise<Ended> {
    return this.#run(['sh', '-c', lines], this.env);
  }

  /** The same, not waited for: `until` what is said, signals to `child`. The shell gives way to the last line. */
  start(line: string): Vivarium {
    return new Vivarium('sh', ['-c', `exec ${line}`], this.#spawning());
  }

  /** Types lines into a shell on a terminal. */
  terminal(lines: string): Vivarium {
    return new Vivarium('script', ['-qefc', lines, '/dev/null'], this.#spawning());
  }

  #spawning(): RunOptions {
    return { cwd: this.folder, env: this.env as Record<string, string>, watchdogS: this.#limitS };
  }

  #run([program = '', ...args]: readonly string[], env: NodeJS.ProcessEnv): Promise<Ended> {
    return new Promise((resolve) => {
      const child = execFile(
        program,
        args,
        { cwd: this.folder, env, timeout: this.#limitS * 1000 },
        (_error, stdout, stderr) => {
          resolve({ status: child.exitCode ?? 128, stdout, stderr });
        },
      );
    });
  }
}

/** The same program for Node. */
export function withoutTypes(source: string): string {
  const compilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    verbatimModuleSyntax: true,
  };
  return ts.transpileModule(source, { compilerOptions }).outputText;
}

/** An ELF kernel that is entered by PVH, prints `prompt` on COM1 and spins. */
function promptingKernel(prompt: string): Uint8Array {
  const printed = [...Buffer.from(prompt, 'latin1')].flatMap((byte) => [0xb0, byte, 0xee]); // mov al, byte; out dx, al
  const code = Uint8Array.from([0x66, 0xba, 0xf8, 0x03, ...printed, 0xeb, 0xfe]); // mov dx, 0x3f8 ... jmp here
  return buildElf({
    bits: 64,
    entry: BigInt(KERNEL_GPA),
    segments: [
      { type: NOTE, paddr: 0n, data: pvhNote(KERNEL_GPA) },
      { paddr: BigInt(KERNEL_GPA), data: code },
    ],
  });
}
