/** Runs boot-script.mjs where this machine's Linux guests run; what it saw. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { embeddedHost, probeKvm, toInnerPath } from '../../lib/host/index.js';

const SCRIPT = fileURLToPath(new URL('boot-script.mjs', import.meta.url));
const LIMIT_MS = 280_000;

export interface BootRequest {
  readonly kernel: string;
  readonly initrd: string;
  readonly entry?: 'pvh' | '64bit' | 'bzimage';
  /** Pauses it at random moments until it is up. */
  readonly pauses?: boolean;
}

export interface BootReport {
  readonly release: string;
  /** /proc/sys/kernel/bootloader_type: 176 for a kernel entered by PVH (enlighten.c), else what boot_params say. */
  readonly loader: number;
  readonly paused: number;
  /** Pauses during which registers or console changed. */
  readonly moved: number;
  readonly reason: string;
}

/** @throws Error with stderr when the script fails. */
export async function bootByScript(request: BootRequest): Promise<BootReport> {
  const { linuxGuests } = await probeKvm();
  if (linuxGuests) {
    const { stdout } = await promisify(execFile)(process.execPath, [SCRIPT, JSON.stringify(request)], {
      timeout: LIMIT_MS,
    });
    return JSON.parse(stdout) as BootReport;
  }
  const cwd = process.cwd();
  const inner = { ...request, kernel: toInnerPath(request.kernel, cwd), initrd: toInnerPath(request.initrd, cwd) };
  const { status, stdout, stderr } = await embeddedHost.run(SCRIPT, {
    args: [JSON.stringify(inner)],
    signal: AbortSignal.timeout(LIMIT_MS),
  });
  if (status !== 0) throw new Error(`the boot's script ended with ${status}:\n${stderr}`);
  return JSON.parse(stdout) as BootReport;
}
