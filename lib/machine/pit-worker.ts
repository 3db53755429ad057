/**
 * KVM fires the ticks of its PIT from a kernel thread, kvm-pit/PID (kvm_create_pit, arch/x86/kvm/i8254.c). On a busy host that
 * thread waits for a CPU as any other does, and the ticks that fall due meanwhile become one, also for a guest that has all
 * the CPU it wants: no raised rate then pays what is owed. So it is given precedence, where this process may do that.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import process from 'node:process';

/** The system as this file needs it. */
export interface ThreadTable {
  readonly ownPid: number;
  /** The ids of all processes, kernel threads among them. */
  pids(): number[];
  /** The name of one; throws when it has gone. */
  nameOf(pid: number): string;
  /** Throws where that is not allowed. */
  prefer(pid: number): void;
}

const SYSTEM: ThreadTable = {
  ownPid: process.pid,
  pids: () => readdirSync('/proc').map(Number).filter(Number.isInteger),
  nameOf: (pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').trim(),
  prefer: (pid) => setPriority(pid, constants.priority.PRIORITY_HIGHEST),
};

/**
 * Gives the PIT workers of this process's machines the highest of ordinary priorities (nice -20). The result is how many:
 * none without CAP_SYS_NICE, or where kernel threads are not to be seen, as in a container. It never throws.
 */
export function preferPitWorkers(table: ThreadTable = SYSTEM): number {
  const name = `kvm-pit/${table.ownPid}`;
  let preferred = 0;
  try {
    // They were made after this process, so looking at younger ones spares most of the looking.
    for (const pid of table.pids().filter((id) => id > table.ownPid)) {
      if (nameOf(table, pid) !== name) continue;
      table.prefer(pid);
      preferred++;
    }
  } catch {
    // Not allowed: the guest is caught up all the same, on a busy host more slowly.
  }
  return preferred;
}

function nameOf(table: ThreadTable, pid: number): string | undefined {
  try {
    return table.nameOf(pid);
  } catch {
    return undefined;
  }
}
