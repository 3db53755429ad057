/** Runs a script of this folder where this machine's Linux guests run: natively, or inside the embedded host. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { embeddedHost, probeKvm, toInnerPath } from '../../lib/host/index.js';

export interface GuestScriptOptions {
  /** Names of members of the request that are paths, which may read otherwise inside. */
  readonly paths?: readonly string[];
  /** It changes the host's network: outside the embedded host it gets one of its own, for which the user must be root. */
  readonly ownNetwork?: boolean;
  /** Default 280. */
  readonly limitS?: number;
}

export interface GuestScriptEnd {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `test/lib/NAME` with the request as JSON; how it ended. */
export async function runGuestScript(
  name: string,
  request: object,
  options: GuestScriptOptions = {},
): Promise<GuestScriptEnd> {
  const script = fileURLToPath(new URL(name, import.meta.url));
  const { paths = [], limitS = 280, ownNetwork = false } = options;
  const { linuxGuests } = await probeKvm();
  if (linuxGuests) {
    return new Promise((resolve) => {
      const words = [...(ownNetwork ? ['unshare', '-n'] : []), process.execPath, script, JSON.stringify(request)];
      const [program, ...args] = words as [string, ...string[]];
      const child = execFile(program, args, { timeout: limitS * 1000 }, (error, stdout, stderr) => {
        const status = error === null ? 0 : (child.exitCode ?? 128 + (child.signalCode === 'SIGKILL' ? 9 : 15));
        resolve({ status, stdout, stderr });
      });
    });
  }
  const cwd = process.cwd();
  const inner = Object.fromEntries(
    Object.entries(request).map(([key, value]: [string, unknown]) => {
      return [key, paths.includes(key) ? toInnerPath(value as string, cwd) : value];
    }),
  );
  const signal = AbortSignal.timeout(limitS * 1000);
  const said: Uint8Array[] = [];
  try {
    return await embeddedHost.run(script, {
      ...{ args: [JSON.stringify(inner)], signal },
      onStderr: (bytes) => void said.push(bytes),
    });
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new Error(`${name} had not ended after ${limitS} s:\n${Buffer.concat(said).toString()}`, { cause: error });
  }
}

/** The same for a script whose stdout is one JSON value. @throws Error with stderr when it fails. */
export async function guestScriptReport<T>(name: string, request: object, options?: GuestScriptOptions): Promise<T> {
  const { status, stdout, stderr } = await runGuestScript(name, request, options);
  if (status !== 0) throw new Error(`${name} ended with ${status}:\n${stderr}`);
  return JSON.parse(stdout) as T;
}
