/**
 * KVM fires the ticks of its PIT from a kernel thread, kvm-pit/PID (kvm_create_pit, arch/x86/kvm/i8254.c). On a busy host that
 * thread waits for a CPU as any other does, and the ticks that fall due meanwhile become one, also for a guest that has all
 * the CPU it wants: no raised rate then pays what is owed. So it is given precedence, where this process may do that.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import process from 'node:process';

/** PF_KTHREAD (linux/sched.h): anybody may give itself a name, nobody this. */
const KERNEL_THREAD = 0x00200000;
/** Of the fields behind the name in /proc/PID/stat. */
const FLAGS_FIELD = 6;

/** The system as this file needs it. */
export interface ThreadTable {
  readonly ownPid: number;
  /** The ids of all processes, kernel threads among them. */
  pids(): number[];
  /** Its /proc/PID/stat (proc(5)); throws when it has gone. */
  statOf(pid: number): string;
  /** Throws where that is not allowed. */
  prefer(pid: number): void;
}

const SYSTEM: ThreadTable = {
  ownPid: process.pid,
  pids: () => readdirSync('/proc').map(Number).filter(Number.isInteger),
  statOf: (pid) => readFileSync(`/proc/${pid}/stat`, 'utf8'),
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
    for (const pid of table.pids()) {
      if (!isKernelThread(table, pid, name)) continue;
      table.prefer(pid);
      preferred++;
    }
  } catch {
    // Not allowed: the guest is caught up all the same, on a busy host more slowly.
  }
  return preferred;
}

function isKernelThread(table: ThreadTable, pid: number, name: string): boolean {
  let stat: string;
  try {
    stat = table.statOf(pid);
  } catch {
    return false;
  }
  const nameEnd = stat.lastIndexOf(')');
  if (stat.slice(stat.indexOf('(') + 1, nameEnd) !== name) return false;
  return (Number(stat.slice(nameEnd + 2).split(' ')[FLAGS_FIELD]) & KERNEL_THREAD) !== 0;
}
