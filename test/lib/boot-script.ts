/** Runs boot-script.mjs where this machine's Linux guests run; what it saw. */
import { guestScriptReport } from './guest-script.js';

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
export function bootByScript(request: BootRequest): Promise<BootReport> {
  return guestScriptReport('boot-script.mjs', request, { paths: ['kernel', 'initrd'] });
}
