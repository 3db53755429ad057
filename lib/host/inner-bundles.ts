/**
 * Builds of vivarium inside the embedded host: unpacked once into memory, each with one worker that has its modules
 * loaded and waits for a job, so that a command starts at once. Several builds live beside one another.
 */
import { spawn, type ChildProcess, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import { VmmError } from '../base/errors.js';
import type { BundleReference, SessionRequest } from './messages.js';

/** Builds that are kept: while one is worked on, the last and the one before. */
const KEPT_BUNDLES = 2;
const LAST_WORDS_BYTES = 4096;

/** A process of ours inside, with what it last said on its own stderr. */
export interface WorkerProcess {
  readonly child: ChildProcess;
  readonly lastWords: () => string;
}

export class Bundles {
  readonly #folder: string;
  readonly #log: (text: string) => void;
  readonly #unpacked = new Map<string, Promise<string>>();
  #spare: { key: string; worker: WorkerProcess } | undefined;

  constructor(folder: string, log: (text: string) => void) {
    this.#folder = folder;
    this.#log = log;
  }

  /** The folder of an unpacked build, in which `vivarium` is a module that can be imported. */
  folder(bundle: BundleReference): Promise<string> {
    let folder = this.#unpacked.get(bundle.key);
    if (folder === undefined) {
      folder = this.#unpack(bundle);
      this.#unpacked.set(bundle.key, folder);
      folder.catch(() => this.#unpacked.delete(bundle.key));
      this.#forgetOld();
    }
    return folder;
  }

  /** Has a worker ready for this build, without haste: whoever works now comes first. */
  prepare(bundle: BundleReference): void {
    void this.folder(bundle)
      .then((folder) => {
        if (this.#spare?.key === bundle.key) return;
        this.#spare?.worker.child.kill('SIGKILL');
        const worker = this.#spawnWorker(folder);
        const spare = { key: bundle.key, worker };
        this.#spare = spare;
        worker.child.once('exit', () => {
          if (this.#spare === spare) this.#spare = undefined;
        });
        prioritize(worker.child.pid, constants.priority.PRIORITY_LOW);
      })
      .catch((error: unknown) => this.#log(`inner daemon: ${String(error)}`));
  }

  /** A worker for this build: the one that waits, or a new one. */
  async takeWorker(bundle: BundleReference): Promise<WorkerProcess> {
    const spare = this.#spare;
    if (spare?.key !== bundle.key) return this.#spawnWorker(await this.folder(bundle));
    this.#spare = undefined;
    prioritize(spare.worker.child.pid, constants.priority.PRIORITY_NORMAL);
    return spare.worker;
  }

  /**
   * Starts a script of the user's, for which `import 'vivarium'` means this build: a file that is run where it lies,
   * with hooks that resolve the name, or a text, which becomes a module of the package and needs none (they cost a second).
   */
  async spawnScript(
    request: SessionRequest,
    draftName: string,
  ): Promise<{ child: ChildProcessWithoutNullStreams; draft?: string }> {
    const folder = await this.folder(request.bundle);
    const options = {
      cwd: request.cwd,
      env: { ...innerEnvironment(folder), ...request.env },
      stdio: ['pipe', 'pipe', 'pipe'] as ['pipe', 'pipe', 'pipe'],
    };
    if (request.source === undefined) {
      const hooks = join(folder, 'dist', 'host', 'script-hooks.js');
      return { child: spawn('/bin/node', ['--import', hooks, ...request.argv], options) };
    }
    mkdirSync(join(folder, 'scripts'), { recursive: true });
    const draft = join(folder, 'scripts', `${draftName}.mjs`);
    writeFileSync(draft, request.source);
    return { child: spawn('/bin/node', [draft, ...request.argv], options), draft };
  }

  #spawnWorker(folder: string): WorkerProcess {
    const child = spawn('/bin/node', [join(folder, 'dist', 'command', 'worker.js')], {
      cwd: '/',
      env: innerEnvironment(folder),
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    let words = '';
    const listen = (chunk: Buffer): void => {
      words = (words + chunk.toString()).slice(-LAST_WORDS_BYTES);
      this.#log(chunk.toString());
    };
    child.stdout?.on('data', listen);
    child.stderr?.on('data', listen);
    child.on('error', (error) => (words += error.message));
    return { child, lastWords: () => words.trim() };
  }

  async #unpack(bundle: BundleReference): Promise<string> {
    const folder = join(this.#folder, bundle.key);
    if (existsSync(folder)) return folder;
    const draft = `${folder}.new`;
    rmSync(draft, { recursive: true, force: true });
    mkdirSync(draft, { recursive: true });
    const child = spawn('/bin/busybox', ['cpio', '-idmu', '-F', bundle.path], {
      cwd: draft,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let words = '';
    child.stderr.on('data', (chunk: Buffer) => (words += chunk.toString()));
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
    if (code !== 0) throw new VmmError('ERR_EMBEDDED_HOST', `${bundle.path} can't be unpacked: ${words.trim()}`);
    renameSync(draft, folder);
    return folder;
  }

  #forgetOld(): void {
    const keys = [...this.#unpacked.keys()];
    for (const key of keys.slice(0, Math.max(0, keys.length - KEPT_BUNDLES))) {
      this.#unpacked.delete(key);
      // Modules that a running process has loaded stay loaded; what it has not is gone, as after any rebuild.
      rmSync(join(this.#folder, key), { recursive: true, force: true });
    }
  }
}

/** The environment of every process inside; sockets and other things of the inner kernel belong on its own disk. */
function innerEnvironment(bundleFolder: string): NodeJS.ProcessEnv {
  const libraries = join(bundleFolder, 'lib');
  return {
    PATH: '/bin:/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin',
    HOME: '/root',
    TZ: 'UTC',
    TMPDIR: '/run/tmp',
    XDG_RUNTIME_DIR: '/run/user',
    VIVARIUM_HOST: 'embedded',
    ...(existsSync(libraries) ? { LD_LIBRARY_PATH: libraries } : {}),
  };
}

/** Priorities are a thread's on Linux, so each thread of the process is given it. */
function prioritize(pid: number | undefined, priority: number): void {
  if (pid === undefined) return;
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), priority);
  } catch {
    // it has just ended: its exit is told elsewhere
  }
}
